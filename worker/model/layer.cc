#include "worker/model/layer.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/status.h"

namespace tundra {
namespace {

uint64_t AlignedFloats(int64_t count) {
  const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(float);
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

int64_t DownColumns(const LoraLayout* lora, int64_t layer, LoraGroup group) {
  if (lora == nullptr) return 0;
  return static_cast<int64_t>(lora->Adapted(layer, group).size()) * lora->rank();
}

// The calls of one layer with the arguments that never change filled in.
class Layer {
 public:
  Layer(const LayerContext& context, const DeviceBatch& batch) : c_(context), batch_(batch) {}

  absl::StatusOr<View> Temporary(int64_t columns) {
    return c_.arena->Allocate(DType::kF32, batch_.tokens, columns);
  }
  absl::Status Linear(LayerTensor module, ConstView x, Write write, View y) {
    return c_.ops->FrozenMatmul(c_.ctx, x, c_.weights->forward[module], c_.precision, write, y);
  }
  absl::Status LinearBackward(LayerTensor module, ConstView dy, Write write, View dx) {
    return c_.ops->FrozenMatmulBackward(c_.ctx, dy, c_.weights->backward[module], c_.precision,
                                        write, dx);
  }
  absl::Status Norm(LayerTensor which, ConstView x, View y, View inv_rms) {
    return c_.ops->RmsNorm(c_.ctx, x, c_.weights->tensors[which], NormParams(), y, inv_rms);
  }
  absl::Status NormBackward(LayerTensor which, ConstView dy, ConstView x, ConstView inv_rms,
                            View dx) {
    return c_.ops->RmsNormBackward(c_.ctx, dy, x, c_.weights->tensors[which], inv_rms, NormParams(),
                                   Write::kAdd, dx);
  }
  absl::Status Rotate(Direction direction, int64_t heads, View x) {
    return c_.ops->Rope(c_.ctx, direction, batch_.positions_T, c_.cos_PR, c_.sin_PR,
                        static_cast<int>(heads), static_cast<int>(c_.config->head_dim), x);
  }
  absl::Status AddNorm(LayerTensor which, ConstView residual, View x, View y, View inv_rms) {
    return c_.ops->AddRmsNorm(c_.ctx, residual, x, c_.weights->tensors[which], NormParams(), y,
                              inv_rms);
  }
  absl::Status Copy(ConstView from, View to) {
    return from.data == to.data ? absl::OkStatus() : c_.ops->Cast(c_.ctx, from, to);
  }

  // mid_TD := the attention's part of x + attention(x): MlpForward adds x.
  absl::Status AttentionForward(ConstView x, LayerActs& acts);
  absl::Status MlpForward(ConstView x, LayerActs& acts, View y);
  // Set *done when nothing below needs a gradient.
  absl::Status MlpBackward(LayerActs& acts, View dx, View grad, bool* done);
  absl::Status AttentionBackward(ConstView x, LayerActs& acts, View dx, View grad);

 private:
  RmsNormParams NormParams() const { return {.epsilon = c_.config->rms_eps}; }
  // Whether this group is the lowest that is adapted.
  bool IsLowest(LoraGroup group) const {
    const LoraLayout* lora = c_.adapter.layout;
    return lora != nullptr && c_.layer == lora->lowest_layer() && group == lora->lowest_group();
  }

  const LayerContext& c_;
  const DeviceBatch& batch_;
};

absl::Status Layer::AttentionForward(ConstView x, LayerActs& acts) {
  ArenaScope scope(c_.arena);
  ASSIGN_OR_RETURN(const View normed, Temporary(c_.config->hidden));
  RETURN_IF_ERROR(Norm(kAttentionNorm, x, normed, acts.inv_rms1_T));
  RETURN_IF_ERROR(Linear(kQ, normed, Write::kSet, acts.q_TH));
  RETURN_IF_ERROR(Linear(kK, normed, Write::kSet, acts.k_TG));
  RETURN_IF_ERROR(Linear(kV, normed, Write::kSet, acts.v_TG));
  const View qkv[] = {acts.q_TH, acts.k_TG, acts.v_TG};
  RETURN_IF_ERROR(LoraGroupForward(c_, batch_, kGroupQkv, normed, qkv, acts.down_TR[kGroupQkv]));
  RETURN_IF_ERROR(Rotate(Direction::kForward, c_.config->heads, acts.q_TH));
  RETURN_IF_ERROR(Rotate(Direction::kForward, c_.config->kv_heads, acts.k_TG));
  RETURN_IF_ERROR(c_.ops->Attention(c_.ctx, batch_.rows, AttentionOf(*c_.config, c_.precision),
                                    acts.q_TH, acts.k_TG, acts.v_TG, acts.attention_TH,
                                    acts.lse_TH));
  RETURN_IF_ERROR(Linear(kO, acts.attention_TH, Write::kSet, acts.mid_TD));
  const View out[] = {acts.mid_TD};
  return LoraGroupForward(c_, batch_, kGroupO, acts.attention_TH, out, acts.down_TR[kGroupO]);
}

absl::Status Layer::MlpForward(ConstView x, LayerActs& acts, View y) {
  ArenaScope scope(c_.arena);
  ASSIGN_OR_RETURN(const View normed, Temporary(c_.config->hidden));
  RETURN_IF_ERROR(AddNorm(kMlpNorm, x, acts.mid_TD, normed, acts.inv_rms2_T));
  RETURN_IF_ERROR(Linear(kGate, normed, Write::kSet, acts.gate_TF));
  RETURN_IF_ERROR(Linear(kUp, normed, Write::kSet, acts.up_TF));
  const View gate_up[] = {acts.gate_TF, acts.up_TF};
  RETURN_IF_ERROR(
      LoraGroupForward(c_, batch_, kGroupGateUp, normed, gate_up, acts.down_TR[kGroupGateUp]));
  ASSIGN_OR_RETURN(const View act, Temporary(c_.config->intermediate));
  RETURN_IF_ERROR(c_.ops->Glu(c_.ctx, c_.config->activation, acts.gate_TF, acts.up_TF, act));
  RETURN_IF_ERROR(Copy(acts.mid_TD, y));
  RETURN_IF_ERROR(Linear(kDown, act, Write::kAdd, y));
  const View out[] = {y};
  return LoraGroupForward(c_, batch_, kGroupDown, act, out, acts.down_TR[kGroupDown]);
}

absl::Status Layer::MlpBackward(LayerActs& acts, View dx, View grad, bool* done) {
  ArenaScope scope(c_.arena);
  *done = IsLowest(kGroupDown);
  ASSIGN_OR_RETURN(const View act, Temporary(c_.config->intermediate));
  RETURN_IF_ERROR(c_.ops->Glu(c_.ctx, c_.config->activation, acts.gate_TF, acts.up_TF, act));
  ASSIGN_OR_RETURN(const View dact, Temporary(c_.config->intermediate));
  if (!*done) RETURN_IF_ERROR(LinearBackward(kDown, dx, Write::kSet, dact));
  const View dy[] = {dx};
  RETURN_IF_ERROR(LoraGroupBackward(c_, batch_, kGroupDown, act, acts.down_TR[kGroupDown], dy,
                                    *done ? View::None() : dact, grad));
  if (*done) return absl::OkStatus();
  // The gradients take the places of dact and up, which nothing needs any more.
  const View dgate = dact, dup = acts.up_TF;
  RETURN_IF_ERROR(c_.ops->GluBackward(c_.ctx, c_.config->activation, dact, acts.gate_TF, acts.up_TF,
                                      dgate, dup));
  *done = IsLowest(kGroupGateUp);
  ASSIGN_OR_RETURN(const View normed, Temporary(c_.config->hidden));
  RETURN_IF_ERROR(Norm(kMlpNorm, acts.mid_TD, normed, acts.inv_rms2_T));
  ASSIGN_OR_RETURN(const View dnormed, Temporary(c_.config->hidden));
  if (!*done) {
    RETURN_IF_ERROR(LinearBackward(kGate, dgate, Write::kSet, dnormed));
    RETURN_IF_ERROR(LinearBackward(kUp, dup, Write::kAdd, dnormed));
  }
  const View dgate_up[] = {dgate, dup};
  RETURN_IF_ERROR(LoraGroupBackward(c_, batch_, kGroupGateUp, normed, acts.down_TR[kGroupGateUp],
                                    dgate_up, *done ? View::None() : dnormed, grad));
  if (*done) return absl::OkStatus();
  return NormBackward(kMlpNorm, dnormed, acts.mid_TD, acts.inv_rms2_T, dx);
}

absl::Status Layer::AttentionBackward(ConstView x, LayerActs& acts, View dx, View grad) {
  ArenaScope scope(c_.arena);
  bool done = IsLowest(kGroupO);
  ASSIGN_OR_RETURN(const View dattention, Temporary(c_.config->q_width()));
  if (!done) RETURN_IF_ERROR(LinearBackward(kO, dx, Write::kSet, dattention));
  const View dy[] = {dx};
  RETURN_IF_ERROR(LoraGroupBackward(c_, batch_, kGroupO, acts.attention_TH, acts.down_TR[kGroupO],
                                    dy, done ? View::None() : dattention, grad));
  if (done) return absl::OkStatus();
  ASSIGN_OR_RETURN(const View dq, Temporary(c_.config->q_width()));
  ASSIGN_OR_RETURN(const View dk, Temporary(c_.config->kv_width()));
  ASSIGN_OR_RETURN(const View dv, Temporary(c_.config->kv_width()));
  RETURN_IF_ERROR(c_.ops->AttentionBackward(
      c_.ctx, batch_.rows, AttentionOf(*c_.config, c_.precision), dattention, acts.q_TH, acts.k_TG,
      acts.v_TG, acts.attention_TH, acts.lse_TH, dq, dk, dv));
  RETURN_IF_ERROR(Rotate(Direction::kBackward, c_.config->heads, dq));
  RETURN_IF_ERROR(Rotate(Direction::kBackward, c_.config->kv_heads, dk));
  done = IsLowest(kGroupQkv);
  ASSIGN_OR_RETURN(const View normed, Temporary(c_.config->hidden));
  RETURN_IF_ERROR(Norm(kAttentionNorm, x, normed, acts.inv_rms1_T));
  ASSIGN_OR_RETURN(const View dnormed, Temporary(c_.config->hidden));
  if (!done) {
    RETURN_IF_ERROR(LinearBackward(kQ, dq, Write::kSet, dnormed));
    RETURN_IF_ERROR(LinearBackward(kK, dk, Write::kAdd, dnormed));
    RETURN_IF_ERROR(LinearBackward(kV, dv, Write::kAdd, dnormed));
  }
  const View dqkv[] = {dq, dk, dv};
  RETURN_IF_ERROR(LoraGroupBackward(c_, batch_, kGroupQkv, normed, acts.down_TR[kGroupQkv], dqkv,
                                    done ? View::None() : dnormed, grad));
  if (done) return absl::OkStatus();
  return NormBackward(kAttentionNorm, dnormed, x, acts.inv_rms1_T, dx);
}

}  // namespace

AttentionParams AttentionOf(const ModelConfig& config, Precision precision) {
  return {.num_heads = static_cast<int>(config.heads),
          .num_kv_heads = static_cast<int>(config.kv_heads),
          .head_dim = static_cast<int>(config.head_dim),
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim))),
          .precision = precision};
}

absl::StatusOr<LayerActs> AllocateActs(const LayerContext& context, int64_t tokens) {
  const ModelConfig& config = *context.config;
  LayerActs acts;
  const auto take = [&](View& view, int64_t columns) -> absl::Status {
    ASSIGN_OR_RETURN(view, context.arena->Allocate(DType::kF32, tokens, columns));
    return absl::OkStatus();
  };
  const auto take_vector = [&](View& view) -> absl::Status {
    ASSIGN_OR_RETURN(view, context.arena->Allocate(DType::kF32, 1, tokens));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(take_vector(acts.inv_rms1_T));
  RETURN_IF_ERROR(take_vector(acts.inv_rms2_T));
  RETURN_IF_ERROR(take(acts.q_TH, config.q_width()));
  RETURN_IF_ERROR(take(acts.k_TG, config.kv_width()));
  RETURN_IF_ERROR(take(acts.v_TG, config.kv_width()));
  RETURN_IF_ERROR(take(acts.attention_TH, config.q_width()));
  RETURN_IF_ERROR(take(acts.lse_TH, config.heads));
  RETURN_IF_ERROR(take(acts.mid_TD, config.hidden));
  RETURN_IF_ERROR(take(acts.gate_TF, config.intermediate));
  RETURN_IF_ERROR(take(acts.up_TF, config.intermediate));
  for (int group = 0; group < kLoraGroups; ++group) {
    const int64_t columns =
        DownColumns(context.adapter.layout, context.layer, static_cast<LoraGroup>(group));
    if (columns > 0) RETURN_IF_ERROR(take(acts.down_TR[static_cast<size_t>(group)], columns));
  }
  return acts;
}

uint64_t LayerActsBytes(const ModelConfig& config, const LoraLayout* lora, int64_t layer,
                        int64_t tokens) {
  uint64_t total = 2 * AlignedFloats(tokens);
  for (const int64_t columns :
       {config.q_width(), config.q_width(), config.kv_width(), config.kv_width(), config.heads,
        config.hidden, config.intermediate, config.intermediate}) {
    total += AlignedFloats(tokens * columns);
  }
  for (int group = 0; group < kLoraGroups; ++group) {
    total += AlignedFloats(tokens * DownColumns(lora, layer, static_cast<LoraGroup>(group)));
  }
  return total;
}

uint64_t LayerTemporaryBytes(const ModelConfig& config, const LoraLayout* lora, int64_t tokens) {
  const int64_t down = lora == nullptr ? 0 : 3 * lora->rank();
  const bool dropping = lora != nullptr && lora->spec().dropout > 0;
  const uint64_t mlp = 2 * AlignedFloats(tokens * config.intermediate) +
                       2 * AlignedFloats(tokens * config.hidden) +
                       (dropping ? 2 * AlignedFloats(tokens * config.intermediate) : 0);
  const int64_t widest = std::max(config.hidden, config.q_width());
  const uint64_t attention = 2 * AlignedFloats(tokens * config.q_width()) +
                             2 * AlignedFloats(tokens * config.kv_width()) +
                             2 * AlignedFloats(tokens * config.hidden) +
                             (dropping ? 2 * AlignedFloats(tokens * widest) : 0);
  return std::max(mlp, attention) + AlignedFloats(tokens * down);
}

absl::Status LayerForward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                          LayerActs& acts, View y_TD) {
  Layer layer(context, batch);
  RETURN_IF_ERROR(layer.AttentionForward(x_TD, acts));
  return layer.MlpForward(x_TD, acts, y_TD);
}

absl::Status LayerBackward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                           LayerActs& acts, View dx_TD, View grad) {
  Layer layer(context, batch);
  bool done = false;
  RETURN_IF_ERROR(layer.MlpBackward(acts, dx_TD, grad, &done));
  if (done) return absl::OkStatus();
  return layer.AttentionBackward(x_TD, acts, dx_TD, grad);
}

}  // namespace tundra
