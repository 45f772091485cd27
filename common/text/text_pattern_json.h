// Reads the `pattern` member that Split and Replace share:
// {"String": "…"} or {"Regex": "…"}.
#pragma once

#include "absl/status/statusor.h"
#include "common/text/json_view.h"
#include "common/text/onig_regex.h"

namespace tundra {

absl::StatusOr<TextPattern> ParseTextPattern(const JsonView& owner);

}  // namespace tundra
