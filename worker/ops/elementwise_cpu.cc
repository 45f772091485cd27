// Operations that work token by token or element by element: rotary embedding, gated
// activations, residual add, scaling, casts.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/ops/elementwise_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/ops/vector_inl.h"

HWY_BEFORE_NAMESPACE();
namespace tundra {
namespace HWY_NAMESPACE {

void RopeRow(const float* cos, const float* sin, int64_t r, float sign, int num_heads, int head_dim,
             float* x) {
  const F32 direction = hn::Set(F32Tag(), sign);
  for (int h = 0; h < num_heads; ++h, x += head_dim) {
    ForVectors(r, [&](int64_t i, int64_t count) {
      const F32 c = LoadPart(cos + i, count);
      const F32 s = hn::Mul(direction, LoadPart(sin + i, count));
      const F32 a = LoadPart(x + i, count);
      const F32 b = LoadPart(x + r + i, count);
      StorePart(hn::NegMulAdd(b, s, hn::Mul(a, c)), x + i, count);
      StorePart(hn::MulAdd(a, s, hn::Mul(b, c)), x + r + i, count);
    });
  }
}

// What f(z) and f'(z) of a gated unit are made of: f = z · gate, f' = slope. NaN stays NaN.
struct Gate {
  F32 gate;
  F32 slope;
};

struct Silu {
  static F32 At(F32 z) { return Sigmoid(z); }
  static Gate WithSlope(F32 z) {
    const F32 one = hn::Set(F32Tag(), 1.0f);
    const F32 sigma = Sigmoid(z);
    return {sigma, hn::Mul(sigma, hn::MulAdd(z, hn::Sub(one, sigma), one))};
  }
};

// σ(2u) is 0 or 1 to the last bit long before |z| = 64, and 64³ is no infinity.
struct GeluTanh {
  static constexpr float kTwoRootTwoByPi = 1.5957691216057308f;  // 2 √(2/π)
  static constexpr float kCubic = 0.044715f;
  static F32 Clamped(F32 z) {
    const F32Tag d;
    return hn::Max(hn::Min(z, hn::Set(d, 64.0f)), hn::Set(d, -64.0f));
  }
  static F32 At(F32 z) {
    const F32Tag d;
    const F32 c = Clamped(z);
    const F32 poly = hn::MulAdd(hn::Set(d, kCubic), hn::Mul(c, c), hn::Set(d, 1.0f));
    return Sigmoid(hn::Mul(hn::Mul(hn::Set(d, kTwoRootTwoByPi), c), poly));
  }
  static Gate WithSlope(F32 z) {
    const F32Tag d;
    const F32 one = hn::Set(d, 1.0f);
    const F32 c = Clamped(z);
    const F32 gate = At(z);
    const F32 inner = hn::Mul(hn::Set(d, kTwoRootTwoByPi),
                              hn::MulAdd(hn::Set(d, 3 * kCubic), hn::Mul(c, c), one));
    const F32 slope = hn::MulAdd(hn::Mul(c, inner), hn::Mul(gate, hn::Sub(one, gate)), gate);
    return {gate, hn::IfThenElse(hn::IsNaN(z), z, slope)};
  }
};

template <typename F>
void GluRow(const float* gate, const float* up, int64_t n, float* act) {
  ForVectors(n, [&](int64_t i, int64_t count) {
    const F32 g = LoadPart(gate + i, count);
    StorePart(hn::Mul(hn::Mul(g, F::At(g)), LoadPart(up + i, count)), act + i, count);
  });
}

template <typename F>
void GluRowBackward(const float* dact, const float* gate, const float* up, int64_t n, float* dgate,
                    float* dup) {
  ForVectors(n, [&](int64_t i, int64_t count) {
    const F32 g = LoadPart(gate + i, count);
    const F32 u = LoadPart(up + i, count);
    const F32 da = LoadPart(dact + i, count);
    const Gate f = F::WithSlope(g);
    StorePart(hn::Mul(hn::Mul(da, u), f.slope), dgate + i, count);
    StorePart(hn::Mul(da, hn::Mul(g, f.gate)), dup + i, count);
  });
}

void SiluGluRow(const float* gate, const float* up, int64_t n, float* act) {
  GluRow<Silu>(gate, up, n, act);
}
void GeluTanhGluRow(const float* gate, const float* up, int64_t n, float* act) {
  GluRow<GeluTanh>(gate, up, n, act);
}
void SiluGluRowBackward(const float* dact, const float* gate, const float* up, int64_t n,
                        float* dgate, float* dup) {
  GluRowBackward<Silu>(dact, gate, up, n, dgate, dup);
}
void GeluTanhGluRowBackward(const float* dact, const float* gate, const float* up, int64_t n,
                            float* dgate, float* dup) {
  GluRowBackward<GeluTanh>(dact, gate, up, n, dgate, dup);
}

void AddRow(const float* x, int64_t n, float* y) {
  ForVectors(n, [&](int64_t i, int64_t count) {
    StorePart(hn::Add(LoadPart(y + i, count), LoadPart(x + i, count)), y + i, count);
  });
}

void ScaleRow(float factor, int64_t n, float* x) {
  const F32 f = hn::Set(F32Tag(), factor);
  ForVectors(n, [&](int64_t i, int64_t count) {
    StorePart(hn::Mul(LoadPart(x + i, count), f), x + i, count);
  });
}

void WidenRow(const BF16* from, int64_t n, float* to) {
  ForVectors(
      n, [&](int64_t i, int64_t count) { StorePart(LoadPart(from + i, count), to + i, count); });
}

// Round to nearest even, as ToBF16.
void NarrowRow(const float* from, int64_t n, BF16* to) {
  const hn::RebindToUnsigned<F32Tag> d32;
  const hn::Rebind<uint16_t, F32Tag> d16;
  const auto half = hn::Set(d32, 0x7fffu);
  const auto one = hn::Set(d32, 1u);
  const auto quiet = hn::Set(d32, 0x0040u);
  ForVectors(n, [&](int64_t i, int64_t count) {
    const F32 value = LoadPart(from + i, count);
    const auto bits = hn::BitCast(d32, value);
    const auto upper = hn::ShiftRight<16>(bits);
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, half), hn::And(upper, one)));
    const auto is_nan = hn::BitCast(d32, hn::VecFromMask(F32Tag(), hn::IsNaN(value)));
    const auto result = hn::IfVecThenElse(is_nan, hn::Or(upper, quiet), rounded);
    HWY_ALIGN uint16_t buffer[kVirtualLanes];
    // Saturation can't happen: all values are below 2^16.
    hn::Store(
        hn::BitCast(d16, hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<F32Tag>(), result))), d16,
        buffer);
    std::memcpy(to + i, buffer, static_cast<size_t>(count) * sizeof(BF16));
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tundra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tundra {

HWY_EXPORT(RopeRow);
HWY_EXPORT(SiluGluRow);
HWY_EXPORT(GeluTanhGluRow);
HWY_EXPORT(SiluGluRowBackward);
HWY_EXPORT(GeluTanhGluRowBackward);
HWY_EXPORT(AddRow);
HWY_EXPORT(ScaleRow);
HWY_EXPORT(WidenRow);
HWY_EXPORT(NarrowRow);

namespace {

// row(r, begin, count) over a matrix, cut by rows, or by columns when it has but one.
template <typename Row>
void ForRows(int threads, int64_t rows, int64_t cols, const Row& row) {
  if (rows == 1) {
    ParallelRanges(threads, cols, kElementGrain,
                   [&](int64_t begin, int64_t end) { row(0, begin, end - begin); });
    return;
  }
  ParallelRanges(threads, rows, GrainOf(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) row(r, int64_t{0}, cols);
  });
}

}  // namespace

absl::Status CpuOps::Rope(Ctx, Direction direction, ConstView positions_T, ConstView cos_PR,
                          ConstView sin_PR, int num_heads, int head_dim, View x_TH) {
  const int64_t t = x_TH.rows;
  const int64_t r = cos_PR.cols;
  RETURN_IF_ERROR(CheckVector("positions_T", positions_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckView("cos_PR", cos_PR, DType::kF32, cos_PR.rows, r));
  RETURN_IF_ERROR(CheckView("sin_PR", sin_PR, DType::kF32, cos_PR.rows, r));
  RETURN_IF_ERROR(
      CheckView("x_TH", x_TH, DType::kF32, t, static_cast<int64_t>(num_heads) * head_dim));
  if (2 * r > head_dim) {
    return absl::InvalidArgumentError(
        absl::StrCat("rotary tables of ", r, " columns are too wide for heads of ", head_dim));
  }
  const int32_t* positions = positions_T.row<int32_t>(0);
  for (int64_t i = 0; i < t; ++i) {
    if (positions[i] < 0 || positions[i] >= cos_PR.rows) {
      return absl::InvalidArgumentError(absl::StrCat("token ", i, " has position ", positions[i],
                                                     "; the rotary table has ", cos_PR.rows));
    }
  }
  const float sign = direction == Direction::kForward ? 1.0f : -1.0f;
  const auto row = HWY_DYNAMIC_DISPATCH(RopeRow);
  ParallelRanges(threads(), t, GrainOf(x_TH.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      row(cos_PR.row<float>(positions[i]), sin_PR.row<float>(positions[i]), r, sign, num_heads,
          head_dim, x_TH.row<float>(i));
    }
  });
  return absl::OkStatus();
}

absl::Status CpuOps::Glu(Ctx, Activation activation, ConstView gate_TF, ConstView up_TF,
                         View act_TF) {
  const auto [t, f] = std::pair(gate_TF.rows, gate_TF.cols);
  RETURN_IF_ERROR(CheckView("gate_TF", gate_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("up_TF", up_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("act_TF", act_TF, DType::kF32, t, f));
  const auto row = activation == Activation::kSilu ? HWY_DYNAMIC_DISPATCH(SiluGluRow)
                                                   : HWY_DYNAMIC_DISPATCH(GeluTanhGluRow);
  ForRows(threads(), t, f, [&](int64_t r, int64_t begin, int64_t count) {
    row(gate_TF.row<float>(r) + begin, up_TF.row<float>(r) + begin, count,
        act_TF.row<float>(r) + begin);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::GluBackward(Ctx, Activation activation, ConstView dact_TF, ConstView gate_TF,
                                 ConstView up_TF, View dgate_TF, View dup_TF) {
  const auto [t, f] = std::pair(gate_TF.rows, gate_TF.cols);
  RETURN_IF_ERROR(CheckView("dact_TF", dact_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("gate_TF", gate_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("up_TF", up_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("dgate_TF", dgate_TF, DType::kF32, t, f));
  RETURN_IF_ERROR(CheckView("dup_TF", dup_TF, DType::kF32, t, f));
  const auto row = activation == Activation::kSilu ? HWY_DYNAMIC_DISPATCH(SiluGluRowBackward)
                                                   : HWY_DYNAMIC_DISPATCH(GeluTanhGluRowBackward);
  ForRows(threads(), t, f, [&](int64_t r, int64_t begin, int64_t count) {
    row(dact_TF.row<float>(r) + begin, gate_TF.row<float>(r) + begin, up_TF.row<float>(r) + begin,
        count, dgate_TF.row<float>(r) + begin, dup_TF.row<float>(r) + begin);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::Add(Ctx, ConstView x, View y) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, y.rows, y.cols));
  RETURN_IF_ERROR(CheckView("y", y, DType::kF32, y.rows, y.cols));
  const auto row = HWY_DYNAMIC_DISPATCH(AddRow);
  ForRows(threads(), y.rows, y.cols, [&](int64_t r, int64_t begin, int64_t count) {
    row(x.row<float>(r) + begin, count, y.row<float>(r) + begin);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::Scale(Ctx, float factor, View x) {
  RETURN_IF_ERROR(CheckView("x", x, DType::kF32, x.rows, x.cols));
  const auto row = HWY_DYNAMIC_DISPATCH(ScaleRow);
  ForRows(threads(), x.rows, x.cols, [&](int64_t r, int64_t begin, int64_t count) {
    row(factor, count, x.row<float>(r) + begin);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::Cast(Ctx, ConstView from, View to) {
  RETURN_IF_ERROR(CheckWeight("from", from, from.rows, from.cols));
  RETURN_IF_ERROR(CheckWeight("to", to, from.rows, from.cols));
  const auto widen = HWY_DYNAMIC_DISPATCH(WidenRow);
  const auto narrow = HWY_DYNAMIC_DISPATCH(NarrowRow);
  ForRows(threads(), from.rows, from.cols, [&](int64_t r, int64_t begin, int64_t count) {
    if (from.dtype == to.dtype) {
      std::memmove(to.At(r, begin), from.At(r, begin),
                   static_cast<size_t>(count) * DTypeSize(to.dtype));
    } else if (to.dtype == DType::kF32) {
      widen(from.row<BF16>(r) + begin, count, to.row<float>(r) + begin);
    } else {
      narrow(from.row<float>(r) + begin, count, to.row<BF16>(r) + begin);
    }
  });
  return absl::OkStatus();
}

}  // namespace tundra
#endif  // HWY_ONCE
