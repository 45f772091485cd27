// Vector loops that give the same bits for any vector width: sums run in 16 virtual
// lanes (lane i takes elements i, i + 16, …), which are added by one fixed tree.
// Included by files that use foreach_target, compiled once for each instruction set.
#if defined(TUNDRA_WORKER_OPS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNDRA_WORKER_OPS_VECTOR_INL_H_
#undef TUNDRA_WORKER_OPS_VECTOR_INL_H_
#else
#define TUNDRA_WORKER_OPS_VECTOR_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "worker/device/view.h"

HWY_BEFORE_NAMESPACE();
namespace tundra {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32Tag = hn::CappedTag<float, 16>;
using F32 = hn::Vec<F32Tag>;
inline constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(F32Tag()));
inline constexpr int64_t kVirtualLanes = 16;
inline constexpr int kRegs = static_cast<int>(kVirtualLanes / kLanes);

// f(i, count): count is kLanes except for the last call; loads and stores of fewer go
// through LoadPart and StorePart.
HWY_INLINE F32 LoadPart(const float* from, int64_t count) {
  const F32Tag d;
  if (count >= kLanes) return hn::LoadU(d, from);
  HWY_ALIGN float buffer[kVirtualLanes] = {};
  std::copy(from, from + count, buffer);
  return hn::Load(d, buffer);
}
HWY_INLINE F32 LoadPart(const BF16* from, int64_t count) {
  const F32Tag d;
  const hn::Rebind<uint16_t, F32Tag> d16;
  const hn::RebindToUnsigned<F32Tag> d32;
  HWY_ALIGN uint16_t buffer[kVirtualLanes] = {};
  std::memcpy(buffer, from, static_cast<size_t>(std::min(count, kLanes)) * sizeof(BF16));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::Load(d16, buffer))));
}
HWY_INLINE void StorePart(F32 value, float* to, int64_t count) {
  const F32Tag d;
  if (count >= kLanes) {
    hn::StoreU(value, d, to);
    return;
  }
  HWY_ALIGN float buffer[kVirtualLanes];
  hn::Store(value, d, buffer);
  std::copy(buffer, buffer + count, to);
}

// ((0+8) + (4+12)) + ((2+10) + (6+14)) + … : halves are added until one is left.
HWY_INLINE float TreeSum(float* lanes) {
  for (int64_t half = kVirtualLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
HWY_INLINE float TreeMax(float* lanes) {
  for (int64_t half = kVirtualLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] = std::max(lanes[i], lanes[i + half]);
  }
  return lanes[0];
}

// Σ over [0, n) of accumulate(sum, i, count), which returns sum + its terms (zeros for
// lanes from count on).
template <typename Accumulate>
HWY_INLINE float LaneSum(int64_t n, const Accumulate& accumulate) {
  const F32Tag d;
  F32 sums[kRegs];
  for (int r = 0; r < kRegs; ++r) sums[r] = hn::Zero(d);
  int64_t i = 0;
  for (; i + kVirtualLanes <= n; i += kVirtualLanes) {
    for (int r = 0; r < kRegs; ++r) sums[r] = accumulate(sums[r], i + r * kLanes, kLanes);
  }
  for (int r = 0; r < kRegs && i < n; ++r, i += kLanes) {
    sums[r] = accumulate(sums[r], i, std::min(kLanes, n - i));
  }
  HWY_ALIGN float lanes[kVirtualLanes];
  for (int r = 0; r < kRegs; ++r) hn::Store(sums[r], d, lanes + r * kLanes);
  return TreeSum(lanes);
}

// each(i, count) over [0, n) in steps of a vector.
template <typename Each>
HWY_INLINE void ForVectors(int64_t n, const Each& each) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) each(i, kLanes);
  if (i < n) each(i, n - i);
}

// exp for every input: Highway's is specified up to 104 and turns NaN into 0.
HWY_INLINE F32 SafeExp(F32 x) {
  const F32Tag d;
  const F32 y = hn::Exp(d, hn::Min(x, hn::Set(d, 104.0f)));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// σ(z) = 1 / (1 + exp(−z)); exact limits at ±inf.
HWY_INLINE F32 Sigmoid(F32 z) {
  const F32Tag d;
  const F32 one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, SafeExp(hn::Neg(z))));
}

}  // namespace HWY_NAMESPACE
}  // namespace tundra
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
