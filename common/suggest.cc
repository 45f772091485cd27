#include "common/suggest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tundra {

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      const size_t same = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + same});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

std::string Suggest(std::string_view word, const std::vector<std::string>& names) {
  const std::string* best = nullptr;
  size_t best_distance = 3;  // farther is no misspelling
  std::vector<const std::string*> same_start;
  for (const std::string& name : names) {
    const bool alike = std::string_view(name).starts_with(word) || word.starts_with(name);
    if (alike && !word.empty() && !name.empty()) same_start.push_back(&name);
    const size_t distance = EditDistance(word, name);
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = &name;
  }
  if (same_start.size() == 1) best = same_start[0];
  if (best != nullptr) return absl::StrCat("did you mean ", *best, "?");
  return absl::StrCat("it knows: ", absl::StrJoin(names, ", "));
}

}  // namespace tundra
