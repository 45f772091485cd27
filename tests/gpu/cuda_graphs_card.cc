// Graphs on a card.
#include "tests/emulation/cuda_graphs_device.h"
#include "tests/gpu/card.h"

namespace tundra {

absl::StatusOr<TestDevice> OpenGraphsDevice() {
  TestDevice opened;
  ASSIGN_OR_RETURN(opened.device, CardBackend().create_device(0));
  ASSIGN_OR_RETURN(opened.ops, CardBackend().create_ops(opened.device.get()));
  return opened;
}

std::optional<int64_t> GraphsThatTheRuntimeLaunched() { return std::nullopt; }

}  // namespace tundra

int main(int argc, char** argv) { return tundra::CardTestMain(argc, argv); }
