// The suite over the CPU's operations.
#include "worker/ops/ops_suite.h"

namespace tundra::suite {

std::vector<Backend> Backends() {
  const auto cpu = [](int threads) { return CreateCpuDevice({.threads = threads, .max_isa = ""}); };
  return {{"cpu", cpu, [](Device* device) { return CreateCpuOps(device); }}};
}

}  // namespace tundra::suite
