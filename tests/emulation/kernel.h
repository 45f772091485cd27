// The primitives of worker/cuda/launch.h for kernels that run on the CPU. Included by
// launch.h only, when TUNDRA_CUDA_EMULATION is defined.
#pragma once

#include <bit>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/emulation/block.h"
#include "tests/emulation/matrix_units.h"
#include "worker/cuda/runtime.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define TUNDRA_DEVICE inline
#define TUNDRA_BOTH inline
#define TUNDRA_UNROLL
#define TUNDRA_UNROLL_BY(n)

namespace tundra::cuda {

// A pointer that knows the elements around it: [first, last).
template <typename T>
struct Pointer {
  T* p = nullptr;
  T* first = nullptr;
  T* last = nullptr;

  Pointer() = default;
  Pointer(T* pointer, T* begin, T* end) : p(pointer), first(begin), last(end) {}
  template <typename U>
  requires(std::is_same_v<const U, T>) Pointer(const Pointer<U>& other)
      : p(other.p), first(other.first), last(other.last) {}

  T& operator[](int64_t i) const { return *Checked(i, 1); }
  Pointer operator+(int64_t n) const { return Pointer(p + n, first, last); }
  Pointer operator-(int64_t n) const { return Pointer(p - n, first, last); }
  T* get() const { return p; }

  // p + i, from where `count` elements may be touched.
  T* Checked(int64_t i, int64_t count) const {
    T* at = p + i;
    if (at < first || at + count > last) {
      emulation::Fail(absl::StrCat("element ", at - first, " of ", last - first, " elements of ",
                                   sizeof(T), " bytes is touched"));
    }
    return at;
  }
};

// Host code: the memory must be the device's.
template <typename T>
Pointer<T> PointerOf(T* data, int64_t count) {
  if (count > 0 && !emulation::IsDeviceMemory(data, static_cast<size_t>(count) * sizeof(T))) {
    // Found at the first access, in the kernel, where it can be said of which kernel.
    count = 0;
  }
  return Pointer<T>(data, data, data + count);
}

template <typename T>
Pointer<T> RowOf(const Pointer<T>& data, int64_t r, int64_t rows, int64_t cols, int64_t stride) {
  if (r < 0 || r >= rows) emulation::Fail(absl::StrCat("row ", r, " of ", rows, " is touched"));
  T* begin = data.p + r * stride;
  T* end = begin + cols;
  return Pointer<T>(begin, begin, end <= data.last ? end : begin);
}

template <typename T>
Pointer<T> SharedArray(size_t offset_bytes, int64_t count) {
  if (offset_bytes + static_cast<size_t>(count) * sizeof(T) > emulation::SharedBytes() ||
      offset_bytes % alignof(T) != 0) {
    emulation::Fail(absl::StrCat("shared memory [", offset_bytes, ", +", count, " x ", sizeof(T),
                                 ") of ", emulation::SharedBytes(), " bytes"));
  }
  T* begin = reinterpret_cast<T*>(emulation::SharedMemory() + offset_bytes);
  return Pointer<T>(begin, begin, begin + count);
}

// The address of 16 bytes at p, at a 16-byte boundary.
template <typename T>
T* SixteenBytes(const Pointer<T>& p) {
  T* at = p.Checked(0, static_cast<int64_t>(16 / sizeof(T)));
  if (reinterpret_cast<uintptr_t>(at) % 16 != 0) emulation::Fail("a misaligned access of 16 bytes");
  return at;
}

template <typename T>
Float4 Load4(const Pointer<T>& p) {
  Float4 v;
  std::memcpy(&v, SixteenBytes(p), 16);
  return v;
}
inline void Store4(const Pointer<float>& p, const Float4& v) {
  std::memcpy(SixteenBytes(p), &v, 16);
}

inline int Lane() { return static_cast<int>(threadIdx.x) & (kWarp - 1); }
inline int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }
inline void SyncThreads() { emulation::SyncBlock(); }
inline void SyncWarp() {
  emulation::MeetWarp([](void* const*) {}, nullptr);
}

template <typename T>
struct ShuffleArgs {
  T value;
  int from;  // a lane
  T result;
};

template <typename T>
T ShuffleFrom(T v, int lane) {
  ShuffleArgs<T> args{v, lane, v};
  emulation::MeetWarp(
      [](void* const* all) {
        for (int i = 0; i < kWarp; ++i) {
          auto* mine = static_cast<ShuffleArgs<T>*>(all[i]);
          mine->result = static_cast<ShuffleArgs<T>*>(all[mine->from])->value;
        }
      },
      &args);
  return args.result;
}

// As on a device: the lane is taken modulo 32, and a lane beyond the warp's ends is oneself.
template <typename T>
T Shuffle(T v, int lane) {
  return ShuffleFrom(v, lane & (kWarp - 1));
}
template <typename T>
T ShuffleXor(T v, int mask) {
  return ShuffleFrom(v, (Lane() ^ mask) & (kWarp - 1));
}
template <typename T>
T ShuffleUp(T v, int n) {
  return ShuffleFrom(v, Lane() >= n ? Lane() - n : Lane());
}
template <typename T>
T ShuffleDown(T v, int n) {
  return ShuffleFrom(v, Lane() + n < kWarp ? Lane() + n : Lane());
}

inline uint32_t Ballot(bool predicate) {
  struct Args {
    bool predicate;
    uint32_t result;
  } args{predicate, 0};
  emulation::MeetWarp(
      [](void* const* all) {
        uint32_t bits = 0;
        for (int i = 0; i < kWarp; ++i) {
          bits |= (static_cast<Args*>(all[i])->predicate ? 1u : 0u) << i;
        }
        for (int i = 0; i < kWarp; ++i) static_cast<Args*>(all[i])->result = bits;
      },
      &args);
  return args.result;
}

inline int CountBits(uint32_t bits) { return std::popcount(bits); }

inline void AtomicMax(const Pointer<uint32_t>& p, uint32_t v) { p[0] = v > p[0] ? v : p[0]; }
inline void AtomicAdd(const Pointer<uint64_t>& p, uint64_t v) { p[0] += v; }

template <typename T, typename U>
void CpAsync16OrZero(const Pointer<T>& shared, const Pointer<U>& global, bool valid) {
  emulation::AddAsyncCopy(SixteenBytes(shared), valid ? SixteenBytes(global) : nullptr);
}
template <typename T, typename U>
void CpAsync16(const Pointer<T>& shared, const Pointer<U>& global) {
  CpAsync16OrZero(shared, global, true);
}
inline void CpAsyncCommit() { emulation::CommitAsyncCopies(); }
template <int n>
void CpAsyncWait() {
  emulation::WaitAsyncCopies(n);
}

inline uint32_t Pack(float lo, float hi) {
  return static_cast<uint32_t>(ToBF16(hi).bits) << 16 | ToBF16(lo).bits;
}
inline float Exp2(float x) { return std::exp2(x); }
inline uint32_t ToTf32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & ~0x1fffu : bits;
}

struct MmaArgs {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};
inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaArgs args{d, a, b};
  emulation::MeetWarp(
      [](void* const* all) {
        emulation::MmaFragments f;
        for (int i = 0; i < kWarp; ++i) {
          const auto* lane = static_cast<MmaArgs*>(all[i]);
          f.d[i] = lane->d, f.a[i] = lane->a, f.b[i] = lane->b;
        }
        emulation::MultiplyBf16(f);
      },
      &args);
}
inline void MmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaArgs args{d, a, b};
  emulation::MeetWarp(
      [](void* const* all) {
        emulation::MmaFragments f;
        for (int i = 0; i < kWarp; ++i) {
          const auto* lane = static_cast<MmaArgs*>(all[i]);
          f.d[i] = lane->d, f.a[i] = lane->a, f.b[i] = lane->b;
        }
        emulation::MultiplyTf32(f);
      },
      &args);
}

struct LoadMatrixArgs {
  const uint16_t* row;
  uint32_t* registers;
};
template <typename T>
void LoadMatrix4(uint32_t (&r)[4], const Pointer<T>& row) {
  LoadMatrixArgs args{reinterpret_cast<const uint16_t*>(SixteenBytes(row)), r};
  emulation::MeetWarp(
      [](void* const* all) {
        for (int lane = 0; lane < kWarp; ++lane) {
          for (int m = 0; m < 4; ++m) {
            const auto* from = static_cast<LoadMatrixArgs*>(all[m * 8 + lane / 4]);
            std::memcpy(static_cast<LoadMatrixArgs*>(all[lane])->registers + m,
                        from->row + 2 * (lane % 4), 4);
          }
        }
      },
      &args);
}
template <typename T>
void LoadMatrix4Transposed(uint32_t (&r)[4], const Pointer<T>& row) {
  LoadMatrixArgs args{reinterpret_cast<const uint16_t*>(SixteenBytes(row)), r};
  emulation::MeetWarp(
      [](void* const* all) {
        for (int lane = 0; lane < kWarp; ++lane) {
          for (int m = 0; m < 4; ++m) {
            const int first = m * 8 + 2 * (lane % 4);
            const uint32_t lo = static_cast<LoadMatrixArgs*>(all[first])->row[lane / 4];
            const uint32_t hi = static_cast<LoadMatrixArgs*>(all[first + 1])->row[lane / 4];
            static_cast<LoadMatrixArgs*>(all[lane])->registers[m] = hi << 16 | lo;
          }
        }
      },
      &args);
}

// "Kernel<float>" of the text that the compiler has for a function with that argument.
inline std::string KernelName(const std::string& function) {
  const size_t begin = function.find("kernel = ") + 9;
  std::string name = function.substr(begin, function.find_first_of(";]", begin) - begin);
  const size_t arguments = name.find('<');
  const size_t scope = name.rfind("::", arguments);
  return scope == std::string::npos ? name : name.substr(scope + 2);
}
template <auto kernel>
std::string NameOfKernel() {
  return KernelName(__PRETTY_FUNCTION__);
}

template <typename... Parameters, typename... Args>
std::tuple<Parameters...> Converted(void (*)(Parameters...), const Args&... args) {
  return std::tuple<Parameters...>(args...);
}

template <auto kernel, typename... Args>
absl::Status Launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                    const Args&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return absl::OkStatus();
  static const std::string name = NameOfKernel<kernel>();
  emulation::CountLaunch(name);
  const emulation::Shape shape{grid, block, shared_bytes};
  emulation::Enqueue(stream, [shape, arguments = Converted(kernel, args...)] {
    return emulation::RunGrid(name, shape, [&] { std::apply(kernel, arguments); });
  });
  return StatusOf(cudaGetLastError(), "launching a kernel");
}

}  // namespace tundra::cuda
