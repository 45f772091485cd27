// Products of matrices through cuBLASLt, behind a thin wrapper: products_cublaslt.cc, and
// in tests a plain loop (tests/emulation/products.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/cuda/runtime.h"
#include "worker/ops/ops.h"

namespace tundra::cuda {

// out [t, cols] (=|+=) in [t, inner] · Wᵀ (kForward, W [cols, inner]) or · W (kBackward,
// W [inner, cols]). All row-major, strides in elements. in and W both bf16 or both f32, out
// f32, sums in fp32.
struct Product {
  bool bf16 = false;
  Direction direction = Direction::kForward;
  bool accumulate = false;
  int64_t t = 0, inner = 0, cols = 0;
  const void* in = nullptr;
  int64_t in_stride = 0;
  const void* weight = nullptr;
  int64_t weight_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  void* workspace = nullptr;  // kProductWorkspace bytes of device memory
};

// Fixed, because what a library does with less may have other bits.
inline constexpr size_t kProductWorkspace = size_t{32} << 20;

// Thread-safe.
class Products {
 public:
  virtual ~Products() = default;
  // Bits depend on the operands and (inner, cols, direction, types, alignment to 16 bytes)
  // only, not on t. Errors: kInternal when the library fails, kFailedPrecondition when it can't
  // do this t with the algorithm of the shape.
  virtual absl::Status Run(cudaStream_t stream, const Product& product) = 0;
};

absl::StatusOr<std::unique_ptr<Products>> CreateProducts();

// For the numerics class: "cublaslt-130001".
std::string ProductsVersion();

}  // namespace tundra::cuda
