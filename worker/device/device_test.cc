#include "worker/device/device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "common/files.h"
#include "worker/device/arena.h"
#include "worker/device/cpu_isa.h"
#include "worker/device/host_memory.h"

namespace tundra {
namespace {

std::unique_ptr<Device> MakeDevice(int threads = 1) {
  auto device = CreateCpuDevice({.threads = threads, .max_isa = ""});
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

TEST(CpuDevice, CopiesInWithinAndOut) {
  const auto device = MakeDevice();
  auto stream = device->CreateStream();
  ASSERT_TRUE(stream.ok());
  const Ctx ctx{stream->get(), nullptr};
  auto a = device->Allocate(100), b = device->Allocate(100);
  ASSERT_TRUE(a.ok() && b.ok());
  const std::string text(100, 'x');
  std::string back(100, ' ');
  ASSERT_TRUE(device->CopyIn(ctx, a->data(), text.data(), 100).ok());
  ASSERT_TRUE(device->Zero(ctx, b->data(), 100).ok());
  ASSERT_TRUE(device->CopyWithin(ctx, b->data(), a->data(), 60).ok());
  ASSERT_TRUE(device->CopyOut(ctx, back.data(), b->data(), 100).ok());
  ASSERT_TRUE(device->Synchronize(ctx).ok());
  EXPECT_EQ(back, std::string(60, 'x') + std::string(40, '\0'));
}

TEST(CpuDevice, AllocationsAreAlignedAndTooLargeOnesAreErrors) {
  const auto device = MakeDevice();
  for (const size_t bytes : {size_t{1}, size_t{63}, size_t{5000}, size_t{5} << 20}) {
    auto buffer = device->Allocate(bytes);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    EXPECT_EQ(buffer->size(), bytes);
    Buffer moved = *std::move(buffer);
    EXPECT_EQ(moved.size(), bytes);
  }
  EXPECT_EQ(device->Allocate(std::numeric_limits<size_t>::max() - 10).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(device->Allocate(size_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(device->Allocate(0).ok());
}

TEST(CpuDevice, TheNumericsClassNamesTheArithmeticAndNotTheThreads) {
  const auto one = MakeDevice(1), four = MakeDevice(4);
  EXPECT_EQ(one->numerics_class(), four->numerics_class());
  const std::string numerics_class = one->numerics_class();
  EXPECT_NE(numerics_class.find("onednn-" + OneDnnVersion()), std::string::npos);
  EXPECT_NE(numerics_class.find("engine-" + std::to_string(kEngineNumericsVersion)),
            std::string::npos);
  EXPECT_NE(numerics_class.find(CpuIsaName(*UseCpuIsa(""))), std::string::npos);
}

TEST(CpuDevice, RefusesBadOptions) {
  EXPECT_EQ(CreateCpuDevice({.threads = 0, .max_isa = ""}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto unknown = CreateCpuDevice({.threads = 1, .max_isa = "avx1024"});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(unknown.status().message()).find("avx512_bf16"), std::string::npos);
}

TEST(CpuDevice, TheInstructionSetIsFixedForTheProcess) {
  MakeDevice();
  const CpuIsa isa = *UseCpuIsa("");
  const std::string other(CpuIsaName(isa == CpuIsa::kSse41 ? CpuIsa::kAvx2 : CpuIsa::kSse41));
  EXPECT_EQ(CreateCpuDevice({.threads = 1, .max_isa = other}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(CreateCpuDevice({.threads = 1, .max_isa = std::string(CpuIsaName(isa))}).ok());
}

TEST(Arena, AllocatesAlignedReleasesToMarksAndKnowsItsPeak) {
  const auto device = MakeDevice();
  auto arena = Arena::Create(device.get(), 1024);
  ASSERT_TRUE(arena.ok());
  auto a = arena->Allocate(DType::kF32, 3, 5);
  ASSERT_TRUE(a.ok());
  EXPECT_EQ(a->stride, 5);
  {
    ArenaScope scope(&*arena);
    auto b = arena->Allocate(DType::kBF16, 10, 10);
    ASSERT_TRUE(b.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b->data) % Arena::kAlignment, 0u);
    EXPECT_EQ(arena->used(), 64u + 200u);
  }
  EXPECT_EQ(arena->used(), 60u);
  EXPECT_EQ(arena->peak(), 264u);
  const auto too_much = arena->Allocate(DType::kF32, 100, 100);
  EXPECT_EQ(too_much.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(arena->peak(), 64u + 40000u) << "what it would have taken";
  EXPECT_FALSE(arena->Allocate(DType::kF32, -1, 4).ok());
  EXPECT_FALSE(arena->Allocate(DType::kF32, int64_t{1} << 40, int64_t{1} << 40).ok());
  EXPECT_EQ(arena->used(), 60u) << "a failed allocation takes nothing";
}

TEST(BF16Conversion, RoundsToNearestEvenAndKeepsNaN) {
  for (uint32_t upper = 0; upper <= 0xffff; ++upper) {
    const BF16 value{static_cast<uint16_t>(upper)};
    const float f = ToFloat(value);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToBF16(f))));
      continue;
    }
    EXPECT_EQ(ToBF16(f), value) << "a bf16 number is its own rounding";
    if (!std::isfinite(f)) continue;
    const auto bits = std::bit_cast<uint32_t>(f);
    EXPECT_EQ(ToBF16(std::bit_cast<float>(bits + 0x7fffu)), value) << "below the tie";
    const BF16 next{static_cast<uint16_t>(upper + 1)};
    EXPECT_EQ(ToBF16(std::bit_cast<float>(bits + 0x8001u)), next) << "above the tie";
    EXPECT_EQ(ToBF16(std::bit_cast<float>(bits + 0x8000u)), upper % 2 == 0 ? value : next)
        << "ties go to even";
  }
  // A NaN whose payload lies in the lower half alone stays one.
  EXPECT_TRUE(std::isnan(ToFloat(ToBF16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Views, SlicesShareMemoryAndKeepTheStride) {
  float data[12] = {};
  const View whole = View::Matrix(data, DType::kF32, 3, 4);
  const View part = whole.Rows(1, 2).Cols(2, 1);
  part.row<float>(1)[0] = 7;
  EXPECT_EQ(data[10], 7);
  EXPECT_FALSE(part.contiguous());
  EXPECT_TRUE(whole.contiguous());
  EXPECT_EQ(whole.Flat().cols, 12);
  const ConstView read = part;
  EXPECT_EQ(read.row<float>(1)[0], 7);
}

class HostMemory : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path whole = root_ / path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
  size_t Available() const { return AvailableHostMemory(root_.path()); }
  TempDir root_;
};

TEST_F(HostMemory, IsTheMachinesWithoutAControlGroup) {
  EXPECT_EQ(Available(), std::numeric_limits<size_t>::max()) << "nothing to read";
  Write("proc/meminfo", "MemTotal: 100 kB\nMemFree:  10 kB\nMemAvailable:   64 kB\nX: 1 kB\n");
  EXPECT_EQ(Available(), 64u << 10);
}

TEST_F(HostMemory, IsWhatTheTightestControlGroupLeaves) {
  Write("proc/meminfo", "MemAvailable: 1000000 kB\n");
  Write("proc/self/cgroup", "0::/pod/box\n");
  Write("sys/fs/cgroup/pod/box/memory.max", "max\n");
  Write("sys/fs/cgroup/pod/box/memory.current", "5000\n");
  EXPECT_EQ(Available(), size_t{1000000} << 10);
  Write("sys/fs/cgroup/pod/memory.max", "100000\n");
  Write("sys/fs/cgroup/pod/memory.current", "60000\n");
  EXPECT_EQ(Available(), 40000u);
  Write("sys/fs/cgroup/pod/memory.stat", "anon 1\nfile 20\ninactive_file 25000\nslab 2\n");
  EXPECT_EQ(Available(), 65000u) << "cached files can be dropped";
  Write("sys/fs/cgroup/pod/box/memory.max", "6000\n");
  EXPECT_EQ(Available(), 1000u);
  Write("sys/fs/cgroup/pod/box/memory.current", "7000\n");
  EXPECT_EQ(Available(), 0u) << "over its limit";
  // A container sees its own group as the top.
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "9000\n");
  Write("sys/fs/cgroup/memory.current", "2000\n");
  EXPECT_EQ(Available(), 7000u);
}

TEST_F(HostMemory, KnowsVersionOne) {
  Write("proc/meminfo", "MemAvailable: 1000000 kB\n");
  Write("proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/a\nbroken\n");
  Write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  Write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "10\n");
  EXPECT_EQ(Available(), size_t{1000000} << 10);
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n");
  Write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1000\n");
  EXPECT_EQ(Available(), 3000u);
}

}  // namespace
}  // namespace tundra
