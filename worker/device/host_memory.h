// How much memory this process may still take on the host: what the machine has left, or
// what its control group (a container, a systemd unit) leaves it, if that is less.
#pragma once

#include <cstddef>
#include <string>

namespace tundra {

// Bytes. Files are read below `root`, which is "" but in tests: proc/meminfo, and for each
// control group that proc/self/cgroup names, and those above it, limit and use in
// sys/fs/cgroup (version 2, or version 1's memory controller). Cached file pages that the
// kernel can drop count as free. SIZE_MAX when nothing can be read.
size_t AvailableHostMemory(const std::string& root = "");

}  // namespace tundra
