#include "coordinator/api/names.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/status.h"
#include "coordinator/api/errors.h"

namespace tundra::coordinator {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

absl::Status Bad(std::string_view field, std::string_view description) {
  Violations violations;
  violations.Add(field, description);
  return violations.ToStatus();
}

bool IsId(absl::string_view id) { return !id.empty() && id.size() <= 128; }

}  // namespace

absl::StatusOr<std::string> ParseName(std::string_view name, std::string_view collection,
                                      std::string_view field) {
  const std::vector<absl::string_view> parts = absl::StrSplit(View(name), '/');
  if (parts.size() != 2 || parts[0] != View(collection) || !IsId(parts[1])) {
    return Bad(field, absl::StrCat("must have the form ", View(collection), "/ID, not \"",
                                   absl::CHexEscape(View(name.substr(0, 100))), "\""));
  }
  return std::string(parts[1]);
}

absl::StatusOr<AdapterName> ParseAdapterName(std::string_view name, std::string_view field) {
  const std::vector<absl::string_view> parts = absl::StrSplit(View(name), '/');
  AdapterName out;
  if (parts.size() == 2 && parts[0] == "uploads" && IsId(parts[1])) {
    out.upload = std::string(parts[1]);
    return out;
  }
  if (parts.size() == 3 && parts[0] == "jobs" && IsId(parts[1]) && parts[2] == "adapter") {
    out.job = std::string(parts[1]);
    return out;
  }
  if (parts.size() == 4 && parts[0] == "jobs" && IsId(parts[1]) && parts[2] == "checkpoints" &&
      absl::SimpleAtoi(parts[3], &out.step) && out.step >= 0) {
    out.job = std::string(parts[1]);
    return out;
  }
  return Bad(field, "must have the form jobs/ID/adapter, jobs/ID/checkpoints/STEP or uploads/ID");
}

absl::StatusOr<int32_t> CheckPageSize(int32_t size, int32_t normal, int32_t most) {
  if (size < 0 || size > most) return Bad("page_size", absl::StrCat("must be 0 to ", most));
  return size == 0 ? normal : size;
}

}  // namespace tundra::coordinator
