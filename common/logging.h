// Logging through spdlog: one line an event, "time level [program] message" on
// standard error, or JSON lines for log collectors. Never prints secrets.
//
//   InitLogging({.program = "tundra-worker", .level = "info"});
//   LogInfo("group {} epoch {}: {} ranks ready", group, epoch, ranks);
#pragma once

#include <spdlog/spdlog.h>

#include <string>

#include "absl/status/status.h"

namespace tundra {

struct LogOptions {
  std::string program;
  std::string level = "info";  // trace | debug | info | warn | error | off
  bool json = false;
};

// Errors: kInvalidArgument for an unknown level.
absl::Status InitLogging(const LogOptions& options);

template <typename... Args>
void LogDebug(spdlog::format_string_t<Args...> format, Args&&... args) {
  spdlog::debug(format, std::forward<Args>(args)...);
}
template <typename... Args>
void LogInfo(spdlog::format_string_t<Args...> format, Args&&... args) {
  spdlog::info(format, std::forward<Args>(args)...);
}
template <typename... Args>
void LogWarning(spdlog::format_string_t<Args...> format, Args&&... args) {
  spdlog::warn(format, std::forward<Args>(args)...);
}
template <typename... Args>
void LogError(spdlog::format_string_t<Args...> format, Args&&... args) {
  spdlog::error(format, std::forward<Args>(args)...);
}

}  // namespace tundra
