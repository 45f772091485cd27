// Which low-rank adapters a job trains, and where each of their tensors lies.
//
// An adapter is one flat f32 array of all its tensors, in a fixed order: by layer,
// then by group of modules that share their input (q k v | o | gate up | down), in
// each group first the A's, then the B's. So the A's of a group are one matrix
// [modules · r, in], and one product serves them all.
//
// For a linear layer W [out, in]: y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ, A [r, in], B [out, r].
// Source: Hu et al. 2021, arXiv:2106.09685; names and initialisation as PEFT has them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/safetensors.h"
#include "worker/model/shard_plan.h"

namespace tundra {

struct LoraSpec {
  // 1 to 1024.
  int64_t rank = 8;
  // Above 0; s = alpha / rank, or alpha / sqrt(rank) with use_rslora.
  double alpha = 16;
  bool use_rslora = false;
  // Of the input of A; in [0, 1).
  double dropout = 0;
  // Suffixes of module names at a dot ("q_proj", "layers.3.mlp.up_proj"), or
  // "all-linear" alone: every linear layer but the output matrix.
  std::vector<std::string> target_modules = {"all-linear"};
};

// The linear layers that can be adapted, in the order of everything.
inline constexpr LayerTensor kLoraModules[] = {kQ, kK, kV, kO, kGate, kUp, kDown};
inline constexpr int kLoraModuleCount = 7;

// Groups of modules with one input.
enum LoraGroup : int { kGroupQkv = 0, kGroupO, kGroupGateUp, kGroupDown, kLoraGroups };

struct LoraTensor {
  // "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight".
  std::string name;
  Shape shape;
  int64_t layer = 0;
  LayerTensor module = kQ;
  bool is_a = false;
  // Elements from the start of the adapter.
  int64_t offset = 0;
  int64_t size = 0;
};

// A value type.
class LoraLayout {
 public:
  // Errors: kInvalidArgument for a rank, alpha or dropout out of range and for
  // target modules that don't exist (lists those that do); kUnimplemented for the
  // output matrix.
  static absl::StatusOr<LoraLayout> Make(const ModelConfig& config, const LoraSpec& spec);

  const LoraSpec& spec() const { return spec_; }
  const std::vector<LoraTensor>& tensors() const { return tensors_; }
  // Elements of all tensors.
  int64_t parameters() const { return parameters_; }
  float scale() const { return scale_; }
  int64_t rank() const { return spec_.rank; }

  // Index into tensors(), or -1 when the module of that layer isn't adapted.
  int a(int64_t layer, LayerTensor module) const { return Index(layer, module, true); }
  int b(int64_t layer, LayerTensor module) const { return Index(layer, module, false); }
  // The adapted modules of a group, in order.
  std::vector<LayerTensor> Adapted(int64_t layer, LoraGroup group) const;
  // The lowest layer with an adapted module: nothing below needs a gradient.
  int64_t lowest_layer() const { return tensors_.front().layer; }
  // The first group of that layer that is adapted.
  LoraGroup lowest_group() const;

  // The names for adapter_config.json, sorted: "all-linear" as its modules.
  std::vector<std::string> ConfigTargets() const;

 private:
  int Index(int64_t layer, LayerTensor module, bool is_a) const;

  LoraSpec spec_;
  float scale_ = 0;
  int64_t parameters_ = 0;
  std::vector<LoraTensor> tensors_;
  // [layer · kLayerTensors + module] of A; B where it is A's; -1.
  std::vector<int> index_a_;
  std::vector<int> index_b_;
};

// A uniform in ±1/√in (Kaiming with a = √5), B zero, as a pure function of
// (seed, layer, module, element). `adapter` has layout.parameters() elements.
void InitAdapter(const LoraLayout& layout, uint64_t seed, std::span<float> adapter);

}  // namespace tundra
