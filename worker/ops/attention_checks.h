// Checks of attention's operands that all backends share. The rows' offsets lie on the
// device: a backend looks at them where it can.
#pragma once

#include "absl/status/status.h"
#include "worker/ops/ops.h"

namespace tundra {

inline constexpr int kMaxHeadDim = 256;

// What Ops::Attention and Ops::AttentionBackward take. Errors: kInvalidArgument, naming the
// operand.
absl::Status CheckAttention(const PackedRows& rows, const AttentionParams& params,
                            const ConstView& q_TH, const ConstView& k_TG, const ConstView& v_TG,
                            const ConstView& out_TH, const ConstView& lse_TH);
absl::Status CheckAttentionGradients(const AttentionParams& params, int64_t tokens,
                                     const ConstView& dout_TH, const ConstView& dq_TH,
                                     const ConstView& dk_TG, const ConstView& dv_TG);

}  // namespace tundra
