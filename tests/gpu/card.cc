#include "tests/gpu/card.h"

#include <gtest/gtest.h>

#include <iostream>

namespace tundra {

std::string WhyNoCard() {
  const auto table = OpenCudaBackend();
  if (!table.ok()) return std::string(table.status().message());
  const auto count = (*table)->count_devices();
  if (!count.ok()) return std::string(count.status().message());
  return *count == 0 ? "this machine has no CUDA device" : "";
}

const CudaBackendTable& CardBackend() { return **OpenCudaBackend(); }

int CardTestMain(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::string why_not = WhyNoCard();
  if (!why_not.empty()) {
    std::cout << "skipped: " << why_not << "\n";
    return 77;
  }
  return RUN_ALL_TESTS();
}

}  // namespace tundra
