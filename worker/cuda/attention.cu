#include <algorithm>

#include "common/status.h"
#include "worker/cuda/attention.h"
#include "worker/cuda/attention_kernels.h"
#include "worker/cuda/attention_ragged.h"
#include "worker/ops/attention_checks.h"

namespace tundra::cuda {
namespace {

constexpr float kLog2e = 1.44269504088896341f;

size_t Aligned(size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

template <typename T>
size_t PackedBytes(int64_t tokens, int heads, int padded_dim) {
  return Aligned(static_cast<size_t>(tokens * heads * padded_dim) * sizeof(T));
}
size_t StatsBytes(int64_t tokens, int heads) {
  return Aligned(static_cast<size_t>(tokens * heads) * sizeof(TokenStats));
}

template <typename T>
size_t ScratchBytes(int64_t tokens, const AttentionParams& params) {
  const int padded_dim = PaddedHeadDim<T>(params.head_dim);
  return 2 * PackedBytes<T>(tokens, params.num_heads, padded_dim) +
         2 * PackedBytes<T>(tokens, params.num_kv_heads, padded_dim) +
         StatsBytes(tokens, params.num_heads);
}

AttentionResult ResultOf(const View& x, int dim) { return {Output<float>(x), IsWide(x, dim)}; }

// Takes scratch memory for packed operands piece by piece.
template <typename T>
class Packer {
 public:
  Packer(void* scratch, int64_t tokens, int dim)
      : next_(static_cast<std::byte*>(scratch)),
        tokens_(tokens),
        dim_(dim),
        padded_dim_(PaddedHeadDim<T>(dim)) {
    items_.tokens = tokens;
  }

  // The packed copy that Launch will make of x.
  Pointer<const T> Add(const ConstView& x, int heads) {
    const size_t bytes = PackedBytes<T>(tokens_, heads, padded_dim_);
    items_.item[items_.count++] = {Input<float>(x), Floats(bytes), heads, IsWide(x, dim_)};
    return PointerOf(reinterpret_cast<const T*>(Take(bytes)),
                     static_cast<int64_t>(bytes / sizeof(T)));
  }
  Pointer<float> Stats(int heads) {
    const size_t bytes = StatsBytes(tokens_, heads);
    const Pointer<float> stats = Floats(bytes);
    Take(bytes);
    return stats;
  }
  absl::Status Launch(const Queue& queue, const PackedRows& rows) const {
    return LaunchPack(queue, rows, items_, dim_, padded_dim_);
  }
  int padded_dim() const { return padded_dim_; }

 private:
  Pointer<float> Floats(size_t bytes) const {
    return PointerOf(reinterpret_cast<float*>(next_), static_cast<int64_t>(bytes / sizeof(float)));
  }
  std::byte* Take(size_t bytes) {
    std::byte* taken = next_;
    next_ += bytes;
    return taken;
  }

  std::byte* next_;
  int64_t tokens_;
  int dim_, padded_dim_;
  PackItems<T> items_;
};

template <typename T>
AttentionOperands<T> OperandsOf(const PackedRows& rows, const AttentionParams& params,
                                int64_t tokens) {
  AttentionOperands<T> in;
  in.offsets = PointerOf(static_cast<const int32_t*>(rows.offsets.data), rows.num_rows + 1);
  in.num_rows = rows.num_rows;
  in.tokens = static_cast<int>(tokens);
  in.heads = params.num_heads;
  in.group = params.num_heads / params.num_kv_heads;
  in.dim = params.head_dim;
  in.rule = {.scale = params.scale, .scale_log2e = params.scale * kLog2e};
  return in;
}

template <typename T>
absl::Status Forward(const Queue& queue, void* scratch, const PackedRows& rows,
                     const AttentionParams& params, const ConstView& q_TH, const ConstView& k_TG,
                     const ConstView& v_TG, const View& out_TH, const View& lse_TH) {
  Packer<T> packer(scratch, q_TH.rows, params.head_dim);
  AttentionOperands<T> in = OperandsOf<T>(rows, params, q_TH.rows);
  in.q = packer.Add(q_TH, params.num_heads);
  in.k = packer.Add(k_TG, params.num_kv_heads);
  in.v = packer.Add(v_TG, params.num_kv_heads);
  RETURN_IF_ERROR(packer.Launch(queue, rows));
  return LaunchForward(queue.stream, in, packer.padded_dim(), ResultOf(out_TH, in.dim),
                       Output<float>(lse_TH));
}

template <typename T>
absl::Status Backward(const Queue& queue, void* scratch, const PackedRows& rows,
                      const AttentionParams& params, const ConstView& dout_TH,
                      const ConstView& q_TH, const ConstView& k_TG, const ConstView& v_TG,
                      const ConstView& out_TH, const ConstView& lse_TH, const View& dq_TH,
                      const View& dk_TG, const View& dv_TG) {
  Packer<T> packer(scratch, q_TH.rows, params.head_dim);
  AttentionOperands<T> in = OperandsOf<T>(rows, params, q_TH.rows);
  in.q = packer.Add(q_TH, params.num_heads);
  in.dout = packer.Add(dout_TH, params.num_heads);
  in.k = packer.Add(k_TG, params.num_kv_heads);
  in.v = packer.Add(v_TG, params.num_kv_heads);
  RETURN_IF_ERROR(packer.Launch(queue, rows));
  const Pointer<float> stats = packer.Stats(params.num_heads);
  in.stats = stats;
  const int padded_dim = packer.padded_dim();
  RETURN_IF_ERROR(
      LaunchStats(queue.stream, in, padded_dim, Input<float>(out_TH), Input<float>(lse_TH), stats));
  RETURN_IF_ERROR(LaunchQueryGradient(queue.stream, in, padded_dim, ResultOf(dq_TH, in.dim)));
  return LaunchKeyGradient(queue.stream, in, padded_dim, ResultOf(dk_TG, in.dim),
                           ResultOf(dv_TG, in.dim));
}

}  // namespace

size_t AttentionScratchBytes(const RaggedAttention* library, int64_t tokens,
                             const AttentionParams& params) {
  const size_t own = params.precision == Precision::kBF16 ? ScratchBytes<BF16>(tokens, params)
                                                          : ScratchBytes<float>(tokens, params);
  return library == nullptr ? own : std::max(own, library->ScratchBytes(tokens, params));
}

absl::Status AttentionForward(const Queue& queue, RaggedAttention* library, void* scratch,
                              const PackedRows& rows, const AttentionParams& params, ConstView q_TH,
                              ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH) {
  if (q_TH.rows == 0) return absl::OkStatus();
  if (library != nullptr) {
    ASSIGN_OR_RETURN(RaggedPlan * plan,
                     library->PlanFor(Direction::kForward, params, rows, q_TH.rows));
    if (plan != nullptr) {
      return RaggedForward(queue, *plan, scratch, rows, q_TH, k_TG, v_TG, out_TH, lse_TH);
    }
  }
  const auto forward = params.precision == Precision::kBF16 ? Forward<BF16> : Forward<float>;
  return forward(queue, scratch, rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH);
}

absl::Status AttentionBackward(const Queue& queue, RaggedAttention* library, void* scratch,
                               const PackedRows& rows, const AttentionParams& params,
                               ConstView dout_TH, ConstView q_TH, ConstView k_TG, ConstView v_TG,
                               ConstView out_TH, ConstView lse_TH, View dq_TH, View dk_TG,
                               View dv_TG) {
  if (q_TH.rows == 0) return absl::OkStatus();
  if (library != nullptr) {
    ASSIGN_OR_RETURN(RaggedPlan * plan,
                     library->PlanFor(Direction::kBackward, params, rows, q_TH.rows));
    if (plan != nullptr) {
      return RaggedBackward(queue, *plan, scratch, rows, dout_TH, q_TH, k_TG, v_TG, out_TH, lse_TH,
                            dq_TH, dk_TG, dv_TG);
    }
  }
  const auto backward = params.precision == Precision::kBF16 ? Backward<BF16> : Backward<float>;
  return backward(queue, scratch, rows, params, dout_TH, q_TH, k_TG, v_TG, out_TH, lse_TH, dq_TH,
                  dk_TG, dv_TG);
}

size_t CudaOps::AttentionScratchBytes(int64_t t, const AttentionParams& params) const {
  return cuda::AttentionScratchBytes(library_attention_.get(), t, params);
}

absl::Status CudaOps::Attention(Ctx ctx, PackedRows rows, AttentionParams params, ConstView q_TH,
                                ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH) {
  RETURN_IF_ERROR(CheckAttention(rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* scratch,
                   ctx.scratch->AllocateBytes(AttentionScratchBytes(q_TH.rows, params)));
  return AttentionForward(queue, library_attention_.get(), scratch, rows, params, q_TH, k_TG, v_TG,
                          out_TH, lse_TH);
}

absl::Status CudaOps::AttentionBackward(Ctx ctx, PackedRows rows, AttentionParams params,
                                        ConstView dout_TH, ConstView q_TH, ConstView k_TG,
                                        ConstView v_TG, ConstView out_TH, ConstView lse_TH,
                                        View dq_TH, View dk_TG, View dv_TG) {
  RETURN_IF_ERROR(CheckAttention(rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH));
  RETURN_IF_ERROR(CheckAttentionGradients(params, q_TH.rows, dout_TH, dq_TH, dk_TG, dv_TG));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* scratch,
                   ctx.scratch->AllocateBytes(AttentionScratchBytes(q_TH.rows, params)));
  return cuda::AttentionBackward(queue, library_attention_.get(), scratch, rows, params, dout_TH,
                                 q_TH, k_TG, v_TG, out_TH, lse_TH, dq_TH, dk_TG, dv_TG);
}

}  // namespace tundra::cuda
