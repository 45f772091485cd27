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
#include "worker/ops/gradient_checks.h"
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

constexpr int kNormLanes = 8;  // of a block's sum

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

absl::Status CheckOffsets(const Tensors& tensors, int64_t elements) {
  const int64_t* offsets = tensors.offsets.row<int64_t>(0);
  for (int s = 0; s < tensors.count; ++s) {
    if (offsets[s + 1] < offsets[s] || offsets[s + 1] - offsets[0] > elements) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", s, " lies at [", offsets[s], ", ",
                                                     offsets[s + 1], ") of ", elements));
    }
  }
  return absl::OkStatus();
}

struct Span {
  int64_t begin, size;
};
Span SpanOf(const Tensors& tensors, int s) {
  const int64_t* offsets = tensors.offsets.row<int64_t>(0);
  return {offsets[s] - offsets[0], offsets[s + 1] - offsets[s]};
}

// The largest of non-negative floats is the largest of their bits, and NaN is above all: an
// integer maximum, which no order of threads can change.
void AddGradient(int threads, const float* grad, int64_t n, double scale, float* largest,
                 int64_t* sum) {
  std::atomic<uint32_t> bits = AbsBits(*largest);
  ParallelRanges(threads, n, kElementGrain, [&](int64_t begin, int64_t end) {
    uint32_t most = 0;
    for (int64_t i = begin; i < end; ++i) most = std::max(most, AbsBits(grad[i]));
    for (int64_t i = begin; i < end && scale > 0; ++i) {
      sum[i] = static_cast<int64_t>(static_cast<uint64_t>(sum[i]) +
                                    static_cast<uint64_t>(Quantize(grad[i], scale)));
    }
    uint32_t seen = bits.load(std::memory_order_relaxed);
    while (seen < most && !bits.compare_exchange_weak(seen, most, std::memory_order_relaxed)) {
    }
  });
  *largest = bits > 0x7f800000u ? std::numeric_limits<float>::quiet_NaN()
                                : std::bit_cast<float>(bits.load());
}

// Returns the squared norm. `blocks` has room for the sums of all blocks.
double MeanGradient(int threads, const int64_t* sum, int64_t n, double scale, double divisor,
                    float* grad, double* blocks) {
  const int64_t count = (n + kNormBlock - 1) / kNormBlock;
  ParallelRanges(threads, count, kElementGrain / kNormBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kNormBlock, last = std::min(first + kNormBlock, n);
      for (int64_t i = first; i < last; ++i) {
        grad[i] = scale > 0 ? static_cast<float>(static_cast<double>(sum[i]) / scale / divisor) : 0;
      }
      blocks[b] = BlockSquares(grad + first, last - first);
    }
  });
  double total = 0;
  for (int64_t b = 0; b < count; ++b) total += blocks[b];
  return total;
}

}  // namespace

absl::Status CpuOps::AddGradients(Ctx, const Tensors& tensors, ConstView grad, ConstView scales_S,
                                  View largest_S, View sum) {
  RETURN_IF_ERROR(CheckTensors(tensors, grad, scales_S, sum));
  RETURN_IF_ERROR(CheckVector("largest_S", largest_S, DType::kF32, tensors.count));
  RETURN_IF_ERROR(CheckOffsets(tensors, grad.cols));
  for (int s = 0; s < tensors.count; ++s) {
    const Span part = SpanOf(tensors, s);
    AddGradient(threads(), grad.row<float>(0) + part.begin, part.size, scales_S.row<double>(0)[s],
                largest_S.row<float>(0) + s, sum.row<int64_t>(0) + part.begin);
  }
  return absl::OkStatus();
}

absl::Status CpuOps::MeanGradients(Ctx ctx, const Tensors& tensors, ConstView sum,
                                   ConstView scales_S, double divisor, View grad, View norm2_S) {
  RETURN_IF_ERROR(CheckTensors(tensors, grad, scales_S, sum));
  RETURN_IF_ERROR(CheckVector("norm2_S", norm2_S, DType::kF64, tensors.count));
  RETURN_IF_ERROR(CheckDivisor(divisor));
  RETURN_IF_ERROR(CheckOffsets(tensors, grad.cols));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const View blocks,
                   ctx.scratch->Allocate(DType::kF64, 1, NormSlots(grad.cols, tensors.count)));
  for (int s = 0; s < tensors.count; ++s) {
    const Span part = SpanOf(tensors, s);
    norm2_S.row<double>(0)[s] = MeanGradient(
        threads(), sum.row<int64_t>(0) + part.begin, part.size, scales_S.row<double>(0)[s], divisor,
        grad.row<float>(0) + part.begin, blocks.row<double>(0));
  }
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
