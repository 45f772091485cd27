// What happens to gradients after a backward pass: maxima, exact sums, norm, AdamW. Each
// formula is that of gradient_cpu.cc, operation by operation, unfused.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "worker/cuda/kernels.h"
#include "worker/ops/quantise.h"

namespace tundra::cuda {
namespace {

constexpr uint32_t kAbs = 0x7fffffffu;       // all of a float's bits but its sign
constexpr uint32_t kInfinity = 0x7f800000u;  // above it is NaN

// Before AbsMaxKernel: 0, or |largest|.
__global__ void StartMaxKernel(Pointer<uint32_t> largest, bool keep) {
  if (threadIdx.x == 0) largest[0] = keep ? largest[0] & kAbs : 0u;
}

// The largest of non-negative floats is the largest of their bits, NaN above all: an integer
// maximum, which no order of blocks can change.
__global__ void AbsMaxKernel(Matrix<const uint32_t> x, Pointer<uint32_t> largest) {
  const Pointer<uint32_t> scratch = SharedArray<uint32_t>(0, kWarp);
  uint32_t most = 0;
  ForEach(x.rows, x.cols, [&](int64_t r, int64_t c) {
    const uint32_t bits = x(r, c) & kAbs;
    most = bits > most ? bits : most;
  });
  most = BlockMax(most, scratch);
  if (threadIdx.x == 0) AtomicMax(largest, most);
}

__global__ void CountNonFiniteKernel(Matrix<const uint32_t> x, Pointer<uint64_t> count) {
  const Pointer<uint32_t> scratch = SharedArray<uint32_t>(0, kWarp);
  uint32_t found = 0;
  ForEach(x.rows, x.cols,
          [&](int64_t r, int64_t c) { found += (x(r, c) & kAbs) >= kInfinity ? 1u : 0u; });
  found = BlockSum(found, scratch);
  if (threadIdx.x == 0 && found > 0) AtomicAdd(count, found);
}

__global__ void QuantiseAccumulateKernel(Matrix<const float> grad, double scale,
                                         Matrix<int64_t> sum) {
  ForEach(grad.rows, grad.cols, [&](int64_t r, int64_t c) {
    sum(r, c) = static_cast<int64_t>(static_cast<uint64_t>(sum(r, c)) +
                                     static_cast<uint64_t>(Quantize(grad(r, c), scale)));
  });
}

__global__ void DequantiseKernel(Matrix<const int64_t> sum, double scale, double divisor,
                                 Matrix<float> grad) {
  ForEach(grad.rows, grad.cols, [&](int64_t r, int64_t c) {
    grad(r, c) = static_cast<float>(static_cast<double>(sum(r, c)) / scale / divisor);
  });
}

// The blocks of SquaredNorm, and the sums that one of them has.
constexpr int64_t kNormBlock = 4096;
constexpr int kNormLanes = 8;
constexpr int kNormThreads = 128;

// One thread adds one lane of one block; eight neighbours add up their lanes.
__global__ void BlockSquaresKernel(Pointer<const float> x, int64_t n, int64_t blocks,
                                   Pointer<double> sums) {
  const int64_t thread = int64_t{blockIdx.x} * kNormThreads + threadIdx.x;
  const int64_t block = thread / kNormLanes, lane = thread % kNormLanes;
  const int64_t begin = block * kNormBlock;
  const int64_t end = begin + kNormBlock < n ? begin + kNormBlock : n;
  double sum = 0;
  for (int64_t i = begin + lane; i < end; i += kNormLanes) {
    const double v = x[i];
    sum += v * v;  // the product of two floats is exact in double
  }
  // ((0+4) + (2+6)) + ((1+5) + (3+7)), in lane 0.
  sum += ShuffleDown(sum, 4);
  sum += ShuffleDown(sum, 2);
  sum += ShuffleDown(sum, 1);
  if (lane == 0 && block < blocks) sums[block] = sum;
}

// total (=|+=) values in order. One warp: a load of 32 numbers, then 32 additions.
__global__ void SumInOrderKernel(Pointer<const double> values, int64_t n, bool add,
                                 Pointer<double> total) {
  double sum = add ? total[0] : 0.0;
  for (int64_t first = 0; first < n; first += kWarp) {
    const double mine = first + Lane() < n ? values[first + Lane()] : 0.0;
    const int count = n - first < kWarp ? static_cast<int>(n - first) : kWarp;
    for (int i = 0; i < count; ++i) sum += Shuffle(mine, i);
  }
  if (Lane() == 0) total[0] = sum;
}

struct AdamWScalars {
  float decay, take1, keep2, take2, rate, root, epsilon;
};

__global__ void AdamWKernel(AdamWScalars s, Matrix<const float> grad, Matrix<float> weight,
                            Matrix<float> moment1, Matrix<float> moment2) {
  ForEach(grad.rows, grad.cols, [&](int64_t r, int64_t c) {
    const float g = grad(r, c);
    const float m = moment1(r, c) + s.take1 * (g - moment1(r, c));
    const float v = s.keep2 * moment2(r, c) + s.take2 * g * g;
    moment1(r, c) = m;
    moment2(r, c) = v;
    weight(r, c) = weight(r, c) * s.decay - s.rate * m / (sqrtf(v) / s.root + s.epsilon);
  });
}

constexpr size_t kReduceBytes = kWarp * sizeof(uint32_t);  // of BlockSum and BlockMax

}  // namespace

absl::Status CudaOps::AbsMax(Ctx ctx, ConstView x, Write write, View largest) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  RETURN_IF_ERROR(CheckVector("largest", largest, DType::kF32, 1));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(x)) x = x.Flat();
  const Pointer<uint32_t> result = Output<uint32_t>(largest).data;
  RETURN_IF_ERROR(Launch<StartMaxKernel>(1, kWarp, 0, queue.stream, result, write == Write::kAdd));
  return Launch<AbsMaxKernel>(ElementGrid(x.rows, x.cols), kElementThreads, kReduceBytes,
                              queue.stream, Input<uint32_t>(x), result);
}

absl::Status CudaOps::CountNonFinite(Ctx ctx, ConstView x, View count) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  RETURN_IF_ERROR(CheckVector("count", count, DType::kI64, 1));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(x)) x = x.Flat();
  RETURN_IF_ERROR(device_->Zero(ctx, count.data, sizeof(int64_t)));
  return Launch<CountNonFiniteKernel>(ElementGrid(x.rows, x.cols), kElementThreads, kReduceBytes,
                                      queue.stream, Input<uint32_t>(x),
                                      Output<uint64_t>(count).data);
}

absl::Status CudaOps::QuantiseAccumulate(Ctx ctx, ConstView grad, double scale, View sum) {
  RETURN_IF_ERROR(CheckView("grad", grad, DType::kF32, grad.rows, grad.cols));
  RETURN_IF_ERROR(CheckView("sum", sum, DType::kI64, grad.rows, grad.cols));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(grad, sum)) grad = grad.Flat(), sum = sum.Flat();
  return Launch<QuantiseAccumulateKernel>(ElementGrid(grad.rows, grad.cols), kElementThreads, 0,
                                          queue.stream, Input<float>(grad), scale,
                                          Output<int64_t>(sum));
}

absl::Status CudaOps::Dequantise(Ctx ctx, ConstView sum, double scale, double divisor, View grad) {
  RETURN_IF_ERROR(CheckView("sum", sum, DType::kI64, grad.rows, grad.cols));
  RETURN_IF_ERROR(CheckView("grad", grad, DType::kF32, grad.rows, grad.cols));
  if (!(divisor > 0) || !(scale > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("scale ", scale, " and divisor ", divisor, " must be positive"));
  }
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(sum, grad)) sum = sum.Flat(), grad = grad.Flat();
  return Launch<DequantiseKernel>(ElementGrid(grad.rows, grad.cols), kElementThreads, 0,
                                  queue.stream, Input<int64_t>(sum), scale, divisor,
                                  Output<float>(grad));
}

absl::Status CudaOps::SquaredNorm(Ctx ctx, ConstView x, View norm2) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  RETURN_IF_ERROR(CheckVector("norm2", norm2, DType::kF64, 1));
  if (!x.contiguous()) return absl::InvalidArgumentError("x must be contiguous");
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  const int64_t blocks = (x.size() + kNormBlock - 1) / kNormBlock;
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const View sums, ctx.scratch->Allocate(DType::kF64, 1, blocks));
  const auto grid = static_cast<unsigned>((blocks * kNormLanes + kNormThreads - 1) / kNormThreads);
  RETURN_IF_ERROR(Launch<BlockSquaresKernel>(grid, kNormThreads, 0, queue.stream,
                                             Input<float>(x.Flat()).data, x.size(), blocks,
                                             Output<double>(sums).data));
  return SumInOrder(queue, sums, false, norm2);
}

absl::Status CudaOps::AdamW(Ctx ctx, const AdamWParams& params, ConstView grad, View weight,
                            View moment1, View moment2) {
  const int64_t rows = grad.rows, cols = grad.cols;
  RETURN_IF_ERROR(CheckView("grad", grad, DType::kF32, rows, cols));
  RETURN_IF_ERROR(CheckView("weight", weight, DType::kF32, rows, cols));
  RETURN_IF_ERROR(CheckView("moment1", moment1, DType::kF32, rows, cols));
  RETURN_IF_ERROR(CheckView("moment2", moment2, DType::kF32, rows, cols));
  if (params.step < 1) return absl::InvalidArgumentError("AdamW's step counts from 1");
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(grad, weight, moment1, moment2)) {
    grad = grad.Flat(), weight = weight.Flat(), moment1 = moment1.Flat(), moment2 = moment2.Flat();
  }
  const auto t = static_cast<double>(params.step);
  AdamWScalars s;
  s.decay = static_cast<float>(1 - params.learning_rate * params.weight_decay);
  s.take1 = static_cast<float>(1 - params.beta1);
  s.keep2 = static_cast<float>(params.beta2);
  s.take2 = static_cast<float>(1 - params.beta2);
  s.rate = static_cast<float>(params.learning_rate / (1 - std::pow(params.beta1, t)));
  s.root = static_cast<float>(std::sqrt(1 - std::pow(params.beta2, t)));
  s.epsilon = static_cast<float>(params.epsilon);
  return Launch<AdamWKernel>(ElementGrid(grad.rows, grad.cols), kElementThreads, 0, queue.stream, s,
                             Input<float>(grad), Output<float>(weight), Output<float>(moment1),
                             Output<float>(moment2));
}

absl::Status SumInOrder(const Queue& queue, ConstView values, bool add, View total) {
  return Launch<SumInOrderKernel>(1, kWarp, 0, queue.stream, Input<double>(values).data,
                                  values.cols, add, Output<double>(total).data);
}

}  // namespace tundra::cuda
