// What stands in for cuBLASLt where kernels run on the CPU: sums in order of the inner
// dimension, in float.
#include "worker/cuda/products.h"

#include <vector>

#include "absl/strings/str_cat.h"

namespace tundra::cuda {
namespace {

// Row r of an operand as floats.
void Widen(const void* data, bool bf16, int64_t r, int64_t stride, int64_t cols, float* to) {
  if (!bf16) {
    const float* from = static_cast<const float*>(data) + r * stride;
    std::copy(from, from + cols, to);
    return;
  }
  const BF16* from = static_cast<const BF16*>(data) + r * stride;
  for (int64_t c = 0; c < cols; ++c) to[c] = ToFloat(from[c]);
}

void Multiply(const Product& p) {
  // W as [inner, cols].
  std::vector<float> weight(static_cast<size_t>(p.inner * p.cols));
  const bool forward = p.direction == Direction::kForward;
  std::vector<float> row(static_cast<size_t>(std::max(p.inner, p.cols)));
  for (int64_t r = 0; r < (forward ? p.cols : p.inner); ++r) {
    const int64_t length = forward ? p.inner : p.cols;
    Widen(p.weight, p.bf16, r, p.weight_stride, length, row.data());
    for (int64_t c = 0; c < length; ++c) {
      weight[static_cast<size_t>(forward ? c * p.cols + r : r * p.cols + c)] =
          row[static_cast<size_t>(c)];
    }
  }
  std::vector<float> sum(static_cast<size_t>(p.cols));
  for (int64_t t = 0; t < p.t; ++t) {
    Widen(p.in, p.bf16, t, p.in_stride, p.inner, row.data());
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t k = 0; k < p.inner; ++k) {
      const float x = row[static_cast<size_t>(k)];
      const float* w = weight.data() + k * p.cols;
      for (int64_t c = 0; c < p.cols; ++c) sum[static_cast<size_t>(c)] += x * w[c];
    }
    float* out = p.out + t * p.out_stride;
    for (int64_t c = 0; c < p.cols; ++c) {
      out[c] = p.accumulate ? out[c] + sum[static_cast<size_t>(c)] : sum[static_cast<size_t>(c)];
    }
  }
}

// Whether a matrix lies in device memory.
bool OnDevice(const void* data, int64_t rows, int64_t cols, int64_t stride, size_t element_bytes) {
  if (rows == 0 || cols == 0) return true;
  const int64_t elements = (rows - 1) * stride + cols;
  return emulation::IsDeviceMemory(data, static_cast<size_t>(elements) * element_bytes);
}

class LoopProducts final : public Products {
 public:
  absl::Status Run(cudaStream_t stream, const Product& p) override {
    const size_t bytes = p.bf16 ? sizeof(BF16) : sizeof(float);
    const bool forward = p.direction == Direction::kForward;
    if (!OnDevice(p.in, p.t, p.inner, p.in_stride, bytes) ||
        !OnDevice(p.weight, forward ? p.cols : p.inner, forward ? p.inner : p.cols, p.weight_stride,
                  bytes) ||
        !OnDevice(p.out, p.t, p.cols, p.out_stride, sizeof(float)) ||
        !emulation::IsDeviceMemory(p.workspace, kProductWorkspace)) {
      return absl::InternalError("an operand of a product is not in device memory");
    }
    emulation::Enqueue(stream, [p] {
      Multiply(p);
      return std::string();
    });
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Products>> CreateProducts() {
  return std::unique_ptr<Products>(std::make_unique<LoopProducts>());
}

std::string ProductsVersion() { return "emulated"; }

}  // namespace tundra::cuda
