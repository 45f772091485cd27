// Opening the CUDA backend's library, as programs do, and what is said when it cannot be.
#include "worker/device/cuda_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "worker/ops/ops.h"

namespace tundra {
namespace {

using testing::HasSubstr;

TEST(CudaBackend, ALibraryOfThisBuildGivesDevicesAndOperations) {
  auto table = OpenCudaBackendFrom({"/nowhere/libtundra_cuda.so", EMULATED_LIBRARY});
  ASSERT_TRUE(table.ok()) << table.status();
  auto count = (*table)->count_devices();
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_GT(*count, 0);
  auto device = (*table)->create_device(1);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->kind(), DeviceKind::kCuda);
  EXPECT_EQ((*device)->name(), "emulated GPU (cuda:1)");
  EXPECT_THAT((*device)->numerics_class(), testing::StartsWith("cuda/emulated-GPU/1-sm/engine-"));
  auto ops = (*table)->create_ops(device->get());
  ASSERT_TRUE(ops.ok()) << ops.status();
  EXPECT_EQ((*ops)->device(), device->get());
  EXPECT_EQ((*table)->create_device(99).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string((*table)->create_device(99).status().message()),
              HasSubstr("has cuda:0 to cuda:7"));
}

TEST(CudaBackend, AMissingLibraryIsToldWithWhatToDo) {
  const absl::Status status = OpenCudaBackendFrom({"/nowhere/libtundra_cuda.so"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("looked for /nowhere/libtundra_cuda.so"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("cpu:N"));
}

TEST(CudaBackend, ALibraryOfAnotherBuildIsRefused) {
  const absl::Status status = OpenCudaBackendFrom({OTHER_LIBRARY}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("of another build"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("0123456789abcdef"));
}

TEST(CudaBackend, AFileThatIsNoLibraryIsAnError) {
  const std::string path = testing::TempDir() + "/libtundra_cuda.so";
  std::ofstream(path) << "not a library";
  const absl::Status status = OpenCudaBackendFrom({path}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot be loaded"));
}

TEST(CudaBackend, TheEnvironmentChoosesTheLibrary) {
  ASSERT_EQ(setenv("TUNDRA_CUDA_LIBRARY", "/somewhere/lib.so", 1), 0);
  EXPECT_EQ(CudaLibraryPaths(), std::vector<std::string>{"/somewhere/lib.so"});
  ASSERT_EQ(unsetenv("TUNDRA_CUDA_LIBRARY"), 0);
  EXPECT_EQ(CudaLibraryPaths().back(), kCudaLibraryName);
  EXPECT_EQ(CudaLibraryPaths().size(), 3u);
}

}  // namespace
}  // namespace tundra
