// Which vector instructions the process may use: one setting for Highway's loops and
// oneDNN's kernels, because bits depend on it.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tundra {

// In rising order. What each stands for in oneDNN and in Highway is in cpu_isa.cc.
enum class CpuIsa { kSse41, kAvx2, kAvx512, kAvx512Bf16, kAmx };

std::string_view CpuIsaName(CpuIsa isa);
// kInvalidArgument, listing the names, for any other.
absl::StatusOr<CpuIsa> ParseCpuIsa(std::string_view name);

// Caps the process at `max_isa` ("" leaves it as it is) and returns what is in effect
// then. The first call decides, since oneDNN can't change its mind.
// kFailedPrecondition when a later call asks for another cap or oneDNN was used before;
// kUnimplemented on a machine without SSE4.1.
absl::StatusOr<CpuIsa> UseCpuIsa(std::string_view max_isa);

// "2.6.3".
std::string OneDnnVersion();

}  // namespace tundra
