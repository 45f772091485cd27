// The version of these programs, and which versions of a coordinator and of its
// workers go together.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace tundra {

// "MAJOR.MINOR.PATCH", as `--version` prints it; from the project's CMakeLists.txt.
std::string ProgramVersion();

// Whether a coordinator takes a worker: one of its own MAJOR.MINOR or of the MINOR before (of
// MAJOR.0, every one of the MAJOR before), so that a coordinator can be upgraded first and its
// workers after it. What follows the three numbers ("-rc1") says nothing. Errors:
// kInvalidArgument for what is no version; kFailedPrecondition for one that is too old or newer,
// with what to upgrade.
absl::Status CheckWorkerVersion(const std::string& worker, const std::string& coordinator);

}  // namespace tundra
