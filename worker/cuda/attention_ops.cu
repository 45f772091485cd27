// Attention as an operation: checks, scratch, and what the device says of bad offsets. The
// kernels are attention.h's.
#include "worker/cuda/attention.h"
#include "worker/cuda/kernels.h"
#include "worker/ops/attention_checks.h"

namespace tundra::cuda {
namespace {

constexpr int kThreads = 128;

// Offsets rise from 0 to at most `tokens`, in steps of at most max_length.
__global__ void CheckOffsetsKernel(Pointer<const int32_t> offsets, int num_rows, int max_length,
                                   int64_t tokens, Pointer<uint32_t> fault) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i > num_rows) return;
  const int32_t at = offsets[i], before = i == 0 ? 0 : offsets[i - 1];
  const bool right =
      at >= before && at - before <= max_length && at <= tokens && (i > 0 || at == 0);
  if (!right) Report(fault, Fault::kOffsets, i);
}

absl::Status CheckOffsets(const Queue& queue, const PackedRows& rows, int64_t tokens) {
  return Launch<CheckOffsetsKernel>(static_cast<unsigned>(rows.num_rows / kThreads + 1), kThreads,
                                    0, queue.stream, Input<int32_t>(rows.offsets).data,
                                    rows.num_rows, rows.max_length, tokens, queue.fault);
}

}  // namespace

size_t CudaOps::AttentionScratchBytes(int64_t t, const AttentionParams& params) const {
  return cuda::AttentionScratchBytes(t, params);
}

absl::Status CudaOps::Attention(Ctx ctx, PackedRows rows, AttentionParams params, ConstView q_TH,
                                ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH) {
  RETURN_IF_ERROR(CheckAttention(rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  RETURN_IF_ERROR(CheckOffsets(queue, rows, q_TH.rows));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* scratch,
                   ctx.scratch->AllocateBytes(cuda::AttentionScratchBytes(q_TH.rows, params)));
  return AttentionForward(queue.stream, scratch, rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH);
}

absl::Status CudaOps::AttentionBackward(Ctx ctx, PackedRows rows, AttentionParams params,
                                        ConstView dout_TH, ConstView q_TH, ConstView k_TG,
                                        ConstView v_TG, ConstView out_TH, ConstView lse_TH,
                                        View dq_TH, View dk_TG, View dv_TG) {
  RETURN_IF_ERROR(CheckAttention(rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH));
  RETURN_IF_ERROR(CheckAttentionGradients(params, q_TH.rows, dout_TH, dq_TH, dk_TG, dv_TG));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  RETURN_IF_ERROR(CheckOffsets(queue, rows, q_TH.rows));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* scratch,
                   ctx.scratch->AllocateBytes(cuda::AttentionScratchBytes(q_TH.rows, params)));
  return cuda::AttentionBackward(queue.stream, scratch, rows, params, dout_TH, q_TH, k_TG, v_TG,
                                 out_TH, lse_TH, dq_TH, dk_TG, dv_TG);
}

}  // namespace tundra::cuda
