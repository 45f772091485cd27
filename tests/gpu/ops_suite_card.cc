// The suite over the CUDA operations on a card.
#include "tests/gpu/card.h"
#include "worker/ops/ops_suite.h"

namespace tundra::suite {

std::vector<Backend> Backends() {
  if (!WhyNoCard().empty()) return {};
  const CudaBackendTable* table = &CardBackend();
  return {{"cuda",
           [table](int /*threads*/) { return table->create_device(0); },
           table->create_ops,
           {1}}};
}

}  // namespace tundra::suite

int main(int argc, char** argv) { return tundra::CardTestMain(argc, argv); }
