// What happens to gradients after a backward pass: maxima, exact sums, norm, AdamW. Each
// formula is that of gradient_cpu.cc, operation by operation, unfused; only quotients come about
// in another way, to the same bits, and a block's part of a norm is added in another order.
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "worker/cuda/kernels.h"
#include "worker/ops/gradient_checks.h"
#include "worker/ops/quantise.h"

namespace tundra::cuda {
namespace {

constexpr uint32_t kAbs = 0x7fffffffu;  // all of a float's bits but its sign

// A block of threads has at most kNormBlock elements of one tensor.
constexpr int kThreads = 256;
constexpr int64_t kPerThread = kNormBlock / kThreads;

struct Piece {
  int tensor = 0;
  int64_t begin = 0, end = 0;  // in the array; empty for numbers that have no piece
};

// Tensors as kernels see them: `elements` of the array in all.
struct TensorTable {
  Pointer<const int64_t> offsets;
  int count = 0;
  int64_t elements = 0;

  // Where tensor s begins in the array, whatever the offsets are.
  TUNDRA_DEVICE int64_t At(int s) const {
    const int64_t at = offsets[s] - offsets[0];
    return at < 0 ? 0 : at > elements ? elements : at;
  }
  // Tensor s has the numbers from here on: floor((a + n) / b) + 1 − floor(a / b) >= ceil(n / b),
  // so that is room enough, and no sum over earlier tensors is needed.
  TUNDRA_DEVICE int64_t FirstPiece(int s) const { return At(s) / kNormBlock + s; }

  // The piece with a number in [0, NormSlots).
  TUNDRA_DEVICE Piece PieceAt(int64_t number) const {
    Piece piece;
    for (int after = count; after - piece.tensor > 1;) {
      const int middle = piece.tensor + (after - piece.tensor) / 2;
      (FirstPiece(middle) <= number ? piece.tensor : after) = middle;
    }
    const int64_t last = At(piece.tensor + 1);
    piece.begin = At(piece.tensor) + (number - FirstPiece(piece.tensor)) * kNormBlock;
    piece.end = piece.begin + kNormBlock < last ? piece.begin + kNormBlock : last;
    return piece;
  }
};

// One block looks at all offsets.
TUNDRA_DEVICE void CheckOffsets(const TensorTable& tensors, Pointer<uint32_t> fault) {
  for (int s = static_cast<int>(threadIdx.x); s < tensors.count; s += kThreads) {
    const int64_t begin = tensors.offsets[s], end = tensors.offsets[s + 1];
    if (end < begin || end - tensors.offsets[0] > tensors.elements) {
      Report(fault, Fault::kTensor, s);
    }
  }
}

// The largest of non-negative floats is the largest of their bits, NaN above all: an integer
// maximum, which no order of blocks can change.
__global__ void __launch_bounds__(kThreads)
    AddGradientsKernel(TensorTable tensors, Pointer<const float> grad, Pointer<const double> scales,
                       Pointer<uint32_t> largest, Pointer<int64_t> sum, Pointer<uint32_t> fault) {
  const Pointer<uint32_t> scratch = SharedArray<uint32_t>(0, kWarp);
  if (blockIdx.x == 0) CheckOffsets(tensors, fault);
  const Piece piece = tensors.PieceAt(blockIdx.x);
  if (piece.begin >= piece.end) return;
  const double scale = scales[piece.tensor];
  uint32_t most = 0;
  TUNDRA_UNROLL
  for (int64_t k = 0; k < kPerThread; ++k) {
    const int64_t i = piece.begin + k * kThreads + threadIdx.x;
    if (i >= piece.end) break;
    const float g = grad[i];
    const uint32_t bits = std::bit_cast<uint32_t>(g) & kAbs;
    most = bits > most ? bits : most;
    if (scale > 0) {
      sum[i] = static_cast<int64_t>(static_cast<uint64_t>(sum[i]) +
                                    static_cast<uint64_t>(Quantize(g, scale)));
    }
  }
  most = BlockMax(most, scratch);
  if (threadIdx.x == 0) AtomicMax(largest + piece.tensor, most);
}

// Exactly 1 / scale, for a scale that is a power of two: a division would take a call, and as
// the quotient by a power of two the product by this is exact.
TUNDRA_DEVICE double InverseOfPower(double scale) {
  return std::bit_cast<double>((uint64_t{2046} << 52) - std::bit_cast<uint64_t>(scale));
}

// A divisor with the nearest double to its reciprocal. One correction makes the quotient the
// nearest, as a division would give it (Markstein 1990), without the call that one takes.
struct Divisor {
  double value = 1;
  double reciprocal = 1;

  TUNDRA_DEVICE double Divide(double x) const {
    const double about = x * reciprocal;
    return fma(fma(-about, value, x), reciprocal, about);
  }
};

// A block's part of the norm: a thread adds every 256th element, then BlockSum's tree.
__global__ void __launch_bounds__(kThreads)
    MeanGradientsKernel(TensorTable tensors, Pointer<const int64_t> sum,
                        Pointer<const double> scales, Divisor divisor, Pointer<float> grad,
                        Pointer<double> pieces, Pointer<uint32_t> fault) {
  const Pointer<double> scratch = SharedArray<double>(0, kWarp);
  if (blockIdx.x == 0) CheckOffsets(tensors, fault);
  const Piece piece = tensors.PieceAt(blockIdx.x);
  if (piece.begin >= piece.end) return;
  const double scale = scales[piece.tensor];
  const double inverse = InverseOfPower(scale);
  double squares = 0;
  TUNDRA_UNROLL
  for (int64_t k = 0; k < kPerThread; ++k) {
    const int64_t i = piece.begin + k * kThreads + threadIdx.x;
    if (i >= piece.end) break;
    const double unscaled = static_cast<double>(sum[i]) * inverse;
    const float g = scale > 0 ? static_cast<float>(divisor.Divide(unscaled)) : 0.0f;
    grad[i] = g;
    squares += static_cast<double>(g) * g;  // the product of two floats is exact in double
  }
  squares = BlockSum(squares, scratch);
  if (threadIdx.x == 0) pieces[blockIdx.x] = squares;
}

// total (=|+=) values in order, by one warp: a load of 32 numbers, then 32 additions.
TUNDRA_DEVICE double InOrder(double sum, Pointer<const double> values, int64_t n) {
  for (int64_t first = 0; first < n; first += kWarp) {
    const double mine = first + Lane() < n ? values[first + Lane()] : 0.0;
    const int count = n - first < kWarp ? static_cast<int>(n - first) : kWarp;
    for (int i = 0; i < count; ++i) sum += Shuffle(mine, i);
  }
  return sum;
}

// A block of one warp adds up a tensor's pieces.
__global__ void TensorNormsKernel(TensorTable tensors, Pointer<const double> pieces,
                                  Pointer<double> norm2) {
  const int s = static_cast<int>(blockIdx.x);
  const int64_t n = tensors.At(s + 1) - tensors.At(s);
  const double sum =
      InOrder(0.0, pieces + tensors.FirstPiece(s), (n + kNormBlock - 1) / kNormBlock);
  if (Lane() == 0) norm2[s] = sum;
}

__global__ void SumInOrderKernel(Pointer<const double> values, int64_t n, bool add,
                                 Pointer<double> total) {
  const double sum = InOrder(add ? total[0] : 0.0, values, n);
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

TensorTable TableOf(const Tensors& tensors, int64_t elements) {
  return {Input<int64_t>(tensors.offsets).data, tensors.count, elements};
}

}  // namespace

absl::Status CudaOps::AddGradients(Ctx ctx, const Tensors& tensors, ConstView grad,
                                   ConstView scales_S, View largest_S, View sum) {
  RETURN_IF_ERROR(CheckTensors(tensors, grad, scales_S, sum));
  RETURN_IF_ERROR(CheckVector("largest_S", largest_S, DType::kF32, tensors.count));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (tensors.count == 0) return absl::OkStatus();
  return Launch<AddGradientsKernel>(static_cast<unsigned>(NormSlots(grad.cols, tensors.count)),
                                    kThreads, kWarp * sizeof(uint32_t), queue.stream,
                                    TableOf(tensors, grad.cols), Input<float>(grad).data,
                                    Input<double>(scales_S).data, Output<uint32_t>(largest_S).data,
                                    Output<int64_t>(sum).data, queue.fault);
}

absl::Status CudaOps::MeanGradients(Ctx ctx, const Tensors& tensors, ConstView sum,
                                    ConstView scales_S, double divisor, View grad, View norm2_S) {
  RETURN_IF_ERROR(CheckTensors(tensors, grad, scales_S, sum));
  RETURN_IF_ERROR(CheckVector("norm2_S", norm2_S, DType::kF64, tensors.count));
  RETURN_IF_ERROR(CheckDivisor(divisor));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (tensors.count == 0) return absl::OkStatus();
  const TensorTable table = TableOf(tensors, grad.cols);
  const int64_t slots = NormSlots(grad.cols, tensors.count);
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const View pieces, ctx.scratch->Allocate(DType::kF64, 1, slots));
  RETURN_IF_ERROR(Launch<MeanGradientsKernel>(
      static_cast<unsigned>(slots), kThreads, kWarp * sizeof(double), queue.stream, table,
      Input<int64_t>(sum).data, Input<double>(scales_S).data, Divisor{divisor, 1.0 / divisor},
      Output<float>(grad).data, Output<double>(pieces).data, queue.fault));
  return Launch<TensorNormsKernel>(static_cast<unsigned>(tensors.count), kWarp, 0, queue.stream,
                                   table, Input<double>(pieces).data, Output<double>(norm2_S).data);
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
