// The filter of ListJobs: a subset of AIP-160.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/store/records.h"

namespace tundra::coordinator {

// Terms `state = RUNNING`, `display_name = "x"`, `base = "x"`,
// `labels.KEY = "x"`, also with `!=`, and `display_name : "part"`, joined by AND; empty is no
// term. Values may be quoted, with \" and \\ inside. At most 4096 bytes and 32 terms.
// Errors: kInvalidArgument with the place and what was expected.
// Source: https://google.aip.dev/160
absl::StatusOr<std::vector<JobFilterTerm>> ParseJobFilter(std::string_view text);

}  // namespace tundra::coordinator
