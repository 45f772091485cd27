// oneDNN's matmul behind a cache of primitives. Making a primitive costs from tens of
// microseconds to milliseconds, running a small one a few, and a training run uses few shapes.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/ops/ops.h"

namespace tundra {

// Products out [T, cols] (=|+=) in [T, inner] · B [inner, cols], B a frozen weight in its
// row-major place or packed under an explicit tag (never `any`: a tag chosen by the library
// could differ between shapes, and with it bits). All strides explicit.
// Thread-safe. Every call runs on `threads` threads.
class OneDnnMatmul {
 public:
  explicit OneDnnMatmul(int threads);
  ~OneDnnMatmul();

  struct Call {
    bool bf16 = false;  // type of `in` and the weight; out is f32
    int64_t t = 0, inner = 0, cols = 0;
    const void* in = nullptr;
    int64_t in_stride = 0;
    const void* weight = nullptr;
    // Row-major weight w_NK: forward uses it transposed.
    Direction direction = Direction::kForward;
    bool packed = false;
    int64_t weight_stride = 0;
    bool accumulate = false;
    float* out = nullptr;
    int64_t out_stride = 0;
  };

  // kUnimplemented when this machine's oneDNN has no such product.
  absl::Status Run(const Call& call);

  // Bytes of the packed form of w_NK; 0 when there is none.
  size_t PackedBytes(int64_t n, int64_t k, Direction direction, bool bf16) const;
  // from: w_NK row-major of the same type.
  absl::Status Pack(ConstView from_NK, Direction direction, void* to);

 private:
  struct Cache;
  int threads_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace tundra
