// The primitives of launch.h as nvcc compiles them. Included by launch.h only.
#pragma once

#include "worker/cuda/runtime.h"

#define TUNDRA_DEVICE __device__ __forceinline__
#define TUNDRA_BOTH __host__ __device__ __forceinline__
#define TUNDRA_UNROLL _Pragma("unroll")
#define TUNDRA_PRAGMA(text) _Pragma(#text)
#define TUNDRA_UNROLL_BY(n) TUNDRA_PRAGMA(unroll(n))

namespace tundra::cuda {

// A plain pointer; see launch.h.
template <typename T>
struct Pointer {
  T* p = nullptr;

  Pointer() = default;
  TUNDRA_BOTH explicit Pointer(T* pointer) : p(pointer) {}
  template <typename U>
  requires(std::is_same_v<const U, T>) TUNDRA_BOTH Pointer(const Pointer<U>& other) : p(other.p) {}

  TUNDRA_DEVICE T& operator[](int64_t i) const { return p[i]; }
  TUNDRA_DEVICE Pointer operator+(int64_t n) const { return Pointer(p + n); }
  TUNDRA_DEVICE Pointer operator-(int64_t n) const { return Pointer(p - n); }
  TUNDRA_BOTH T* get() const { return p; }
};

template <typename T>
Pointer<T> PointerOf(T* data, int64_t /*count*/) {
  return Pointer<T>(data);
}

template <typename T>
TUNDRA_DEVICE Pointer<T> RowOf(const Pointer<T>& data, int64_t r, int64_t /*rows*/,
                               int64_t /*cols*/, int64_t stride) {
  return Pointer<T>(data.p + r * stride);
}

template <typename T>
TUNDRA_DEVICE Pointer<T> SharedArray(size_t offset_bytes, int64_t /*count*/) {
  extern __shared__ __align__(128) unsigned char tundra_shared_memory[];
  return Pointer<T>(reinterpret_cast<T*>(tundra_shared_memory + offset_bytes));
}

template <typename T>
TUNDRA_DEVICE Float4 Load4(const Pointer<T>& p) {
  return *reinterpret_cast<const Float4*>(p.p);
}
TUNDRA_DEVICE void Store4(const Pointer<float>& p, const Float4& v) {
  *reinterpret_cast<Float4*>(p.p) = v;
}

TUNDRA_DEVICE int Lane() { return static_cast<int>(threadIdx.x) & (kWarp - 1); }
TUNDRA_DEVICE int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }
TUNDRA_DEVICE void SyncThreads() { __syncthreads(); }
TUNDRA_DEVICE void SyncWarp() { __syncwarp(); }

template <typename T>
TUNDRA_DEVICE T Shuffle(T v, int lane) {
  return __shfl_sync(0xffffffffu, v, lane);
}
template <typename T>
TUNDRA_DEVICE T ShuffleXor(T v, int mask) {
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
template <typename T>
TUNDRA_DEVICE T ShuffleUp(T v, int n) {
  return __shfl_up_sync(0xffffffffu, v, static_cast<unsigned>(n));
}
template <typename T>
TUNDRA_DEVICE T ShuffleDown(T v, int n) {
  return __shfl_down_sync(0xffffffffu, v, static_cast<unsigned>(n));
}
TUNDRA_DEVICE uint32_t Ballot(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }

TUNDRA_DEVICE int CountBits(uint32_t bits) { return __popc(bits); }

TUNDRA_DEVICE void AtomicMax(const Pointer<uint32_t>& p, uint32_t v) { atomicMax(p.p, v); }
TUNDRA_DEVICE void AtomicAdd(const Pointer<uint64_t>& p, uint64_t v) {
  atomicAdd(reinterpret_cast<unsigned long long*>(p.p), static_cast<unsigned long long>(v));
}

template <typename T>
TUNDRA_DEVICE uint32_t SharedAddress(const Pointer<T>& p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p.p));
}

template <typename T, typename U>
TUNDRA_DEVICE void CpAsync16OrZero(const Pointer<T>& shared, const Pointer<U>& global, bool valid) {
  // Bytes beyond the source's size are written as zeros; of size 0 nothing is read.
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(SharedAddress(shared)),
               "l"(global.p), "r"(valid ? 16 : 0)
               : "memory");
}
template <typename T, typename U>
TUNDRA_DEVICE void CpAsync16(const Pointer<T>& shared, const Pointer<U>& global) {
  CpAsync16OrZero(shared, global, true);
}
TUNDRA_DEVICE void CpAsyncCommit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int n>
TUNDRA_DEVICE void CpAsyncWait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(n) : "memory");
}

TUNDRA_DEVICE uint32_t Pack(float lo, float hi) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(hi), "f"(lo));
  return packed;
}
TUNDRA_DEVICE float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}
TUNDRA_DEVICE uint32_t ToTf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(x));
  return bits;
}

TUNDRA_DEVICE void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
TUNDRA_DEVICE void MmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <typename T>
TUNDRA_DEVICE void LoadMatrix4(uint32_t (&r)[4], const Pointer<T>& row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
template <typename T>
TUNDRA_DEVICE void LoadMatrix4Transposed(uint32_t (&r)[4], const Pointer<T>& row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// Puts the kernel on the stream. Nothing is launched for an empty grid. Arguments are
// converted to the kernel's parameters. Errors: kInternal when the launch is refused;
// those of the kernel itself come out of Synchronize.
template <auto kernel, typename... Args>
absl::Status Launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                    const Args&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return absl::OkStatus();
  constexpr size_t kWithoutAsking = 48 << 10;  // above it the kernel must be told
  if (shared_bytes > kWithoutAsking) {
    absl::Status status =
        StatusOf(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared_bytes)),
                 "shared memory of a kernel");
    if (!status.ok()) return status;
  }
  // What calls that don't go through StatusOf left is not this launch's: a polled event that is
  // not ready yet, for example. (An error of the device itself stays.)
  (void)cudaGetLastError();
  kernel<<<grid, block, shared_bytes, stream>>>(args...);
  return StatusOf(cudaGetLastError(), "launching a kernel");
}

}  // namespace tundra::cuda
