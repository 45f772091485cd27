#include "worker/ops/attention_checks.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/ops/checks.h"

namespace tundra {

absl::Status CheckAttention(const PackedRows& rows, const AttentionParams& params,
                            const ConstView& q_TH, const ConstView& k_TG, const ConstView& v_TG,
                            const ConstView& out_TH, const ConstView& lse_TH) {
  const AttentionParams& p = params;
  if (p.num_heads < 1 || p.num_kv_heads < 1 || p.num_heads % p.num_kv_heads != 0 ||
      p.head_dim < 1 || p.head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(
        absl::StrCat(p.num_heads, " heads over ", p.num_kv_heads, " kv heads of ", p.head_dim,
                     " dimensions: kv heads must divide heads and a head have 1 to ", kMaxHeadDim));
  }
  if (rows.num_rows < 0) {
    return absl::InvalidArgumentError(absl::StrCat(rows.num_rows, " rows; 0 or more are needed"));
  }
  const int64_t tokens = q_TH.rows;
  const int64_t wide = static_cast<int64_t>(p.num_heads) * p.head_dim;
  const int64_t narrow = static_cast<int64_t>(p.num_kv_heads) * p.head_dim;
  RETURN_IF_ERROR(CheckView("q_TH", q_TH, DType::kF32, tokens, wide));
  RETURN_IF_ERROR(CheckView("k_TG", k_TG, DType::kF32, tokens, narrow));
  RETURN_IF_ERROR(CheckView("v_TG", v_TG, DType::kF32, tokens, narrow));
  RETURN_IF_ERROR(CheckView("out_TH", out_TH, DType::kF32, tokens, wide));
  RETURN_IF_ERROR(CheckView("lse_TH", lse_TH, DType::kF32, tokens, p.num_heads));
  return CheckVector("rows.offsets", rows.offsets, DType::kI32, rows.num_rows + 1);
}

absl::Status CheckAttentionGradients(const AttentionParams& params, int64_t tokens,
                                     const ConstView& dout_TH, const ConstView& dq_TH,
                                     const ConstView& dk_TG, const ConstView& dv_TG) {
  const int64_t wide = static_cast<int64_t>(params.num_heads) * params.head_dim;
  const int64_t narrow = static_cast<int64_t>(params.num_kv_heads) * params.head_dim;
  RETURN_IF_ERROR(CheckView("dout_TH", dout_TH, DType::kF32, tokens, wide));
  RETURN_IF_ERROR(CheckView("dq_TH", dq_TH, DType::kF32, tokens, wide));
  RETURN_IF_ERROR(CheckView("dk_TG", dk_TG, DType::kF32, tokens, narrow));
  return CheckView("dv_TG", dv_TG, DType::kF32, tokens, narrow);
}

}  // namespace tundra
