// The suite over the CPU's operations.
#include "worker/ops/ops_suite.h"

namespace tundra::suite {

std::vector<Backend> Backends() {
  const auto cpu = [](int threads) { return CreateCpuDevice({.threads = threads, .max_isa = ""}); };
  Backend backend;
  backend.name = "cpu";
  backend.make_device = cpu;
  backend.make_ops = [](Device* device) { return CreateCpuOps(device); };
  return {backend};
}

}  // namespace tundra::suite
