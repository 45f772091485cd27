// Operations on single elements: residual add, scaling, casts, gated activations.
#include "worker/cuda/kernels.h"

namespace tundra::cuda {
namespace {

__global__ void AddKernel(Matrix<const float> x, Matrix<float> y) {
  ForEach(y.rows, y.cols, [&](int64_t r, int64_t c) { y(r, c) += x(r, c); });
}

__global__ void ScaleKernel(float factor, Matrix<float> x) {
  ForEach(x.rows, x.cols, [&](int64_t r, int64_t c) { x(r, c) *= factor; });
}

TUNDRA_DEVICE void Convert(float from, float& to) { to = from; }
TUNDRA_DEVICE void Convert(BF16 from, float& to) { to = ToFloat(from); }
TUNDRA_DEVICE void Convert(float from, BF16& to) { to = ToBF16(from); }
TUNDRA_DEVICE void Convert(BF16 from, BF16& to) { to = from; }

template <typename From, typename To>
__global__ void CastKernel(Matrix<const From> from, Matrix<To> to) {
  ForEach(to.rows, to.cols, [&](int64_t r, int64_t c) { Convert(from(r, c), to(r, c)); });
}

// 1 / (1 + exp(−z)); exp overflows to infinity, which gives 0.
TUNDRA_DEVICE float Sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

// What f(z) and f'(z) of a gated unit are made of: f = z · gate, f' = slope. NaN stays NaN.
struct Gate {
  float gate;
  float slope;
};

struct Silu {
  static TUNDRA_DEVICE float At(float z) { return Sigmoid(z); }
  static TUNDRA_DEVICE Gate WithSlope(float z) {
    const float sigma = Sigmoid(z);
    return {sigma, sigma * fmaf(z, 1.0f - sigma, 1.0f)};
  }
};

// σ(2u) is 0 or 1 to the last bit long before |z| = 64, and 64³ is no infinity.
struct GeluTanh {
  static constexpr float kTwoRootTwoByPi = 1.5957691216057308f;  // 2 √(2/π)
  static constexpr float kCubic = 0.044715f;
  static TUNDRA_DEVICE float Clamped(float z) { return fmaxf(fminf(z, 64.0f), -64.0f); }
  static TUNDRA_DEVICE float At(float z) {
    const float c = Clamped(z);
    return z != z ? z : Sigmoid(kTwoRootTwoByPi * c * fmaf(kCubic, c * c, 1.0f));
  }
  static TUNDRA_DEVICE Gate WithSlope(float z) {
    const float c = Clamped(z), gate = At(z);
    const float inner = kTwoRootTwoByPi * fmaf(3 * kCubic, c * c, 1.0f);
    return {gate, fmaf(c * inner, gate * (1.0f - gate), gate)};
  }
};

template <typename F>
__global__ void GluKernel(Matrix<const float> gate, Matrix<const float> up, Matrix<float> act) {
  ForEach(act.rows, act.cols, [&](int64_t r, int64_t c) {
    const float g = gate(r, c);
    act(r, c) = g * F::At(g) * up(r, c);
  });
}

// All operands of an element are read before any is written: results may lie over inputs.
template <typename F>
__global__ void GluBackwardKernel(Matrix<const float> dact, Matrix<const float> gate,
                                  Matrix<const float> up, Matrix<float> dgate, Matrix<float> dup) {
  ForEach(dgate.rows, dgate.cols, [&](int64_t r, int64_t c) {
    const float g = gate(r, c), u = up(r, c), da = dact(r, c);
    const Gate f = F::WithSlope(g);
    dgate(r, c) = da * u * f.slope;
    dup(r, c) = da * (g * f.gate);
  });
}

template <typename F>
absl::Status LaunchGlu(const Queue& queue, const ConstView& gate, const ConstView& up,
                       const View& act) {
  return Launch<GluKernel<F>>(ElementGrid(act.rows, act.cols), kElementThreads, 0, queue.stream,
                              Input<float>(gate), Input<float>(up), Output<float>(act));
}

template <typename F>
absl::Status LaunchGluBackward(const Queue& queue, const ConstView& dact, const ConstView& gate,
                               const ConstView& up, const View& dgate, const View& dup) {
  return Launch<GluBackwardKernel<F>>(ElementGrid(dgate.rows, dgate.cols), kElementThreads, 0,
                                      queue.stream, Input<float>(dact), Input<float>(gate),
                                      Input<float>(up), Output<float>(dgate), Output<float>(dup));
}

template <typename From, typename To>
absl::Status LaunchCast(const Queue& queue, const ConstView& from, const View& to) {
  return Launch<CastKernel<From, To>>(ElementGrid(to.rows, to.cols), kElementThreads, 0,
                                      queue.stream, Input<From>(from), Output<To>(to));
}

}  // namespace

absl::Status CudaOps::Add(Ctx ctx, ConstView x, View y) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, y.rows, y.cols));
  RETURN_IF_ERROR(CheckView("y", y, DType::kF32, y.rows, y.cols));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(x, y)) x = x.Flat(), y = y.Flat();
  return Launch<AddKernel>(ElementGrid(y.rows, y.cols), kElementThreads, 0, queue.stream,
                           Input<float>(x), Output<float>(y));
}

absl::Status CudaOps::Scale(Ctx ctx, float factor, View x) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(x)) x = x.Flat();
  return Launch<ScaleKernel>(ElementGrid(x.rows, x.cols), kElementThreads, 0, queue.stream, factor,
                             Output<float>(x));
}

absl::Status CudaOps::Cast(Ctx ctx, ConstView from, View to) {
  RETURN_IF_ERROR(CheckWeight("from", from, from.rows, from.cols));
  RETURN_IF_ERROR(CheckWeight("to", to, from.rows, from.cols));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(from, to)) from = from.Flat(), to = to.Flat();
  if (from.dtype == DType::kF32) {
    return to.dtype == DType::kF32 ? LaunchCast<float, float>(queue, from, to)
                                   : LaunchCast<float, BF16>(queue, from, to);
  }
  return to.dtype == DType::kF32 ? LaunchCast<BF16, float>(queue, from, to)
                                 : LaunchCast<BF16, BF16>(queue, from, to);
}

absl::Status CudaOps::Glu(Ctx ctx, Activation activation, ConstView gate_TF, ConstView up_TF,
                          View act_TF) {
  const int64_t t = gate_TF.rows, f = gate_TF.cols;
  RETURN_IF_ERROR(CheckView("gate_TF", gate_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("up_TF", up_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("act_TF", act_TF, DType::kF32, t, f));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(gate_TF, up_TF, act_TF)) {
    gate_TF = gate_TF.Flat(), up_TF = up_TF.Flat(), act_TF = act_TF.Flat();
  }
  return activation == Activation::kSilu ? LaunchGlu<Silu>(queue, gate_TF, up_TF, act_TF)
                                         : LaunchGlu<GeluTanh>(queue, gate_TF, up_TF, act_TF);
}

absl::Status CudaOps::GluBackward(Ctx ctx, Activation activation, ConstView dact_TF,
                                  ConstView gate_TF, ConstView up_TF, View dgate_TF, View dup_TF) {
  const int64_t t = gate_TF.rows, f = gate_TF.cols;
  RETURN_IF_ERROR(CheckView("dact_TF", dact_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("gate_TF", gate_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("up_TF", up_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("dgate_TF", dgate_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("dup_TF", dup_TF, DType::kF32, t, f));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  if (AllContiguous(dact_TF, gate_TF, up_TF, dgate_TF, dup_TF)) {
    dact_TF = dact_TF.Flat(), gate_TF = gate_TF.Flat(), up_TF = up_TF.Flat();
    dgate_TF = dgate_TF.Flat(), dup_TF = dup_TF.Flat();
  }
  const auto launch =
      activation == Activation::kSilu ? LaunchGluBackward<Silu> : LaunchGluBackward<GeluTanh>;
  return launch(queue, dact_TF, gate_TF, up_TF, dgate_TF, dup_TF);
}

}  // namespace tundra::cuda
