#include "client/process.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/files.h"

namespace tundra::client {

std::string StartTime(pid_t pid) {
  const auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), 1 << 16);
  if (!stat.ok()) return "";
  const size_t end_of_name = stat->rfind(')');
  if (end_of_name == std::string::npos) return "";
  const std::vector<std::string> fields = absl::StrSplit(stat->substr(end_of_name + 2), ' ');
  // A process that has ended but was not reaped no longer runs.
  if (fields.size() < 20 || fields[0] == "Z") return "";
  return fields[19];
}

}  // namespace tundra::client
