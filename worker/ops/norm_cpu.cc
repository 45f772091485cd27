// RMSNorm, forward and backward. A token is one thread's; its sums have 16 lanes.
#include <cmath>

#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/ops/norm_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/ops/vector_inl.h"

HWY_BEFORE_NAMESPACE();
namespace tundra {
namespace HWY_NAMESPACE {

template <typename W>
void NormRow(const float* x, const W* weight, int64_t n, RmsNormParams params, float* y,
             float* inv_rms) {
  const F32Tag d;
  const float sum = LaneSum(n, [&](F32 acc, int64_t i, int64_t count) {
    const F32 v = LoadPart(x + i, count);
    return hn::MulAdd(v, v, acc);
  });
  *inv_rms = 1.0f / std::sqrt(sum / static_cast<float>(n) + params.epsilon);
  const F32 inv = hn::Set(d, *inv_rms);
  const F32 offset = hn::Set(d, params.weight_offset);
  ForVectors(n, [&](int64_t i, int64_t count) {
    const F32 w = hn::Add(offset, LoadPart(weight + i, count));
    StorePart(hn::Mul(hn::Mul(LoadPart(x + i, count), inv), w), y + i, count);
  });
}

template <typename W>
void NormRowBackward(const float* dy, const float* x, const W* weight, int64_t n,
                     RmsNormParams params, float inv_rms, bool add, float* dx) {
  const F32Tag d;
  const F32 offset = hn::Set(d, params.weight_offset);
  const auto g = [&](int64_t i, int64_t count) {
    return hn::Mul(LoadPart(dy + i, count), hn::Add(offset, LoadPart(weight + i, count)));
  };
  const float dot = LaneSum(n, [&](F32 acc, int64_t i, int64_t count) {
    return hn::MulAdd(g(i, count), LoadPart(x + i, count), acc);
  });
  const F32 inv = hn::Set(d, inv_rms);
  const F32 factor = hn::Set(d, dot / static_cast<float>(n) * inv_rms * inv_rms);
  ForVectors(n, [&](int64_t i, int64_t count) {
    const F32 v = hn::Mul(inv, hn::NegMulAdd(factor, LoadPart(x + i, count), g(i, count)));
    StorePart(add ? hn::Add(v, LoadPart(dx + i, count)) : v, dx + i, count);
  });
}

void NormRows(const ConstView& x, const ConstView& weight, RmsNormParams params, const View& y,
              float* inv_rms, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    if (weight.dtype == DType::kBF16) {
      NormRow(x.row<float>(t), weight.row<BF16>(0), x.cols, params, y.row<float>(t), inv_rms + t);
    } else {
      NormRow(x.row<float>(t), weight.row<float>(0), x.cols, params, y.row<float>(t), inv_rms + t);
    }
  }
}

// x += residual first. The row is still near when the norm reads it.
void AddNormRows(const ConstView& residual, const View& x, const ConstView& weight,
                 RmsNormParams params, const View& y, float* inv_rms, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* r = residual.row<float>(t);
    float* sum = x.row<float>(t);
    ForVectors(x.cols, [&](int64_t i, int64_t count) {
      StorePart(hn::Add(LoadPart(sum + i, count), LoadPart(r + i, count)), sum + i, count);
    });
    NormRows(x, weight, params, y, inv_rms, t, t + 1);
  }
}

void NormRowsBackward(const ConstView& dy, const ConstView& x, const ConstView& weight,
                      const float* inv_rms, RmsNormParams params, bool add, const View& dx,
                      int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    if (weight.dtype == DType::kBF16) {
      NormRowBackward(dy.row<float>(t), x.row<float>(t), weight.row<BF16>(0), x.cols, params,
                      inv_rms[t], add, dx.row<float>(t));
    } else {
      NormRowBackward(dy.row<float>(t), x.row<float>(t), weight.row<float>(0), x.cols, params,
                      inv_rms[t], add, dx.row<float>(t));
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tundra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tundra {

HWY_EXPORT(NormRows);
HWY_EXPORT(AddNormRows);
HWY_EXPORT(NormRowsBackward);

absl::Status CpuOps::RmsNorm(Ctx, ConstView x_TD, ConstView weight_D, RmsNormParams params,
                             View y_TD, View inv_rms_T) {
  const int64_t t = x_TD.rows;
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, t, x_TD.cols));
  RETURN_IF_ERROR(CheckWeight("weight_D", weight_D, 1, x_TD.cols));
  RETURN_IF_ERROR(CheckView("y_TD", y_TD, DType::kF32, t, x_TD.cols));
  RETURN_IF_ERROR(CheckVector("inv_rms_T", inv_rms_T, DType::kF32, t));
  const auto rows = HWY_DYNAMIC_DISPATCH(NormRows);
  ParallelRanges(threads(), t, GrainOf(x_TD.cols), [&](int64_t begin, int64_t end) {
    rows(x_TD, weight_D, params, y_TD, inv_rms_T.row<float>(0), begin, end);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::AddRmsNorm(Ctx, ConstView residual_TD, View x_TD, ConstView weight_D,
                                RmsNormParams params, View y_TD, View inv_rms_T) {
  const int64_t t = x_TD.rows;
  RETURN_IF_ERROR(CheckView("residual_TD", residual_TD, DType::kF32, t, x_TD.cols));
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, t, x_TD.cols));
  RETURN_IF_ERROR(CheckWeight("weight_D", weight_D, 1, x_TD.cols));
  RETURN_IF_ERROR(CheckView("y_TD", y_TD, DType::kF32, t, x_TD.cols));
  RETURN_IF_ERROR(CheckVector("inv_rms_T", inv_rms_T, DType::kF32, t));
  const auto rows = HWY_DYNAMIC_DISPATCH(AddNormRows);
  ParallelRanges(threads(), t, GrainOf(x_TD.cols), [&](int64_t begin, int64_t end) {
    rows(residual_TD, x_TD, weight_D, params, y_TD, inv_rms_T.row<float>(0), begin, end);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::RmsNormBackward(Ctx, ConstView dy_TD, ConstView x_TD, ConstView weight_D,
                                     ConstView inv_rms_T, RmsNormParams params, Write write,
                                     View dx_TD) {
  const int64_t t = x_TD.rows;
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, t, x_TD.cols));
  RETURN_IF_ERROR(CheckView("dy_TD", dy_TD, DType::kF32, t, x_TD.cols));
  RETURN_IF_ERROR(CheckWeight("weight_D", weight_D, 1, x_TD.cols));
  RETURN_IF_ERROR(CheckVector("inv_rms_T", inv_rms_T, DType::kF32, t));
  RETURN_IF_ERROR(CheckView("dx_TD", dx_TD, DType::kF32, t, x_TD.cols));
  const auto rows = HWY_DYNAMIC_DISPATCH(NormRowsBackward);
  ParallelRanges(threads(), t, GrainOf(x_TD.cols), [&](int64_t begin, int64_t end) {
    rows(dy_TD, x_TD, weight_D, inv_rms_T.row<float>(0), params, write == Write::kAdd, dx_TD, begin,
         end);
  });
  return absl::OkStatus();
}

}  // namespace tundra
#endif  // HWY_ONCE
