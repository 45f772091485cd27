// Which process is meant when its number is noted in a file.
#pragma once

#include <sys/types.h>

#include <string>

namespace tundra::client {

// Field 22 of /proc/PID/stat: tells a process from another with its number. Empty for one that
// has ended.
std::string StartTime(pid_t pid);

}  // namespace tundra::client
