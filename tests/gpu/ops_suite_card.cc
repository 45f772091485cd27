// The suite over the CUDA operations on a card, through the library that programs open.
// Where there is no card it says why and ends with 77, which ctest counts as skipped.
#include <gtest/gtest.h>

#include <iostream>

#include "worker/device/cuda_backend.h"
#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

// Why the card cannot be used; "" when it can.
std::string WhyNot() {
  const auto table = OpenCudaBackend();
  if (!table.ok()) return std::string(table.status().message());
  const auto count = (*table)->count_devices();
  if (!count.ok()) return std::string(count.status().message());
  return *count == 0 ? "this machine has no CUDA device" : "";
}

}  // namespace

std::vector<Backend> Backends() {
  if (!WhyNot().empty()) return {};
  const CudaBackendTable* table = *OpenCudaBackend();
  return {{"cuda",
           [table](int /*threads*/) { return table->create_device(0); },
           table->create_ops,
           {1}}};
}

}  // namespace tundra::suite

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::string why_not = tundra::suite::WhyNot();
  if (!why_not.empty()) {
    std::cout << "skipped: " << why_not << "\n";
    return 77;
  }
  return RUN_ALL_TESTS();
}
