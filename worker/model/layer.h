// One decoder layer, forward and backward by hand, for one micro-batch.
//
//   xn = rmsnorm(x);  q, k, v = linear(xn);  rotate q, k;  a = attention(q, k, v)
//   m  = x + linear_o(a)
//   mn = rmsnorm(m);  g, u = linear(mn);     f = activation(g) · u
//   y  = m + linear_down(f)
//
// Each linear may carry a low-rank adapter. What backward needs and is dear to
// compute again is kept in LayerActs; the norms' outputs and f are computed anew.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/model/config.h"
#include "worker/model/lora.h"
#include "worker/model/weights.h"
#include "worker/ops/ops.h"

namespace tundra {

// An adapter on the device: one flat f32 array of layout->parameters() elements.
struct AdapterView {
  // Null: no adapter, the base alone.
  const LoraLayout* layout = nullptr;
  ConstView weights;

  // The tensor as a matrix.
  ConstView Tensor(int index) const;
};

// A micro-batch on the device.
struct DeviceBatch {
  ConstView tokens_T, positions_T, data_rows_T;
  Targets targets;
  PackedRows rows;
  int64_t tokens = 0;  // T, padded
};

// What all layers of a pass have in common, and which layer this is.
struct LayerContext {
  Ops* ops = nullptr;
  Ctx ctx;
  Arena* arena = nullptr;
  const ModelConfig* config = nullptr;
  Precision precision = Precision::kF32;
  // [positions, head_dim / 2].
  ConstView cos_PR, sin_PR;
  AdapterView adapter;
  // probability 0: no dropout. layer and module are set by the layer.
  DropoutKey dropout;
  const UnitView* weights = nullptr;
  int64_t layer = 0;
};

// What a layer's forward leaves for its backward.
struct LayerActs {
  View inv_rms1_T, q_TH, k_TG, v_TG, attention_TH, lse_TH, mid_TD, inv_rms2_T, gate_TF, up_TF;
  // x·Aᵀ of each group of adapted modules, [T, modules · r]; empty where none.
  std::array<View, kLoraGroups> down_TR;
};

// A layer's attention.
AttentionParams AttentionOf(const ModelConfig& config, Precision precision);

// Takes a layer's activations from the arena. Errors: kResourceExhausted.
absl::StatusOr<LayerActs> AllocateActs(const LayerContext& context, int64_t tokens);
// What AllocateActs takes, in bytes.
uint64_t LayerActsBytes(const ModelConfig& config, const LoraLayout* lora, int64_t layer,
                        int64_t tokens);
// What LayerForward and LayerBackward take from the arena for themselves, at most.
uint64_t LayerTemporaryBytes(const ModelConfig& config, const LoraLayout* lora, int64_t tokens);

// y_TD := layer(x_TD). y may be x.
absl::Status LayerForward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                          LayerActs& acts, View y_TD);

// dx_TD holds the gradient of y and becomes that of x; grad (flat, the layer's
// adapter tensors in order) += theirs. Uses up acts. In the lowest adapted layer it
// stops at the lowest adapted group, and dx is unspecified then.
absl::Status LayerBackward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                           LayerActs& acts, View dx_TD, View grad);

// ---- the adapters of one group of modules (lora_apply.cc) ---------------------------

// For each adapted module i of the group: y[i] += s · (dropout(x) · A_iᵀ) · B_iᵀ, and
// down_TR := dropout(x) · Aᵀ of all. y: by the place among the group's modules (q k v |
// o | gate up | down), adapted or not.
absl::Status LoraGroupForward(const LayerContext& context, const DeviceBatch& batch,
                              LoraGroup group, ConstView x_TK, std::span<const View> y,
                              View down_TR);

// Adds the adapters' part of dx (none when it is View::None()) and their gradients.
absl::Status LoraGroupBackward(const LayerContext& context, const DeviceBatch& batch,
                               LoraGroup group, ConstView x_TK, ConstView down_TR,
                               std::span<const View> dy, View dx_TK, View grad);

// All modules of a group, adapted or not.
std::span<const LayerTensor> GroupModules(LoraGroup group);

}  // namespace tundra
