// Attention through a library's plan: packing of operands, the plan, and results in the
// operation's own layout. As AttentionForward and AttentionBackward (attention.h), whose shapes
// and errors hold here too.
#pragma once

#include "absl/status/status.h"
#include "worker/cuda/kernels.h"
#include "worker/cuda/ragged_attention.h"
#include "worker/cuda/ragged_library.h"
#include "worker/ops/ops.h"

namespace tundra::cuda {

// `scratch`: RaggedScratchBytes (ragged_attention.h) and the plan's workspace. Offsets that are not
// as PackedRows says are reported as Fault::kOffsets, and the plan is given others, within the
// tokens.
absl::Status RaggedForward(const Queue& queue, RaggedPlan& plan, void* scratch,
                           const PackedRows& rows, ConstView q_TH, ConstView k_TG, ConstView v_TG,
                           View out_TH, View lse_TH);
absl::Status RaggedBackward(const Queue& queue, RaggedPlan& plan, void* scratch,
                            const PackedRows& rows, ConstView dout_TH, ConstView q_TH,
                            ConstView k_TG, ConstView v_TG, ConstView out_TH, ConstView lse_TH,
                            View dq_TH, View dk_TG, View dv_TG);

}  // namespace tundra::cuda
