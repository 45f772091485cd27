// The CUDA device over the emulated runtime, whose streams do nothing until they are waited
// for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "worker/cuda/cuda_ops.h"
#include "worker/cuda/device_cuda.h"
#include "worker/device/arena.h"

namespace tundra::cuda {
namespace {

class CudaDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = CudaDevice::Create(0);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    auto stream = device_->CreateStream();
    ASSERT_TRUE(stream.ok()) << stream.status();
    stream_ = *std::move(stream);
  }
  void TearDown() override { emulation::SetDeviceMemory(SIZE_MAX); }
  Ctx ctx() { return {stream_.get(), nullptr}; }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
};

std::string Pattern(size_t bytes) {
  std::string text(bytes, 0);
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 131 >> 3);
  return text;
}

// Over one pinned slot, over all of them, and none.
TEST_F(CudaDeviceTest, CopiesOfAnySizeArrive) {
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{1000}, size_t{1} << 20, (size_t{9} << 20) + 5}) {
    auto buffer = device_->Allocate(bytes), other = device_->Allocate(bytes);
    ASSERT_TRUE(buffer.ok() && other.ok());
    const std::string want = Pattern(bytes);
    std::string host = want, got(bytes, 'x');
    ASSERT_TRUE(device_->CopyIn(ctx(), buffer->data(), host.data(), bytes).ok());
    std::fill(host.begin(), host.end(), 'y');  // it has left the caller's memory
    ASSERT_TRUE(device_->CopyWithin(ctx(), other->data(), buffer->data(), bytes).ok());
    ASSERT_TRUE(device_->Zero(ctx(), buffer->data(), bytes).ok());
    ASSERT_TRUE(device_->CopyOut(ctx(), got.data(), other->data(), bytes).ok());
    ASSERT_TRUE(device_->Synchronize(ctx()).ok());
    EXPECT_TRUE(got == want) << bytes;
    ASSERT_TRUE(device_->CopyOut(ctx(), got.data(), buffer->data(), bytes).ok());
    ASSERT_TRUE(device_->Synchronize(ctx()).ok());
    EXPECT_TRUE(got == std::string(bytes, '\0')) << bytes;
  }
}

TEST_F(CudaDeviceTest, CapturedWorkRunsWheneverItIsLaunched) {
  EXPECT_TRUE(device_->has_graphs());
  auto buffer = device_->Allocate(64), source = device_->Allocate(64);
  ASSERT_TRUE(buffer.ok() && source.ok());
  const std::string first = Pattern(64), second(64, 'z');
  std::string got(64, 'x');
  ASSERT_TRUE(device_->CopyIn(ctx(), source->data(), first.data(), 64).ok());
  ASSERT_TRUE(device_->CopyIn(ctx(), buffer->data(), second.data(), 64).ok());
  ASSERT_TRUE(device_->BeginCapture(ctx()).ok());
  ASSERT_TRUE(device_->CopyWithin(ctx(), buffer->data(), source->data(), 32).ok());
  ASSERT_TRUE(device_->Zero(ctx(), source->data(), 32).ok());
  auto graph = device_->EndCapture(ctx());
  ASSERT_TRUE(graph.ok()) << graph.status();
  // Captured is not run.
  ASSERT_TRUE(device_->CopyOut(ctx(), got.data(), buffer->data(), 64).ok());
  ASSERT_TRUE(device_->Synchronize(ctx()).ok());
  EXPECT_EQ(got, second);
  ASSERT_TRUE(device_->Launch(ctx(), **graph).ok());
  ASSERT_TRUE(device_->CopyOut(ctx(), got.data(), buffer->data(), 64).ok());
  ASSERT_TRUE(device_->Synchronize(ctx()).ok());
  EXPECT_EQ(got, first.substr(0, 32) + second.substr(32));
  // Again, on what is there by now.
  ASSERT_TRUE(device_->Launch(ctx(), **graph).ok());
  ASSERT_TRUE(device_->CopyOut(ctx(), got.data(), buffer->data(), 64).ok());
  ASSERT_TRUE(device_->Synchronize(ctx()).ok());
  EXPECT_EQ(got, std::string(32, '\0') + second.substr(32));
}

TEST_F(CudaDeviceTest, WhatCannotBeCapturedSaysSoAndTheStreamLivesOn) {
  auto buffer = device_->Allocate(8);
  ASSERT_TRUE(buffer.ok());
  auto other = device_->CreateStream();
  ASSERT_TRUE(other.ok());
  char host[8] = {};
  EXPECT_FALSE(device_->EndCapture(ctx()).ok());
  ASSERT_TRUE(device_->BeginCapture(ctx()).ok());
  for (const absl::Status& refused :
       {device_->BeginCapture(ctx()), device_->CopyIn(ctx(), buffer->data(), host, 8),
        device_->CopyOut(ctx(), host, buffer->data(), 8), device_->Synchronize(ctx()),
        device_->Order(other->get(), stream_.get()), device_->Order(stream_.get(), other->get())}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
  }
  EXPECT_TRUE(device_->EndCapture(ctx()).ok());
  EXPECT_TRUE(device_->CopyIn(ctx(), buffer->data(), host, 8).ok());
  EXPECT_TRUE(device_->Synchronize(ctx()).ok());
}

TEST_F(CudaDeviceTest, ManyCopiesShareFewSlots) {
  auto buffer = device_->Allocate(64 * 8);
  ASSERT_TRUE(buffer.ok());
  std::vector<uint64_t> got(64, 0);
  auto* data = static_cast<char*>(buffer->data());
  for (uint64_t i = 0; i < 64; ++i) {
    ASSERT_TRUE(device_->CopyIn(ctx(), data + 8 * i, &i, 8).ok());
    ASSERT_TRUE(device_->CopyOut(ctx(), &got[i], data + 8 * i, 8).ok());
  }
  ASSERT_TRUE(device_->Synchronize(ctx()).ok());
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(got[i], i);
}

TEST_F(CudaDeviceTest, AnOrderedStreamRunsAfterTheOther) {
  auto later = device_->CreateStream();
  ASSERT_TRUE(later.ok());
  const Ctx later_ctx{later->get(), nullptr};
  auto buffer = device_->Allocate(100);
  ASSERT_TRUE(buffer.ok());
  const std::string want = Pattern(100);
  std::string got(100, ' ');
  ASSERT_TRUE(device_->CopyIn(ctx(), buffer->data(), want.data(), 100).ok());
  ASSERT_TRUE(device_->Order(stream_.get(), later->get()).ok());
  ASSERT_TRUE(device_->CopyOut(later_ctx, got.data(), buffer->data(), 100).ok());
  ASSERT_TRUE(device_->Synchronize(later_ctx).ok());
  EXPECT_EQ(got, want);
}

TEST_F(CudaDeviceTest, MemoryThatIsNotThereIsResourceExhausted) {
  emulation::SetDeviceMemory(1 << 20);
  EXPECT_EQ(device_->available_bytes(), size_t{1} << 20);
  auto most = device_->Allocate(1 << 20);
  ASSERT_TRUE(most.ok());
  EXPECT_EQ(device_->available_bytes(), 0u);
  EXPECT_EQ(device_->Allocate(1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Arena::Create(device_.get(), 100).status().code(),
            absl::StatusCode::kResourceExhausted);
  most->Reset();
  EXPECT_TRUE(device_->Allocate(100).ok());
}

// The runtime keeps an error until it is asked for, and a launch asks.
TEST_F(CudaDeviceTest, AFailedAllocationIsNotTheNextLaunchsError) {
  auto ops = CreateCudaOps(device_.get());
  ASSERT_TRUE(ops.ok()) << ops.status();
  auto buffer = device_->Allocate(64);
  ASSERT_TRUE(buffer.ok());
  ASSERT_TRUE(device_->Zero(ctx(), buffer->data(), 64).ok());
  emulation::SetDeviceMemory(64);
  EXPECT_EQ(device_->Allocate(1).status().code(), absl::StatusCode::kResourceExhausted);
  const absl::Status launched = (*ops)->Scale(ctx(), 2.0f, buffer->Matrix(DType::kF32, 1, 16));
  EXPECT_TRUE(launched.ok()) << launched;
  EXPECT_TRUE(device_->Synchronize(ctx()).ok());
  // What nobody takes is there for a launch to find, as with the real runtime.
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 1), cudaErrorMemoryAllocation);
  EXPECT_EQ((*ops)->Scale(ctx(), 2.0f, buffer->Matrix(DType::kF32, 1, 16)).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(CudaDeviceTest, TheClassNamesTheVersionsThatDecideBits) {
  EXPECT_THAT(device_->numerics_class(),
              testing::StartsWith(absl::StrCat("cuda/emulated-GPU/1-sm/engine-",
                                               kEngineNumericsVersion, "/cuda-0/emulated")));
}

TEST_F(CudaDeviceTest, TheFirstOfSeveralFaultsIsTold) {
  EXPECT_LT(FaultWord(Fault::kToken, 7), FaultWord(Fault::kToken, 6));
  EXPECT_LT(FaultWord(Fault::kToken, 0), FaultWord(Fault::kIndex, 1 << 30));
  auto* stream = static_cast<CudaStream*>(stream_.get());
  *stream->fault() = FaultWord(Fault::kTarget, 12);
  const absl::Status status = device_->Synchronize(ctx());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("vocabulary, at token 12"));
  EXPECT_TRUE(device_->Synchronize(ctx()).ok()) << "told once";
}

}  // namespace
}  // namespace tundra::cuda
