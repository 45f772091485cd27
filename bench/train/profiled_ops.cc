#include "bench/train/profiled_ops.h"

#include <algorithm>
#include <chrono>

#include "common/status.h"

namespace tundra::bench {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

std::string_view PhaseKey(Phase phase) {
  constexpr std::string_view kKeys[kPhases] = {"weights",
                                               "embedding",
                                               "forward_frozen",
                                               "forward_adapters",
                                               "forward_attention",
                                               "forward_tokenwise",
                                               "loss",
                                               "backward_frozen",
                                               "backward_adapters",
                                               "backward_attention",
                                               "backward_tokenwise",
                                               "exact_sums",
                                               "all_reduce",
                                               "optimizer",
                                               "other"};
  return kKeys[static_cast<int>(phase)];
}

std::string_view PhaseText(Phase phase) {
  constexpr std::string_view kTexts[kPhases] = {"waiting for weights",
                                                "embedding",
                                                "forward: frozen products",
                                                "forward: adapters",
                                                "forward: attention",
                                                "forward: norms, rotary, SwiGLU",
                                                "loss with the output matrix",
                                                "backward: frozen products",
                                                "backward: adapters",
                                                "backward: attention",
                                                "backward: norms, rotary, SwiGLU",
                                                "exact sums",
                                                "all-reduce",
                                                "clipping and optimizer",
                                                "everything else"};
  return kTexts[static_cast<int>(phase)];
}

std::string_view ProductKey(ProductKind kind) {
  constexpr std::string_view kKeys[] = {
      "frozen_forward",   "frozen_backward",    "output_forward",
      "output_backward",  "lora_down",          "lora_up",
      "lora_up_backward", "lora_down_backward", "lora_down_backward_a",
      "attention",        "attention_backward"};
  return kKeys[static_cast<int>(kind)];
}

double ProductShape::flops() const {
  const double one = 2.0 * static_cast<double>(t) * static_cast<double>(n) * static_cast<double>(k);
  // q·kᵀ of all heads; the other products over the pairs are as large.
  const double scores = 2.0 * static_cast<double>(pairs) * static_cast<double>(n);
  switch (kind) {
    case ProductKind::kFrozenForward:
    case ProductKind::kFrozenBackward:
    case ProductKind::kOutputForward:
    case ProductKind::kOutputBackward:
    case ProductKind::kLoraDown:
    case ProductKind::kLoraUp:
    case ProductKind::kLoraDownBackwardA:
      return one;
    case ProductKind::kLoraUpBackward:
    case ProductKind::kLoraDownBackward:
      return 2 * one;
    case ProductKind::kAttention:
      return 2 * scores;
    case ProductKind::kAttentionBackward:
      return 5 * scores;
  }
  return 0;
}

Phase ProfiledOps::InPass(Group group) const {
  const Phase first = backward_ ? Phase::kBackwardFrozen : Phase::kForwardFrozen;
  return static_cast<Phase>(static_cast<int>(first) + static_cast<int>(group));
}

template <typename Call>
absl::Status ProfiledOps::Timed(Ctx ctx, Phase phase, ProductUse* product, const Call& call) {
  if (!profiling_) return call();
  RETURN_IF_ERROR(device_->Synchronize(ctx));
  const Clock::time_point start = Clock::now();
  RETURN_IF_ERROR(call());
  RETURN_IF_ERROR(device_->Synchronize(ctx));
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  profile_.seconds[static_cast<size_t>(phase)] += seconds;
  if (product != nullptr) {
    product->seconds += seconds;
    product->fastest_seconds =
        product->calls == 1 ? seconds : std::min(product->fastest_seconds, seconds);
  }
  return absl::OkStatus();
}

ProductUse* ProfiledOps::Product(const ProductShape& shape) {
  if (!profiling_) return nullptr;
  ProductUse& use = profile_.products[shape];
  ++use.calls;
  return &use;
}

ProductUse* ProfiledOps::FrozenProduct(ProductKind kind, int64_t t, const FrozenWeight& weight,
                                       Precision precision) {
  ProductUse* use = Product({kind, t, weight.view_NK.rows, weight.view_NK.cols});
  if (use == nullptr) return nullptr;
  use->weight = weight;
  use->precision = precision;
  return use;
}

absl::StatusOr<std::vector<int32_t>> ProfiledOps::ReadInts(Ctx ctx, ConstView view) {
  std::vector<int32_t> values(static_cast<size_t>(view.size()));
  RETURN_IF_ERROR(device_->CopyOut(ctx, values.data(), view.data, view.bytes()));
  RETURN_IF_ERROR(device_->Synchronize(ctx));
  return values;
}

absl::StatusOr<ProductUse*> ProfiledOps::AttentionProduct(Ctx ctx, ProductKind kind,
                                                          const PackedRows& rows,
                                                          const AttentionParams& params,
                                                          int64_t tokens) {
  if (!profiling_) return nullptr;
  ASSIGN_OR_RETURN(std::vector<int32_t> offsets, ReadInts(ctx, rows.offsets));
  int64_t pairs = 0;
  for (int i = 0; i < rows.num_rows; ++i) {
    const int64_t length = offsets[static_cast<size_t>(i) + 1] - offsets[static_cast<size_t>(i)];
    pairs += length * (length + 1) / 2;  // causal
  }
  ProductUse* use = Product({kind, tokens, int64_t{params.num_heads} * params.head_dim,
                             int64_t{params.num_kv_heads} * params.head_dim, pairs});
  use->attention = params;
  use->offsets = std::move(offsets);
  use->max_length = rows.max_length;
  return use;
}

// The loss picks the tokens that have a target and takes them through the output matrix
// chunk by chunk.
absl::Status ProfiledOps::CountLoss(const FrozenWeight& forward, const FrozenWeight& backward,
                                    Precision precision, const Targets& targets,
                                    int64_t chunk_tokens, bool train) {
  if (!profiling_) return absl::OkStatus();
  int64_t left = targets.count;
  for (; left > 0; left -= chunk_tokens) {
    const int64_t rows = std::min(left, chunk_tokens);
    FrozenProduct(ProductKind::kOutputForward, rows, forward, precision);
    if (train) FrozenProduct(ProductKind::kOutputBackward, rows, backward, precision);
  }
  return absl::OkStatus();
}

// ---- the operations -----------------------------------------------------------------

absl::Status ProfiledOps::EmbeddingLookup(Ctx ctx, ConstView tokens_T, ConstView table_VD,
                                          View out_TD) {
  backward_ = false;
  return Timed(ctx, Phase::kEmbedding, nullptr,
               [&] { return inner_->EmbeddingLookup(ctx, tokens_T, table_VD, out_TD); });
}

absl::Status ProfiledOps::GatherRows(Ctx ctx, ConstView x_TD, ConstView index_N, View out_ND) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr,
               [&] { return inner_->GatherRows(ctx, x_TD, index_N, out_ND); });
}

absl::Status ProfiledOps::RmsNorm(Ctx ctx, ConstView x_TD, ConstView weight_D, RmsNormParams params,
                                  View y_TD, View inv_rms_T) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr,
               [&] { return inner_->RmsNorm(ctx, x_TD, weight_D, params, y_TD, inv_rms_T); });
}

absl::Status ProfiledOps::AddRmsNorm(Ctx ctx, ConstView residual_TD, View x_TD, ConstView weight_D,
                                     RmsNormParams params, View y_TD, View inv_rms_T) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr, [&] {
    return inner_->AddRmsNorm(ctx, residual_TD, x_TD, weight_D, params, y_TD, inv_rms_T);
  });
}

absl::Status ProfiledOps::RmsNormBackward(Ctx ctx, ConstView dy_TD, ConstView x_TD,
                                          ConstView weight_D, ConstView inv_rms_T,
                                          RmsNormParams params, Write write, View dx_TD) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr, [&] {
    return inner_->RmsNormBackward(ctx, dy_TD, x_TD, weight_D, inv_rms_T, params, write, dx_TD);
  });
}

absl::Status ProfiledOps::Rope(Ctx ctx, Direction direction, ConstView positions_T,
                               ConstView cos_PR, ConstView sin_PR, int num_heads, int head_dim,
                               View x_TH) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr, [&] {
    return inner_->Rope(ctx, direction, positions_T, cos_PR, sin_PR, num_heads, head_dim, x_TH);
  });
}

absl::Status ProfiledOps::Glu(Ctx ctx, Activation activation, ConstView gate_TF, ConstView up_TF,
                              View act_TF) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr,
               [&] { return inner_->Glu(ctx, activation, gate_TF, up_TF, act_TF); });
}

absl::Status ProfiledOps::GluBackward(Ctx ctx, Activation activation, ConstView dact_TF,
                                      ConstView gate_TF, ConstView up_TF, View dgate_TF,
                                      View dup_TF) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr, [&] {
    return inner_->GluBackward(ctx, activation, dact_TF, gate_TF, up_TF, dgate_TF, dup_TF);
  });
}

absl::Status ProfiledOps::Add(Ctx ctx, ConstView x, View y) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr, [&] { return inner_->Add(ctx, x, y); });
}

absl::Status ProfiledOps::Cast(Ctx ctx, ConstView from, View to) {
  return Timed(ctx, InPass(Group::kTokenwise), nullptr,
               [&] { return inner_->Cast(ctx, from, to); });
}

absl::Status ProfiledOps::Attention(Ctx ctx, PackedRows rows, AttentionParams params,
                                    ConstView q_TH, ConstView k_TG, ConstView v_TG, View out_TH,
                                    View lse_TH) {
  ASSIGN_OR_RETURN(ProductUse * product,
                   AttentionProduct(ctx, ProductKind::kAttention, rows, params, q_TH.rows));
  return Timed(ctx, InPass(Group::kAttention), product, [&] {
    return inner_->Attention(ctx, rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH);
  });
}

absl::Status ProfiledOps::AttentionBackward(Ctx ctx, PackedRows rows, AttentionParams params,
                                            ConstView dout_TH, ConstView q_TH, ConstView k_TG,
                                            ConstView v_TG, ConstView out_TH, ConstView lse_TH,
                                            View dq_TH, View dk_TG, View dv_TG) {
  ASSIGN_OR_RETURN(ProductUse * product,
                   AttentionProduct(ctx, ProductKind::kAttentionBackward, rows, params, q_TH.rows));
  return Timed(ctx, InPass(Group::kAttention), product, [&] {
    return inner_->AttentionBackward(ctx, rows, params, dout_TH, q_TH, k_TG, v_TG, out_TH, lse_TH,
                                     dq_TH, dk_TG, dv_TG);
  });
}

size_t ProfiledOps::PreparedBytes(int64_t n, int64_t k, DType stored, Direction direction,
                                  Precision precision) const {
  return inner_->PreparedBytes(n, k, stored, direction, precision);
}

absl::StatusOr<FrozenWeight> ProfiledOps::PrepareWeight(Ctx ctx, ConstView w_NK,
                                                        Direction direction, Precision precision,
                                                        void* storage, size_t storage_bytes) {
  return inner_->PrepareWeight(ctx, w_NK, direction, precision, storage, storage_bytes);
}

size_t ProfiledOps::PrepareScratchBytes(int64_t n, int64_t k, DType stored,
                                        Precision precision) const {
  return inner_->PrepareScratchBytes(n, k, stored, precision);
}

absl::Status ProfiledOps::FrozenMatmul(Ctx ctx, ConstView x_TK, const FrozenWeight& w_NK,
                                       Precision precision, Write write, View y_TN) {
  ProductUse* product = FrozenProduct(ProductKind::kFrozenForward, x_TK.rows, w_NK, precision);
  return Timed(ctx, InPass(Group::kFrozen), product,
               [&] { return inner_->FrozenMatmul(ctx, x_TK, w_NK, precision, write, y_TN); });
}

absl::Status ProfiledOps::FrozenMatmulBackward(Ctx ctx, ConstView dy_TN, const FrozenWeight& w_NK,
                                               Precision precision, Write write, View dx_TK) {
  ProductUse* product = FrozenProduct(ProductKind::kFrozenBackward, dy_TN.rows, w_NK, precision);
  return Timed(ctx, InPass(Group::kFrozen), product, [&] {
    return inner_->FrozenMatmulBackward(ctx, dy_TN, w_NK, precision, write, dx_TK);
  });
}

size_t ProfiledOps::MatmulScratchBytes(int64_t t, const FrozenWeight& w_NK,
                                       Precision precision) const {
  return inner_->MatmulScratchBytes(t, w_NK, precision);
}

absl::Status ProfiledOps::LoraDown(Ctx ctx, ConstView x_TK, ConstView a_RK, View h_TR) {
  ProductUse* product = Product({ProductKind::kLoraDown, x_TK.rows, a_RK.rows, x_TK.cols});
  return Timed(ctx, InPass(Group::kAdapters), product,
               [&] { return inner_->LoraDown(ctx, x_TK, a_RK, h_TR); });
}

absl::Status ProfiledOps::LoraUp(Ctx ctx, ConstView h_TR, ConstView b_NR, float scale, View y_TN) {
  ProductUse* product = Product({ProductKind::kLoraUp, h_TR.rows, b_NR.rows, b_NR.cols});
  return Timed(ctx, InPass(Group::kAdapters), product,
               [&] { return inner_->LoraUp(ctx, h_TR, b_NR, scale, y_TN); });
}

absl::Status ProfiledOps::LoraUpBackward(Ctx ctx, ConstView dy_TN, ConstView h_TR, ConstView b_NR,
                                         float scale, View dh_TR, View db_NR) {
  ProductUse* product = Product({ProductKind::kLoraUpBackward, dy_TN.rows, b_NR.rows, b_NR.cols});
  return Timed(ctx, InPass(Group::kAdapters), product,
               [&] { return inner_->LoraUpBackward(ctx, dy_TN, h_TR, b_NR, scale, dh_TR, db_NR); });
}

absl::Status ProfiledOps::LoraDownBackward(Ctx ctx, ConstView dh_TR, ConstView x_TK, ConstView a_RK,
                                           View da_RK, View dx_TK) {
  const ProductKind kind =
      dx_TK.empty() ? ProductKind::kLoraDownBackwardA : ProductKind::kLoraDownBackward;
  ProductUse* product = Product({kind, x_TK.rows, a_RK.rows, x_TK.cols});
  return Timed(ctx, InPass(Group::kAdapters), product,
               [&] { return inner_->LoraDownBackward(ctx, dh_TR, x_TK, a_RK, da_RK, dx_TK); });
}

absl::Status ProfiledOps::Dropout(Ctx ctx, ConstView x_TK, const DropoutKey& key,
                                  ConstView data_row_T, ConstView position_T, Write write,
                                  View out_TK) {
  return Timed(ctx, InPass(Group::kAdapters), nullptr, [&] {
    return inner_->Dropout(ctx, x_TK, key, data_row_T, position_T, write, out_TK);
  });
}

absl::Status ProfiledOps::CrossEntropy(Ctx ctx, ConstView hidden_TD,
                                       const FrozenWeight& w_VD_forward,
                                       const FrozenWeight& w_VD_backward, Precision precision,
                                       const Targets& targets, int64_t chunk_tokens, View loss,
                                       View dhidden_TD) {
  RETURN_IF_ERROR(CountLoss(w_VD_forward, w_VD_backward, precision, targets, chunk_tokens,
                            !dhidden_TD.empty()));
  backward_ = true;
  return Timed(ctx, Phase::kLoss, nullptr, [&] {
    return inner_->CrossEntropy(ctx, hidden_TD, w_VD_forward, w_VD_backward, precision, targets,
                                chunk_tokens, loss, dhidden_TD);
  });
}

size_t ProfiledOps::AttentionScratchBytes(int64_t t, const AttentionParams& params) const {
  return inner_->AttentionScratchBytes(t, params);
}

size_t ProfiledOps::LossScratchBytes(int64_t chunk_tokens, const FrozenWeight& w_VD_forward,
                                     const FrozenWeight& w_VD_backward, Precision precision) const {
  return inner_->LossScratchBytes(chunk_tokens, w_VD_forward, w_VD_backward, precision);
}

absl::Status ProfiledOps::AddGradients(Ctx ctx, const Tensors& tensors, ConstView grad,
                                       ConstView scales_S, View largest_S, View sum) {
  return Timed(ctx, Phase::kExactSums, nullptr,
               [&] { return inner_->AddGradients(ctx, tensors, grad, scales_S, largest_S, sum); });
}

absl::Status ProfiledOps::MeanGradients(Ctx ctx, const Tensors& tensors, ConstView sum,
                                        ConstView scales_S, double divisor, View grad,
                                        View norm2_S) {
  return Timed(ctx, Phase::kOptimizer, nullptr, [&] {
    return inner_->MeanGradients(ctx, tensors, sum, scales_S, divisor, grad, norm2_S);
  });
}

absl::Status ProfiledOps::Scale(Ctx ctx, float factor, View x) {
  return Timed(ctx, Phase::kOptimizer, nullptr, [&] { return inner_->Scale(ctx, factor, x); });
}

absl::Status ProfiledOps::AdamW(Ctx ctx, const AdamWParams& params, ConstView grad, View weight,
                                View moment1, View moment2) {
  return Timed(ctx, Phase::kOptimizer, nullptr,
               [&] { return inner_->AdamW(ctx, params, grad, weight, moment1, moment2); });
}

}  // namespace tundra::bench
