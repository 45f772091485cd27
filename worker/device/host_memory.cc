#include "worker/device/host_memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

namespace tundra {
namespace {

constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

// The number in a file that holds nothing else; none for "max" or no such file.
std::optional<uint64_t> Number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

// The number after `key` in a file of "key number" lines.
std::optional<uint64_t> Field(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    uint64_t value = 0;
    if (word == key && file >> value) return value;
    file.clear();
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

struct GroupFiles {
  const char* limit;
  const char* use;
  const char* droppable;
};
constexpr GroupFiles kVersion2 = {"/memory.max", "/memory.current", "inactive_file"};
constexpr GroupFiles kVersion1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                  "total_inactive_file"};

// What a control group, and each above it up to `top`, leave.
size_t LeftInGroups(const std::string& top, std::string group, const GroupFiles& files) {
  size_t left = kUnlimited;
  while (true) {
    while (group.ends_with('/')) group.pop_back();
    const std::string dir = top + group;
    const std::optional<uint64_t> limit = Number(dir + files.limit), use = Number(dir + files.use);
    if (limit && use) {
      const uint64_t held =
          *use - std::min(*use, Field(dir + "/memory.stat", files.droppable).value_or(0));
      left = std::min<size_t>(left, *limit - std::min(*limit, held));
    }
    if (group.empty()) return left;
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

}  // namespace

size_t AvailableHostMemory(const std::string& root) {
  size_t left = kUnlimited;
  if (const auto kib = Field(root + "/proc/meminfo", "MemAvailable:")) left = *kib << 10;
  // Lines "id:controllers:path"; no controllers: version 2.
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    const std::string mount = root + "/sys/fs/cgroup";
    if (controllers == ",,") left = std::min(left, LeftInGroups(mount, path, kVersion2));
    if (controllers.find(",memory,") != std::string::npos) {
      left = std::min(left, LeftInGroups(mount + "/memory", path, kVersion1));
    }
  }
  return left;
}

}  // namespace tundra
