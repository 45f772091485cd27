#include "worker/model/shard_plan.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace tundra {
namespace {

constexpr uint64_t kTensorAlign = 64;

uint64_t RoundUp(uint64_t n, uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

struct LayerRow {
  const char* suffix;
};
constexpr LayerRow kLayerRows[kLayerTensors] = {
    {"input_layernorm"},  {"self_attn.q_proj"}, {"self_attn.k_proj"},
    {"self_attn.v_proj"}, {"self_attn.o_proj"}, {"post_attention_layernorm"},
    {"mlp.gate_proj"},    {"mlp.up_proj"},      {"mlp.down_proj"}};

Shape LayerTensorShape(const ModelConfig& config, LayerTensor tensor) {
  switch (tensor) {
    case kAttentionNorm:
    case kMlpNorm:
      return {config.hidden};
    case kQ:
      return {config.q_width(), config.hidden};
    case kK:
    case kV:
      return {config.kv_width(), config.hidden};
    case kO:
      return {config.hidden, config.q_width()};
    case kGate:
    case kUp:
      return {config.intermediate, config.hidden};
    case kDown:
      return {config.hidden, config.intermediate};
    case kLayerTensors:
      break;
  }
  TUNDRA_CHECK(false) << "no such layer tensor";
  return {};
}

absl::Status AddTensor(const BaseFiles& base, const std::string& name, const Shape& shape,
                       Unit& unit) {
  ASSIGN_OR_RETURN(const BaseFiles::Located* located, base.Find(name));
  const std::string& path = base.files()[located->file].path();
  if (located->entry.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": tensor \"", name, "\" has shape ", ShapeText(located->entry.shape),
        ", but config.json makes it ", ShapeText(shape), "; they are not of one model"));
  }
  if (located->entry.type == StoredType::kI64) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor \"", name, "\" is I64; weights are F32, BF16 or F16"));
  }
  UnitTensor tensor;
  tensor.name = name;
  tensor.type = located->entry.type;
  tensor.shape = shape;
  tensor.offset = RoundUp(unit.bytes, kTensorAlign);
  tensor.bytes = located->entry.end - located->entry.begin;
  unit.bytes = tensor.offset + tensor.bytes;
  unit.tensors.push_back(std::move(tensor));
  return absl::OkStatus();
}

// Weights that the passes would silently leave out: biases, and layers beyond those that
// config.json says.
absl::Status RefuseLeftOut(const ModelConfig& config, const BaseFiles& base) {
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (int t = 0; t < kLayerTensors; ++t) {
      std::string name = LayerTensorName(layer, static_cast<LayerTensor>(t));
      name.replace(name.rfind(".weight"), std::string::npos, ".bias");
      if (!base.tensors().contains(name)) continue;
      return absl::UnimplementedError(absl::StrCat(base.dir(), ": tensor \"", name,
                                                   "\": biases are not supported; choose another ",
                                                   "base"));
    }
  }
  const std::string next = LayerTensorName(config.layers, kAttentionNorm);
  if (!base.tensors().contains(next)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      base.dir(), ": holds \"", next, "\", but ",
      "config.json has num_hidden_layers = ", config.layers, "; they are not of one model"));
}

}  // namespace

std::string LayerTensorName(int64_t layer, LayerTensor tensor) {
  return absl::StrCat("model.layers.", layer, ".", kLayerRows[tensor].suffix, ".weight");
}

absl::StatusOr<ShardPlan> ShardPlan::Make(const ModelConfig& config, const BaseFiles& base,
                                          int shards) {
  TUNDRA_CHECK(shards >= 1);
  RETURN_IF_ERROR(RefuseLeftOut(config, base));
  ShardPlan plan;
  plan.shards_ = shards;
  plan.tied_ = config.tied;
  const Shape matrix = {config.vocab, config.hidden};
  plan.units_.resize(static_cast<size_t>(config.layers) + 2);
  RETURN_IF_ERROR(AddTensor(base, "model.embed_tokens.weight", matrix, plan.units_.front()));
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    Unit& unit = plan.units_[static_cast<size_t>(plan.layer_unit(layer))];
    for (int t = 0; t < kLayerTensors; ++t) {
      const LayerTensor tensor = static_cast<LayerTensor>(t);
      RETURN_IF_ERROR(
          AddTensor(base, LayerTensorName(layer, tensor), LayerTensorShape(config, tensor), unit));
    }
  }
  RETURN_IF_ERROR(AddTensor(base, "model.norm.weight", {config.hidden}, plan.units_.back()));
  if (!config.tied) {
    RETURN_IF_ERROR(AddTensor(base, "lm_head.weight", matrix, plan.units_.back()));
  }
  uint64_t at = 0;
  for (Unit& unit : plan.units_) {
    const uint64_t count = static_cast<uint64_t>(shards);
    unit.slice_bytes = RoundUp((unit.bytes + count - 1) / count, kPageBytes);
    unit.offset_in_shard = at;
    at += unit.slice_bytes;
  }
  return plan;
}

uint64_t ShardPlan::shard_bytes() const {
  return units_.back().offset_in_shard + units_.back().slice_bytes;
}

uint64_t ShardPlan::base_bytes() const {
  uint64_t total = 0;
  for (const Unit& unit : units_) {
    for (const UnitTensor& tensor : unit.tensors) total += tensor.bytes;
  }
  return total;
}

uint64_t ShardPlan::largest_unit_bytes() const {
  uint64_t largest = 0;
  for (const Unit& unit : units_) largest = std::max(largest, unit.slice_bytes);
  return largest * static_cast<uint64_t>(shards_);
}

absl::Status LoadShard(const ShardPlan& plan, const BaseFiles& base, int shard,
                       std::span<std::byte> to) {
  TUNDRA_CHECK(shard >= 0 && shard < plan.shards());
  TUNDRA_CHECK(to.size() == plan.shard_bytes());
  std::memset(to.data(), 0, to.size());
  for (const Unit& unit : plan.units()) {
    const uint64_t slice_begin = unit.slice_bytes * static_cast<uint64_t>(shard);
    const uint64_t slice_end = slice_begin + unit.slice_bytes;
    for (const UnitTensor& tensor : unit.tensors) {
      const uint64_t begin = std::max(slice_begin, tensor.offset);
      const uint64_t end = std::min(slice_end, tensor.offset + tensor.bytes);
      if (begin >= end) continue;
      ASSIGN_OR_RETURN(const BaseFiles::Located* located, base.Find(tensor.name));
      std::byte* at = to.data() + unit.offset_in_shard + (begin - slice_begin);
      RETURN_IF_ERROR(base.Read(*located, begin - tensor.offset, end - begin, at));
    }
  }
  return absl::OkStatus();
}

bool ShardPlan::has_half() const {
  return std::any_of(units_.begin(), units_.end(), [](const Unit& unit) {
    return std::any_of(unit.tensors.begin(), unit.tensors.end(),
                       [](const UnitTensor& tensor) { return tensor.type == StoredType::kF16; });
  });
}

}  // namespace tundra
