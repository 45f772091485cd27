// What happens to gradients after a backward pass: maxima, exact sums, norm, AdamW.
// Scalar loops: they run over adapters, which are small; a compiler that may not fuse or
// reorder (-ffp-contract=off) gives them the same bits on every machine.
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/parallel.h"
#include "worker/ops/quantise.h"

namespace tundra {
namespace {

// each(begin, end) over the elements [begin, end) of every row, on several threads.
template <typename Each>
void ForElements(int threads, int64_t rows, int64_t cols, const Each& each) {
  if (rows == 1) {
    ParallelRanges(threads, cols, kElementGrain,
                   [&](int64_t begin, int64_t end) { each(0, begin, end); });
    return;
  }
  ParallelRanges(threads, rows, GrainOf(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) each(r, int64_t{0}, cols);
  });
}

uint32_t AbsBits(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffffu; }

// The blocks of SquaredNorm.
constexpr int64_t kNormBlock = 4096;
constexpr int kNormLanes = 8;

double BlockSquares(const float* x, int64_t n) {
  double lanes[kNormLanes] = {};
  int64_t i = 0;
  for (; i + kNormLanes <= n; i += kNormLanes) {
    for (int lane = 0; lane < kNormLanes; ++lane) {
      lanes[lane] += static_cast<double>(x[i + lane]) * x[i + lane];
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes[lane] += static_cast<double>(x[i]) * x[i];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

// The largest of non-negative floats is the largest of their bits, and NaN is above all: an
// integer maximum, which no order of threads can change.
absl::Status CpuOps::AbsMax(Ctx, ConstView x, Write write, View largest) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  RETURN_IF_ERROR(CheckVector("largest", largest, DType::kF32, 1));
  std::atomic<uint32_t> bits = 0;
  if (write == Write::kAdd) bits = AbsBits(*largest.row<float>(0));
  ForElements(threads(), x.rows, x.cols, [&](int64_t r, int64_t begin, int64_t end) {
    const float* row = x.row<float>(r);
    uint32_t most = 0;
    for (int64_t i = begin; i < end; ++i) most = std::max(most, AbsBits(row[i]));
    uint32_t seen = bits.load(std::memory_order_relaxed);
    while (seen < most && !bits.compare_exchange_weak(seen, most, std::memory_order_relaxed)) {
    }
  });
  *largest.row<float>(0) = bits > 0x7f800000u ? std::numeric_limits<float>::quiet_NaN()
                                              : std::bit_cast<float>(bits.load());
  return absl::OkStatus();
}

absl::Status CpuOps::CountNonFinite(Ctx, ConstView x, View count) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  RETURN_IF_ERROR(CheckVector("count", count, DType::kI64, 1));
  std::atomic<int64_t> found = 0;
  ForElements(threads(), x.rows, x.cols, [&](int64_t r, int64_t begin, int64_t end) {
    const float* row = x.row<float>(r);
    int64_t here = 0;
    for (int64_t i = begin; i < end; ++i) here += AbsBits(row[i]) >= 0x7f800000u ? 1 : 0;
    if (here > 0) found.fetch_add(here, std::memory_order_relaxed);
  });
  *count.row<int64_t>(0) = found;
  return absl::OkStatus();
}

absl::Status CpuOps::QuantiseAccumulate(Ctx, ConstView grad, double scale, View sum) {
  RETURN_IF_ERROR(CheckView("grad", grad, DType::kF32, grad.rows, grad.cols));
  RETURN_IF_ERROR(CheckView("sum", sum, DType::kI64, grad.rows, grad.cols));
  ForElements(threads(), grad.rows, grad.cols, [&](int64_t r, int64_t begin, int64_t end) {
    const float* g = grad.row<float>(r);
    int64_t* s = sum.row<int64_t>(r);
    for (int64_t i = begin; i < end; ++i) {
      s[i] = static_cast<int64_t>(static_cast<uint64_t>(s[i]) +
                                  static_cast<uint64_t>(Quantize(g[i], scale)));
    }
  });
  return absl::OkStatus();
}

absl::Status CpuOps::Dequantise(Ctx, ConstView sum, double scale, double divisor, View grad) {
  RETURN_IF_ERROR(CheckView("sum", sum, DType::kI64, grad.rows, grad.cols));
  RETURN_IF_ERROR(CheckView("grad", grad, DType::kF32, grad.rows, grad.cols));
  if (!(divisor > 0) || !(scale > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("scale ", scale, " and divisor ", divisor, " must be positive"));
  }
  ForElements(threads(), grad.rows, grad.cols, [&](int64_t r, int64_t begin, int64_t end) {
    const int64_t* s = sum.row<int64_t>(r);
    float* g = grad.row<float>(r);
    for (int64_t i = begin; i < end; ++i) {
      g[i] = static_cast<float>(static_cast<double>(s[i]) / scale / divisor);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuOps::SquaredNorm(Ctx ctx, ConstView x, View norm2) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  RETURN_IF_ERROR(CheckVector("norm2", norm2, DType::kF64, 1));
  if (!x.contiguous()) return absl::InvalidArgumentError("x must be contiguous");
  const int64_t n = x.size();
  const int64_t blocks = (n + kNormBlock - 1) / kNormBlock;
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const View sums, ctx.scratch->Allocate(DType::kF64, 1, blocks));
  double* sum = sums.row<double>(0);
  const float* values = x.row<float>(0);
  ParallelRanges(threads(), blocks, kElementGrain / kNormBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      sum[b] = BlockSquares(values + b * kNormBlock, std::min(kNormBlock, n - b * kNormBlock));
    }
  });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += sum[b];
  *norm2.row<double>(0) = total;
  return absl::OkStatus();
}

absl::Status CpuOps::AdamW(Ctx, const AdamWParams& params, ConstView grad, View weight,
                           View moment1, View moment2) {
  const int64_t rows = grad.rows, cols = grad.cols;
  RETURN_IF_ERROR(CheckView("grad", grad, DType::kF32, rows, cols));
  RETURN_IF_ERROR(CheckView("weight", weight, DType::kF32, rows, cols));
  RETURN_IF_ERROR(CheckView("moment1", moment1, DType::kF32, rows, cols));
  RETURN_IF_ERROR(CheckView("moment2", moment2, DType::kF32, rows, cols));
  if (params.step < 1) return absl::InvalidArgumentError("AdamW's step counts from 1");
  const auto t = static_cast<double>(params.step);
  const auto decay = static_cast<float>(1 - params.learning_rate * params.weight_decay);
  const auto take1 = static_cast<float>(1 - params.beta1);
  const auto keep2 = static_cast<float>(params.beta2);
  const auto take2 = static_cast<float>(1 - params.beta2);
  const auto rate = static_cast<float>(params.learning_rate / (1 - std::pow(params.beta1, t)));
  const auto root = static_cast<float>(std::sqrt(1 - std::pow(params.beta2, t)));
  const auto epsilon = static_cast<float>(params.epsilon);
  ForElements(threads(), rows, cols, [&](int64_t r, int64_t begin, int64_t end) {
    const float* g = grad.row<float>(r);
    float* w = weight.row<float>(r);
    float* m = moment1.row<float>(r);
    float* v = moment2.row<float>(r);
    for (int64_t i = begin; i < end; ++i) {
      m[i] = m[i] + take1 * (g[i] - m[i]);
      v[i] = keep2 * v[i] + take2 * g[i] * g[i];
      w[i] = w[i] * decay - rate * m[i] / (std::sqrt(v[i]) / root + epsilon);
    }
  });
  return absl::OkStatus();
}

}  // namespace tundra
