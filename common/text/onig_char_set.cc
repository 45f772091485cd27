#include "common/text/onig_char_set.h"

#include <cstdint>

namespace tundra {
std::string RangeItems(const CodePointRange* ranges, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) AppendRange(ranges[i].first, ranges[i].last, out);
  return out;
}

std::string Hex(char32_t c) {
  return absl::StrCat("\\x{", absl::Hex(static_cast<uint32_t>(c)), "}");
}

void AppendRange(char32_t first, char32_t last, std::string& out) {
  absl::StrAppend(&out, Hex(first));
  if (last > first) absl::StrAppend(&out, "-", Hex(last));
}

std::string CategoryItems(std::string_view category) {
  std::string out = absl::StrCat("\\p{", absl::string_view(category.data(), category.size()), "}");
  char32_t first = 0, last = 0;
  for (size_t i = 0; i < kCategoryDeltaSize; ++i) {
    const CategoryRange& r = kCategoryDelta[i];
    if (!std::string_view(r.category).starts_with(category)) continue;
    if (last != 0 && r.first == last + 1) {
      last = r.last;
      continue;
    }
    if (last != 0) AppendRange(first, last, out);
    first = r.first;
    last = r.last;
  }
  if (last != 0) AppendRange(first, last, out);
  return out;
}

std::string WordItems() {
  return absl::StrCat(CategoryItems("L"), CategoryItems("M"), CategoryItems("Nd"),
                      CategoryItems("Nl"), CategoryItems("Pc"),
                      RangeItems(kOnigWordExtraRanges, kOnigWordExtraRangesSize));
}

}  // namespace tundra
