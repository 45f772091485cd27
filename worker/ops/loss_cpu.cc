// Output matrix and cross-entropy in one, a chunk of tokens at a time. Tokens without a
// target take no part in the products: their hidden states are left out of the chunk,
// which changes no bit because products don't depend on the number of rows.
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/ops/loss_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/ops/vector_inl.h"

HWY_BEFORE_NAMESPACE();
namespace tundra {
namespace HWY_NAMESPACE {

// −log softmax(logits)[target]; logits become the gradient, softmax − onehot, when asked.
double CrossEntropyRow(float* logits, int64_t n, int32_t target, bool gradient) {
  const F32Tag d;
  F32 largest = hn::Set(d, logits[0]);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) largest = hn::Max(largest, hn::LoadU(d, logits + i));
  HWY_ALIGN float lanes[kVirtualLanes];
  hn::Store(largest, d, lanes);
  float max = lanes[0];
  for (int64_t j = 1; j < kLanes; ++j) max = std::max(max, lanes[j]);
  for (; i < n; ++i) max = std::max(max, logits[i]);

  const float target_logit = logits[target];
  const F32 shift = hn::Set(d, max);
  const float sum = LaneSum(n, [&](F32 acc, int64_t at, int64_t count) {
    F32 e = SafeExp(hn::Sub(LoadPart(logits + at, count), shift));
    StorePart(e, logits + at, count);
    if (count < kLanes) e = LoadPart(logits + at, count);  // zeros beyond
    return hn::Add(acc, e);
  });
  if (gradient) {
    const F32 scale = hn::Set(d, 1.0f / sum);
    ForVectors(n, [&](int64_t at, int64_t count) {
      StorePart(hn::Mul(LoadPart(logits + at, count), scale), logits + at, count);
    });
    logits[target] -= 1.0f;
  }
  return static_cast<double>(max) - target_logit + std::log(static_cast<double>(sum));
}

}  // namespace HWY_NAMESPACE
}  // namespace tundra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tundra {

HWY_EXPORT(CrossEntropyRow);

namespace {

absl::Status CheckTargets(const int32_t* targets, int64_t t, int64_t v, int64_t count) {
  int64_t found = 0;
  for (int64_t i = 0; i < t; ++i) {
    found += targets[i] >= 0 ? 1 : 0;
    if (targets[i] < -1 || targets[i] >= v) {
      return absl::InvalidArgumentError(
          absl::StrCat("targets_T[", i, "] is ", targets[i], "; it must be in [-1, ", v, ")"));
    }
  }
  if (found != count) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", found, " targets, not ", count));
  }
  return absl::OkStatus();
}

// Tokens [begin, end) of out: the next row of `picked` where there is a target, else zeros.
void Scatter(const int32_t* targets, const ConstView& picked, int64_t begin, int64_t end,
             const View& out) {
  const auto bytes = static_cast<size_t>(out.cols) * sizeof(float);
  for (int64_t i = begin, n = 0; i < end; ++i) {
    if (targets[i] < 0) {
      std::memset(out.row<float>(i), 0, bytes);
    } else {
      std::memcpy(out.row<float>(i), picked.row<float>(n++), bytes);
    }
  }
}

}  // namespace

size_t CpuOps::LossScratchBytes(int64_t chunk_tokens, const FrozenWeight& w_VD_forward,
                                const FrozenWeight& w_VD_backward, Precision precision) const {
  const auto per_token =
      static_cast<size_t>(w_VD_forward.view_NK.rows + 2 * w_VD_forward.view_NK.cols) *
          sizeof(float) +
      sizeof(double) + sizeof(int32_t);
  return static_cast<size_t>(chunk_tokens) * per_token + 6 * Arena::kAlignment +
         std::max(MatmulScratchBytes(chunk_tokens, w_VD_forward, precision),
                  MatmulScratchBytes(chunk_tokens, w_VD_backward, precision));
}

absl::Status CpuOps::CrossEntropy(Ctx ctx, ConstView hidden_TD, const FrozenWeight& w_VD_forward,
                                  const FrozenWeight& w_VD_backward, Precision precision,
                                  const Targets& all, int64_t chunk_tokens, View loss,
                                  View dhidden_TD) {
  const int64_t t = hidden_TD.rows;
  const int64_t d = hidden_TD.cols;
  const int64_t v = w_VD_forward.view_NK.rows;
  const bool gradient = !dhidden_TD.empty();
  RETURN_IF_ERROR(CheckView("hidden_TD", hidden_TD, DType::kF32, t, w_VD_forward.view_NK.cols));
  RETURN_IF_ERROR(CheckVector("targets_T", all.ids_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckVector("loss", loss, DType::kF64, 1));
  if (gradient) RETURN_IF_ERROR(CheckView("dhidden_TD", dhidden_TD, DType::kF32, t, d));
  if (chunk_tokens < 1) return absl::InvalidArgumentError("chunk_tokens must be at least 1");
  const int32_t* targets = all.ids_T.row<int32_t>(0);
  RETURN_IF_ERROR(CheckTargets(targets, t, v, all.count));
  chunk_tokens = std::min(chunk_tokens, std::max<int64_t>(t, 1));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const View logits, ctx.scratch->Allocate(DType::kF32, chunk_tokens, v));
  ASSIGN_OR_RETURN(const View picked, ctx.scratch->Allocate(DType::kF32, chunk_tokens, d));
  ASSIGN_OR_RETURN(const View dpicked, ctx.scratch->Allocate(DType::kF32, chunk_tokens, d));
  ASSIGN_OR_RETURN(const View losses, ctx.scratch->Allocate(DType::kF64, 1, chunk_tokens));
  ASSIGN_OR_RETURN(const View chosen, ctx.scratch->Allocate(DType::kI32, 1, chunk_tokens));

  const auto row = HWY_DYNAMIC_DISPATCH(CrossEntropyRow);
  const auto bytes = static_cast<size_t>(d) * sizeof(float);
  double total = 0;
  for (int64_t next = 0; next < t;) {
    const int64_t begin = next;
    int64_t count = 0;
    for (; next < t && count < chunk_tokens; ++next) {
      if (targets[next] < 0) continue;
      std::memcpy(picked.row<float>(count), hidden_TD.row<float>(next), bytes);
      chosen.row<int32_t>(0)[count++] = targets[next];
    }
    if (count > 0) {
      // oneDNN makes a primitive for each number of rows: a few zero rows keep those few.
      const int64_t rows =
          UsesOneDnn(precision) ? std::min(chunk_tokens, (count + 31) / 32 * 32) : count;
      for (int64_t i = count; i < rows; ++i) std::memset(picked.row<float>(i), 0, bytes);
      RETURN_IF_ERROR(FrozenMatmul(ctx, picked.Rows(0, rows), w_VD_forward, precision, Write::kSet,
                                   logits.Rows(0, rows)));
      ParallelRanges(threads(), count, GrainOf(v), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          losses.row<double>(0)[i] =
              row(logits.row<float>(i), v, chosen.row<int32_t>(0)[i], gradient);
        }
      });
      for (int64_t i = 0; i < count; ++i) total += losses.row<double>(0)[i];
      if (gradient) {
        RETURN_IF_ERROR(FrozenMatmulBackward(ctx, logits.Rows(0, rows), w_VD_backward, precision,
                                             Write::kSet, dpicked.Rows(0, rows)));
      }
    }
    if (gradient) Scatter(targets, dpicked, begin, next, dhidden_TD);
  }
  *loss.row<double>(0) = total;
  return absl::OkStatus();
}

}  // namespace tundra
#endif  // HWY_ONCE
