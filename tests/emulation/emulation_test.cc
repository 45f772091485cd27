// The emulation itself: kernels that are right give the right numbers whatever order their
// threads run in, and kernels that are wrong are found, with a message that says where.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <numeric>
#include <vector>

#include "worker/cuda/launch.h"

namespace tundra::cuda {
namespace {

using testing::HasSubstr;

// Device memory with the values of a vector.
template <typename T>
class Memory {
 public:
  explicit Memory(std::vector<T> values) : size_(static_cast<int64_t>(values.size())) {
    void* data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, values.size() * sizeof(T)), cudaSuccess);
    data_ = static_cast<T*>(data);
    std::copy(values.begin(), values.end(), data_);
  }
  Memory(int64_t rows, int64_t cols) : Memory(std::vector<T>(static_cast<size_t>(rows * cols))) {}
  ~Memory() { EXPECT_EQ(cudaFree(data_), cudaSuccess); }

  Pointer<T> pointer() { return PointerOf(data_, size_); }
  View view(int64_t rows, int64_t cols, int64_t stride) {
    return View(data_, DTypeOf<T>(), rows, cols, stride);
  }
  std::vector<T> values() { return std::vector<T>(data_, data_ + size_); }

 private:
  T* data_;
  int64_t size_;
};

class Emulation : public testing::Test {
 protected:
  void SetUp() override {
    (void)cudaGetLastError();  // of an earlier test
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, 0), cudaSuccess);
  }
  void TearDown() override {
    emulation::SetOrder(0);
    ASSERT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
  }

  // Runs the kernel; "" or its error.
  template <auto kernel, typename... Args>
  std::string Run(dim3 grid, dim3 block, size_t shared_bytes, const Args&... args) {
    EXPECT_TRUE((Launch<kernel>(grid, block, shared_bytes, stream_, args...).ok()));
    return std::string(StatusOf(cudaStreamSynchronize(stream_), "kernel").message());
  }

  cudaStream_t stream_ = nullptr;
};

__global__ void SumBlocks(Pointer<const float> x, int64_t n, Pointer<float> sums) {
  const Pointer<float> scratch = SharedArray<float>(0, kWarp);
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const float sum = BlockSum(i < n ? x[i] : 0.0f, scratch);
  const float max = BlockMax(i < n ? x[i] : 0.0f, scratch);
  if (threadIdx.x == 0) {
    sums[2 * blockIdx.x] = sum;
    sums[2 * blockIdx.x + 1] = max;
  }
}

TEST_F(Emulation, BlocksMeetAtBarriersInAnyOrderOfThreads) {
  std::vector<float> x(1000);
  std::iota(x.begin(), x.end(), 1.0f);
  Memory<float> in(x), out(4, 2);
  for (const uint32_t order : {0u, 1u, 7u, 8u}) {
    emulation::SetOrder(order);
    EXPECT_EQ(Run<SumBlocks>(4, 256, kWarp * 4, in.pointer(), int64_t{1000}, out.pointer()), "");
    EXPECT_EQ(out.values(), (std::vector<float>{32896, 256, 98432, 512, 163968, 768, 205204, 1000}))
        << order;
  }
  EXPECT_GE(emulation::Launches("SumBlocks"), 4);
}

__global__ void Shuffles(Pointer<int32_t> out) {
  const int lane = Lane();
  out[lane] = Shuffle(lane, 5);
  out[32 + lane] = ShuffleXor(lane, 3);
  out[64 + lane] = ShuffleUp(lane, 2);
  out[96 + lane] = ShuffleDown(lane, 2);
  out[128 + lane] = static_cast<int32_t>(Ballot(lane % 2 == 0));
}

TEST_F(Emulation, ShufflesReadOtherLanes) {
  Memory<int32_t> out(5, 32);
  EXPECT_EQ(Run<Shuffles>(1, 32, 0, out.pointer()), "");
  const std::vector<int32_t> v = out.values();
  for (int lane = 0; lane < 32; ++lane) {
    const auto at = static_cast<size_t>(lane);
    EXPECT_EQ(v[at], 5);
    EXPECT_EQ(v[32 + at], lane ^ 3);
    EXPECT_EQ(v[64 + at], lane < 2 ? lane : lane - 2);
    EXPECT_EQ(v[96 + at], lane < 30 ? lane + 2 : lane);
    EXPECT_EQ(v[128 + at], 0x55555555);
  }
}

__global__ void TouchAt(Matrix<float> m, int64_t r, int64_t c) { m(r, c) = 1; }
__global__ void TouchRaw(Pointer<float> p, int64_t i) { p[i] = 1; }
__global__ void TouchShared(int64_t i) { SharedArray<float>(0, 8)[i] = 1; }
__global__ void TouchFour(Pointer<const float> p, Pointer<float> out) { Store4(out, Load4(p)); }

TEST_F(Emulation, AnAccessOutsideOfAViewIsFound) {
  Memory<float> memory(4, 10);
  const Matrix<float> m = Output<float>(memory.view(4, 8, 10));
  EXPECT_EQ(Run<TouchAt>(1, 32, 0, m, int64_t{3}, int64_t{7}), "");
  EXPECT_THAT(Run<TouchAt>(1, 32, 0, m, int64_t{3}, int64_t{8}),
              HasSubstr("kernel TouchAt, block (0, 0, 0), thread (0, 0, 0): element 8 of 8"));
  EXPECT_THAT(Run<TouchAt>(1, 32, 0, m, int64_t{4}, int64_t{0}), HasSubstr("row 4 of 4"));
  EXPECT_THAT(Run<TouchAt>(1, 32, 0, m, int64_t{0}, int64_t{-1}), HasSubstr("element -1 of 8"));
  EXPECT_THAT(Run<TouchRaw>(1, 32, 0, memory.pointer(), int64_t{40}),
              HasSubstr("element 40 of 40"));
  EXPECT_THAT(Run<TouchRaw>(1, 32, 0, memory.pointer() - 1, int64_t{0}), HasSubstr("element -1"));
  EXPECT_THAT(Run<TouchShared>(1, 32, 32, int64_t{8}), HasSubstr("element 8 of 8"));
  EXPECT_THAT(Run<TouchShared>(1, 32, 28, int64_t{0}), HasSubstr("of 28 bytes"));
  EXPECT_THAT(Run<TouchFour>(1, 32, 0, memory.pointer() + 1, memory.pointer()),
              HasSubstr("misaligned"));
  EXPECT_THAT(Run<TouchFour>(1, 32, 0, memory.pointer() + 37, memory.pointer()),
              HasSubstr("element 37 of 40"));
}

TEST_F(Emulation, HostMemoryIsNotTheDevices) {
  float host[4] = {};
  EXPECT_THAT(Run<TouchRaw>(1, 32, 0, PointerOf(host, 4), int64_t{0}), HasSubstr("element 0 of 0"));
  EXPECT_EQ(cudaMemcpyAsync(host, host, 16, cudaMemcpyHostToDevice, stream_),
            cudaErrorInvalidValue);
}

__global__ void HalfReachesTheBarrier() {
  if (threadIdx.x < 32) SyncThreads();
}
__global__ void OneLaneIsMissing() {
  if (Lane() != 3) SyncWarp();
}
__global__ void LanesDisagree() {
  if (Lane() < 16) {
    SyncWarp();
  } else {
    Ballot(true);
  }
}

TEST_F(Emulation, BarriersThatNotAllReachAreFound) {
  EXPECT_THAT(Run<HalfReachesTheBarrier>(1, 64, 0),
              HasSubstr("of 64 threads 32 are at a barrier of the block, 0 at a collective"));
  EXPECT_THAT(Run<OneLaneIsMissing>(1, 32, 0), HasSubstr("31 at a collective of their warp"));
  EXPECT_THAT(Run<LanesDisagree>(1, 32, 0), HasSubstr("different collectives"));
  EXPECT_THAT(Run<TouchShared>(1, 33, 32, int64_t{0}), HasSubstr("33 threads"));
  EXPECT_THAT(Run<TouchShared>(1, 32, 200 << 10, int64_t{0}), HasSubstr("shared memory"));
}

// Copies two groups of 16 bytes a thread, and reads the first when all but one have arrived.
__global__ void Copies(Pointer<const float> in, Pointer<float> out, bool wait) {
  const Pointer<float> shared = SharedArray<float>(0, 256);
  const int at = 4 * static_cast<int>(threadIdx.x);
  CpAsync16(shared + at, in + at);
  CpAsyncCommit();
  CpAsync16OrZero(shared + 128 + at, in + at, threadIdx.x % 2 == 0);
  CpAsyncCommit();
  if (wait) CpAsyncWait<1>();
  Store4(out + at, Load4(shared + at));
  if (wait) CpAsyncWait<0>();
  Store4(out + 128 + at, Load4(shared + 128 + at));
}

TEST_F(Emulation, AsynchronousCopiesArriveWhenTheyAreWaitedFor) {
  std::vector<float> x(128);
  std::iota(x.begin(), x.end(), 1.0f);
  Memory<float> in(x), out(2, 128);
  EXPECT_EQ(Run<Copies>(1, 32, 1024, in.pointer(), out.pointer(), true), "");
  const std::vector<float> got = out.values();
  for (size_t i = 0; i < 128; ++i) {
    EXPECT_EQ(got[i], x[i]);
    EXPECT_EQ(got[128 + i], i / 4 % 2 == 0 ? x[i] : 0.0f);
  }
  EXPECT_THAT(Run<Copies>(1, 32, 1024, in.pointer(), out.pointer(), false),
              HasSubstr("never waited for"));
  EXPECT_TRUE(std::isnan(out.values()[0])) << "read before it arrived";
}

// d_16x8 = a_16xK b_Kx8 with the fragments of launch.h; K is 16 in bf16, 8 in tf32.
__global__ void MmaBf16Once(Pointer<const float> a, Pointer<const float> b, Pointer<float> d) {
  const int g = Lane() / 4, c = Lane() % 4;
  uint32_t fa[4], fb[2];
  float fd[4] = {};
  for (int i = 0; i < 4; ++i) {
    const int at = (g + i % 2 * 8) * 16 + 2 * c + i / 2 * 8;
    fa[i] = Pack(a[at], a[at + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    const int k = 2 * c + i * 8;
    fb[i] = Pack(b[k * 8 + g], b[(k + 1) * 8 + g]);
  }
  MmaBf16(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * c + i % 2] = fd[i];
}
__global__ void MmaTf32Once(Pointer<const float> a, Pointer<const float> b, Pointer<float> d) {
  const int g = Lane() / 4, c = Lane() % 4;
  uint32_t fa[4], fb[2];
  float fd[4] = {};
  for (int i = 0; i < 4; ++i) fa[i] = ToTf32(a[(g + i % 2 * 8) * 8 + c + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) fb[i] = ToTf32(b[(c + i * 4) * 8 + g]);
  MmaTf32(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * c + i % 2] = fd[i];
}

TEST_F(Emulation, MatrixUnitsMultiply) {
  for (const int k : {16, 8}) {
    std::vector<float> a(static_cast<size_t>(16 * k)), b(static_cast<size_t>(k * 8)), want(128);
    // Small integers are exact in both types.
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 7 % 23) - 11;
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 5 % 19) - 9;
    for (size_t r = 0; r < 16; ++r) {
      for (size_t c = 0; c < 8; ++c) {
        for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
          want[r * 8 + c] += a[r * static_cast<size_t>(k) + i] * b[i * 8 + c];
        }
      }
    }
    Memory<float> a_memory(a), b_memory(b), d(16, 8);
    if (k == 16) {
      EXPECT_EQ(Run<MmaBf16Once>(1, 32, 0, a_memory.pointer(), b_memory.pointer(), d.pointer()),
                "");
    } else {
      EXPECT_EQ(Run<MmaTf32Once>(1, 32, 0, a_memory.pointer(), b_memory.pointer(), d.pointer()),
                "");
    }
    EXPECT_EQ(d.values(), want) << "k " << k;
  }
  EXPECT_EQ(ToTf32(1.0f + 0x1p-11f), std::bit_cast<uint32_t>(1.0f + 0x1p-10f)) << "ties away";
  EXPECT_EQ(Pack(1.0f, -2.0f), 0xc0003f80u);
}

// Four 8x8 matrices of numbers m * 64 + row * 8 + col.
__global__ void LoadFour(Pointer<int32_t> out) {
  const Pointer<BF16> shared = SharedArray<BF16>(0, 256);
  for (int i = Lane(); i < 256; i += 32) shared[i].bits = static_cast<uint16_t>(i);
  SyncWarp();
  uint32_t r[4], t[4];
  LoadMatrix4(r, shared + 8 * Lane());
  LoadMatrix4Transposed(t, shared + 8 * Lane());
  for (int m = 0; m < 4; ++m) {
    out[Lane() * 8 + m] = static_cast<int32_t>(r[m]);
    out[Lane() * 8 + 4 + m] = static_cast<int32_t>(t[m]);
  }
}

TEST_F(Emulation, MatricesAreLoadedAsFragments) {
  Memory<int32_t> out(32, 8);
  EXPECT_EQ(Run<LoadFour>(1, 32, 512, out.pointer()), "");
  const std::vector<int32_t> v = out.values();
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      const int g = lane / 4, c = lane % 4, at = m * 64;
      const auto i = static_cast<size_t>(lane * 8 + m);
      EXPECT_EQ(v[i], (at + g * 8 + 2 * c) | (at + g * 8 + 2 * c + 1) << 16);
      EXPECT_EQ(v[i + 4], (at + 2 * c * 8 + g) | (at + (2 * c + 1) * 8 + g) << 16);
    }
  }
}

TEST_F(Emulation, WorkOnAStreamWaitsUntilSomebodyWaitsForIt) {
  Memory<float> memory(1, 8);
  cudaStream_t other = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, 0), cudaSuccess);
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  ASSERT_TRUE(Launch<TouchRaw>(1, 32, 0, stream_, memory.pointer(), int64_t{0}).ok());
  EXPECT_EQ(memory.values()[0], 0) << "nobody has waited yet";
  ASSERT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  ASSERT_TRUE(Launch<TouchRaw>(1, 32, 0, stream_, memory.pointer(), int64_t{1}).ok());
  ASSERT_EQ(cudaStreamWaitEvent(other, event, 0), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(other), cudaSuccess);
  EXPECT_EQ(memory.values()[0], 1) << "before the event";
  EXPECT_EQ(memory.values()[1], 0) << "after the event";
  ASSERT_EQ(cudaEventDestroy(event), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

}  // namespace
}  // namespace tundra::cuda
