// Operations that forward to a backend's and, while a profile is on, time each call and
// count its matrix products. So the engine is profiled on every backend without a timer in
// it: what a call is for follows from the operation, and whether it belongs to the forward
// or the backward from its place between the embedding and the loss.
//
// A profiled call waits for its stream before and after, which a GPU's step must not do:
// steps whose duration counts run with the profile off, and calls then only pass through.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "worker/ops/ops.h"

namespace tundra::bench {

// Where a step's time goes. kWeights, kAllReduce and kOther are no operations': whoever runs
// the step fills them in.
enum class Phase : int {
  kWeights,  // waiting for the base's weights
  kEmbedding,
  kForwardFrozen,
  kForwardAdapters,
  kForwardAttention,
  kForwardTokenwise,
  kLoss,
  kBackwardFrozen,
  kBackwardAdapters,
  kBackwardAttention,
  kBackwardTokenwise,
  kExactSums,
  kAllReduce,
  kOptimizer,
  kOther,  // the rest of the step
};
inline constexpr int kPhases = static_cast<int>(Phase::kOther) + 1;

// "forward_frozen", the key in JSON.
std::string_view PhaseKey(Phase phase);
// "forward: frozen products", for people.
std::string_view PhaseText(Phase phase);

enum class ProductKind : int {
  kFrozenForward,      // y = x·Wᵀ
  kFrozenBackward,     // dx = dy·W
  kOutputForward,      // logits, inside the loss
  kOutputBackward,     // their gradient's way back, inside the loss
  kLoraDown,           // h = x·Aᵀ
  kLoraUp,             // y += s·h·Bᵀ
  kLoraUpBackward,     // dh and dB
  kLoraDownBackward,   // dA and dx
  kLoraDownBackwardA,  // dA alone
  kAttention,          // q·kᵀ and p·v
  kAttentionBackward,  // the same again, dp, dv, dq, dk
};

// "frozen_forward".
std::string_view ProductKey(ProductKind kind);

// Equal shapes cost the same. T tokens (rows of the product), N out, K in of the layer;
// LoRA has its rank as N (down) or K (up). Attention: N the width of q, K that of k, and
// the number of (query, key) pairs of a head.
struct ProductShape {
  ProductKind kind = ProductKind::kFrozenForward;
  int64_t t = 0, n = 0, k = 0;
  int64_t pairs = 0;
  auto operator<=>(const ProductShape&) const = default;

  // Floating-point operations of one call, a multiply-add being two.
  double flops() const;
};

// What a shape took in the profiled steps, and what repeating one of its calls needs.
struct ProductUse {
  int64_t calls = 0;
  // Total and fastest call; 0 for those inside the loss, which are not timed singly.
  double seconds = 0;
  double fastest_seconds = 0;
  // Of frozen products.
  FrozenWeight weight;
  Precision precision = Precision::kF32;
  // Of attention. Offsets are the host's copy.
  AttentionParams attention;
  std::vector<int32_t> offsets;
  int max_length = 0;
};

struct Profile {
  std::array<double, kPhases> seconds{};
  std::map<ProductShape, ProductUse> products;
};

// Used by one thread at a time. Borrows both: `device` is what the engine allocates from.
class ProfiledOps : public Ops {
 public:
  ProfiledOps(Ops* inner, Device* device) : inner_(inner), device_(device) {}

  // Calls from now on count, or pass through.
  void set_profiling(bool on) { profiling_ = on; }
  const Profile& profile() const { return profile_; }

  Device* device() const override { return device_; }
  size_t preferred_logits_bytes() const override { return inner_->preferred_logits_bytes(); }
  bool prepared_serves_both() const override { return inner_->prepared_serves_both(); }
  size_t workspace_bytes() const override { return inner_->workspace_bytes(); }

  absl::Status EmbeddingLookup(Ctx ctx, ConstView tokens_T, ConstView table_VD,
                               View out_TD) override;
  absl::Status GatherRows(Ctx ctx, ConstView x_TD, ConstView index_N, View out_ND) override;
  absl::Status RmsNorm(Ctx ctx, ConstView x_TD, ConstView weight_D, RmsNormParams params, View y_TD,
                       View inv_rms_T) override;
  absl::Status AddRmsNorm(Ctx ctx, ConstView residual_TD, View x_TD, ConstView weight_D,
                          RmsNormParams params, View y_TD, View inv_rms_T) override;
  absl::Status RmsNormBackward(Ctx ctx, ConstView dy_TD, ConstView x_TD, ConstView weight_D,
                               ConstView inv_rms_T, RmsNormParams params, Write write,
                               View dx_TD) override;
  absl::Status Rope(Ctx ctx, Direction direction, ConstView positions_T, ConstView cos_PR,
                    ConstView sin_PR, int num_heads, int head_dim, View x_TH) override;
  absl::Status Glu(Ctx ctx, Activation activation, ConstView gate_TF, ConstView up_TF,
                   View act_TF) override;
  absl::Status GluBackward(Ctx ctx, Activation activation, ConstView dact_TF, ConstView gate_TF,
                           ConstView up_TF, View dgate_TF, View dup_TF) override;
  absl::Status Add(Ctx ctx, ConstView x, View y) override;
  absl::Status Cast(Ctx ctx, ConstView from, View to) override;
  absl::Status Attention(Ctx ctx, PackedRows rows, AttentionParams params, ConstView q_TH,
                         ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH) override;
  absl::Status AttentionBackward(Ctx ctx, PackedRows rows, AttentionParams params,
                                 ConstView dout_TH, ConstView q_TH, ConstView k_TG, ConstView v_TG,
                                 ConstView out_TH, ConstView lse_TH, View dq_TH, View dk_TG,
                                 View dv_TG) override;
  size_t PreparedBytes(int64_t n, int64_t k, DType stored, Direction direction,
                       Precision precision) const override;
  absl::StatusOr<FrozenWeight> PrepareWeight(Ctx ctx, ConstView w_NK, Direction direction,
                                             Precision precision, void* storage,
                                             size_t storage_bytes) override;
  size_t PrepareScratchBytes(int64_t n, int64_t k, DType stored,
                             Precision precision) const override;
  absl::Status FrozenMatmul(Ctx ctx, ConstView x_TK, const FrozenWeight& w_NK, Precision precision,
                            Write write, View y_TN) override;
  absl::Status FrozenMatmulBackward(Ctx ctx, ConstView dy_TN, const FrozenWeight& w_NK,
                                    Precision precision, Write write, View dx_TK) override;
  size_t MatmulScratchBytes(int64_t t, const FrozenWeight& w_NK,
                            Precision precision) const override;
  absl::Status LoraDown(Ctx ctx, ConstView x_TK, ConstView a_RK, View h_TR) override;
  absl::Status LoraUp(Ctx ctx, ConstView h_TR, ConstView b_NR, float scale, View y_TN) override;
  absl::Status LoraUpBackward(Ctx ctx, ConstView dy_TN, ConstView h_TR, ConstView b_NR, float scale,
                              View dh_TR, View db_NR) override;
  absl::Status LoraDownBackward(Ctx ctx, ConstView dh_TR, ConstView x_TK, ConstView a_RK,
                                View da_RK, View dx_TK) override;
  absl::Status Dropout(Ctx ctx, ConstView x_TK, const DropoutKey& key, ConstView data_row_T,
                       ConstView position_T, Write write, View out_TK) override;
  absl::Status CrossEntropy(Ctx ctx, ConstView hidden_TD, const FrozenWeight& w_VD_forward,
                            const FrozenWeight& w_VD_backward, Precision precision,
                            const Targets& targets, int64_t chunk_tokens, View loss,
                            View dhidden_TD) override;
  size_t AttentionScratchBytes(int64_t t, const AttentionParams& params) const override;
  size_t LossScratchBytes(int64_t chunk_tokens, const FrozenWeight& w_VD_forward,
                          const FrozenWeight& w_VD_backward, Precision precision) const override;
  absl::Status AddGradients(Ctx ctx, const Tensors& tensors, ConstView grad, ConstView scales_S,
                            View largest_S, View sum) override;
  absl::Status MeanGradients(Ctx ctx, const Tensors& tensors, ConstView sum, ConstView scales_S,
                             double divisor, View grad, View norm2_S) override;
  absl::Status Scale(Ctx ctx, float factor, View x) override;
  absl::Status AdamW(Ctx ctx, const AdamWParams& params, ConstView grad, View weight, View moment1,
                     View moment2) override;

 private:
  // What an operation is for, in either pass.
  enum class Group { kFrozen, kAdapters, kAttention, kTokenwise };
  Phase InPass(Group group) const;

  // Runs the call and, while profiling, adds its time to the phase and to the product.
  template <typename Call>
  absl::Status Timed(Ctx ctx, Phase phase, ProductUse* product, const Call& call);
  // The entry of a product, to be counted; null when not profiling.
  ProductUse* Product(const ProductShape& shape);
  ProductUse* FrozenProduct(ProductKind kind, int64_t t, const FrozenWeight& weight,
                            Precision precision);
  absl::StatusOr<ProductUse*> AttentionProduct(Ctx ctx, ProductKind kind, const PackedRows& rows,
                                               const AttentionParams& params, int64_t tokens);
  absl::Status CountLoss(const FrozenWeight& forward, const FrozenWeight& backward,
                         Precision precision, const Targets& targets, int64_t chunk_tokens,
                         bool train);
  absl::StatusOr<std::vector<int32_t>> ReadInts(Ctx ctx, ConstView view);

  Ops* const inner_;
  Device* const device_;
  bool profiling_ = false;
  bool backward_ = false;
  Profile profile_;
};

}  // namespace tundra::bench
