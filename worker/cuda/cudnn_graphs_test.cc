// Which attention cuDNN has kernels for, asked without a card: it is given descriptions of cards
// instead. Prints a table. Where cuDNN isn't there this says so and ends with 77, which ctest
// counts as skipped.
#include "worker/cuda/cudnn_graphs.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/cuda/ragged_attention.h"

namespace tundra::cuda {
namespace {

// The first with descriptions of devices that work for attention.
constexpr size_t kOldestWithDescriptions = 91100;

struct Card {
  const char* name;
  int compute;  // 800 for compute capability 8.0
  int multiprocessors;
  int shared_bytes;  // of a block, at most
  int blocks;        // of a multiprocessor, at most
  int threads;       // the same
};
// As NVIDIA's tuning guides describe them.
constexpr Card kA100{"A100", 800, 108, 163 << 10, 32, 2048};
constexpr Card kRtx4090{"RTX 4090", 890, 128, 99 << 10, 24, 1536};
constexpr Card kH100{"H100", 900, 132, 227 << 10, 32, 2048};
constexpr Card kB200{"B200", 1000, 148, 227 << 10, 32, 2048};

CudnnTarget Describe(const Card& card) {
  const std::string json = absl::StrCat(
      R"({"deviceName": ")", card.name, R"(", "deviceVer": )", card.compute,
      R"(, "multiProcessorCount": )", card.multiprocessors, R"(, "maxSharedMemoryPerBlockOptin": )",
      card.shared_bytes, R"(, "maxCtasPerSM": )", card.blocks, R"(, "maxThreadsPerSM": )",
      card.threads, R"(, "cudaDeviceId": 0, "pciDeviceId": 0, "driverVer": 13000, "warpSize": 32)",
      R"(, "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64])",
      R"(, "maxThreadsPerBlock": 1024, "regsPerBlock": 65536, "maxRegistersPerSM": 65536)",
      R"(, "maxSharedMemoryPerBlock": 49152, "reservedSharedMemoryPerBlock": 1024)",
      R"(, "isTccDriver": 0, "supportCoopLaunch": 1, "totalGlobalMem": 85899345920)",
      R"(, "smClockRateKHz": 1500000, "memClockRateKHz": 2000000, "l2CacheSize": 52428800})");
  auto device = std::make_shared<cudnn_frontend::DeviceProperties>();
  auto error = device->deserialize({json.begin(), json.end()});
  EXPECT_TRUE(error.is_good()) << error.get_message();
  return {nullptr, device, card.compute / 10};
}

// Eight rows of up to 512 tokens, four query heads to a kv head.
RaggedShape ShapeOf(int dim) { return {32, 8, dim, 0.125f, 8, 512, 4096}; }

// Whether there are kernels; one line of the table.
bool HasKernels(const Card& card, Direction direction, int dim) {
  const auto graph = MakeCudnnGraph(direction, ShapeOf(dim), Describe(card));
  EXPECT_TRUE(graph.ok() || absl::IsUnimplemented(graph.status())) << graph.status();
  std::string told(graph.status().message().substr(0, 120));
  if (graph.ok()) {
    // Whether they do with the workspace that they are given.
    (*graph)->deselect_workspace_greater_than(
        static_cast<int64_t>(RaggedWorkspaceLimit(direction, ShapeOf(dim))));
    told = (*graph)->check_support().is_good() ? "" : " with more workspace than it is given";
  }
  std::printf("%-9s %-9s heads of %3d  %s%s\n", card.name,
              direction == Direction::kForward ? "forward" : "backward", dim,
              graph.ok() ? "yes" : "no: ", told.c_str());
  return graph.ok() && told.empty();
}

TEST(CudnnGraphs, AHopperCardHasKernelsBothWaysForTheUsualHeads) {
  for (const int dim : {64, 128}) {
    EXPECT_TRUE(HasKernels(kH100, Direction::kForward, dim)) << dim;
    EXPECT_TRUE(HasKernels(kH100, Direction::kBackward, dim)) << dim;
  }
}

TEST(CudnnGraphs, TheVersionNamesLibraryAndFrontend) {
  const std::string version = CudnnVersion();
  EXPECT_EQ(version.substr(0, 7), "cudnn-9");
  EXPECT_NE(version.find("-frontend-1"), std::string::npos) << version;
  std::cout << version << "\n";
}

// What others have is for the table: whatever it is, an answer is no failure.
TEST(CudnnGraphs, OtherCardsAndHeadsGetAnAnswer) {
  for (const Card& card : {kA100, kRtx4090, kH100, kB200}) {
    for (const int dim : {64, 96, 128, 256}) {
      for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
        HasKernels(card, direction, dim);
      }
    }
  }
}

std::string WhyNot() {
  // Kernels want the driver's library to be there, but none of its functions until they are
  // loaded: where there is no driver, CUDA's stub of it does.
  if (::dlopen("libcuda.so.1", RTLD_NOW) == nullptr &&
      ::dlopen(CUDA_DRIVER_STUB, RTLD_NOW) == nullptr) {
    return ::dlerror();
  }
  const absl::Status opened = OpenCudnn();
  if (!opened.ok()) return std::string(opened.message());
  if (cudnn_frontend::detail::get_backend_version() < kOldestWithDescriptions) {
    return "this cuDNN takes no descriptions of devices; 9.11 does";
  }
  return "";
}

}  // namespace
}  // namespace tundra::cuda

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::string why_not = tundra::cuda::WhyNot();
  if (!why_not.empty()) {
    std::cout << "skipped: " << why_not << "\n";
    return 77;
  }
  return RUN_ALL_TESTS();
}
