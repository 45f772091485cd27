#include "worker/model/lora.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/philox.h"
#include "common/status.h"

namespace tundra {
namespace {

constexpr char kAllLinear[] = "all-linear";
constexpr int64_t kMaxRank = 1024;

constexpr LoraGroup GroupOf(LayerTensor module) {
  switch (module) {
    case kQ:
    case kK:
    case kV:
      return kGroupQkv;
    case kO:
      return kGroupO;
    case kGate:
    case kUp:
      return kGroupGateUp;
    default:
      return kGroupDown;
  }
}

// "model.layers.0.self_attn.q_proj".
std::string ModuleName(int64_t layer, LayerTensor module) {
  const std::string name = LayerTensorName(layer, module);
  return name.substr(0, name.size() - std::string_view(".weight").size());
}

// "q_proj".
std::string ShortName(LayerTensor module) {
  const std::string name = ModuleName(0, module);
  return name.substr(name.rfind('.') + 1);
}

Shape ModuleShape(const ModelConfig& config, LayerTensor module) {
  switch (module) {
    case kQ:
      return {config.q_width(), config.hidden};
    case kK:
    case kV:
      return {config.kv_width(), config.hidden};
    case kO:
      return {config.hidden, config.q_width()};
    case kDown:
      return {config.hidden, config.intermediate};
    default:
      return {config.intermediate, config.hidden};
  }
}

// PEFT's rule for a list of targets: the whole name, or a suffix at a dot. So a module has a
// few names that target it: "q_proj", "self_attn.q_proj", … .
std::vector<std::string_view> NamesOf(std::string_view module) {
  std::vector<std::string_view> names = {module};
  for (size_t dot = module.find('.'); dot != std::string_view::npos;
       dot = module.find('.', dot + 1)) {
    names.push_back(module.substr(dot + 1));
  }
  return names;
}

absl::Status CheckNumbers(const LoraSpec& spec) {
  if (spec.rank < 1 || spec.rank > kMaxRank) {
    return absl::InvalidArgumentError(
        absl::StrCat("lora.rank = ", spec.rank, ": use a whole number from 1 to ", kMaxRank));
  }
  if (!(spec.alpha > 0) || !std::isfinite(spec.alpha) || spec.alpha > 1e6) {
    return absl::InvalidArgumentError(
        absl::StrCat("lora.alpha = ", spec.alpha, ": use a number above 0, often 1 to 2 × rank"));
  }
  if (!(spec.dropout >= 0) || !(spec.dropout < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("lora.dropout = ", spec.dropout, ": use a number from 0 to below 1"));
  }
  return absl::OkStatus();
}

absl::Status CheckTargets(const ModelConfig& config, const LoraSpec& spec) {
  std::vector<std::string> exist;
  for (const LayerTensor module : kLoraModules) exist.push_back(ShortName(module));
  const std::string advice =
      absl::StrCat("those that exist: ", absl::StrJoin(exist, ", "), ", or all-linear for all");
  const std::vector<std::string>& targets = spec.target_modules;
  if (targets.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("lora.target_modules is empty; ", advice));
  }
  std::set<std::string, std::less<>> names;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (const LayerTensor module : kLoraModules) {
      const std::string whole = ModuleName(layer, module);
      for (const std::string_view name : NamesOf(whole)) names.emplace(name);
    }
  }
  for (const std::string& target : targets) {
    if (target == kAllLinear) {
      if (targets.size() == 1) continue;
      return absl::InvalidArgumentError(
          "lora.target_modules: all-linear stands alone or not at all");
    }
    if (target == "lm_head") {
      return absl::UnimplementedError(absl::StrCat(
          "lora.target_modules: the output matrix lm_head can't be adapted; ", advice));
    }
    if (!names.contains(target)) {
      return absl::InvalidArgumentError(
          absl::StrCat("lora.target_modules: this base has no module \"", target, "\"; ", advice));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoraLayout> LoraLayout::Make(const ModelConfig& config, const LoraSpec& spec) {
  RETURN_IF_ERROR(CheckNumbers(spec));
  RETURN_IF_ERROR(CheckTargets(config, spec));
  LoraLayout layout;
  layout.spec_ = spec;
  const double rank = static_cast<double>(spec.rank);
  layout.scale_ = static_cast<float>(spec.alpha / (spec.use_rslora ? std::sqrt(rank) : rank));
  const bool all = spec.target_modules[0] == kAllLinear;
  const std::set<std::string, std::less<>> targets(spec.target_modules.begin(),
                                                   spec.target_modules.end());
  const auto wanted = [&](const std::string& module) {
    const std::vector<std::string_view> names = NamesOf(module);
    return all || std::any_of(names.begin(), names.end(),
                              [&](std::string_view name) { return targets.contains(name); });
  };
  layout.index_a_.assign(static_cast<size_t>(config.layers * kLayerTensors), -1);
  layout.index_b_ = layout.index_a_;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (int group = 0; group < kLoraGroups; ++group) {
      for (const bool is_a : {true, false}) {
        for (const LayerTensor module : kLoraModules) {
          const std::string name = ModuleName(layer, module);
          if (GroupOf(module) != group || !wanted(name)) continue;
          const Shape base = ModuleShape(config, module);
          LoraTensor tensor;
          tensor.name =
              absl::StrCat("base_model.model.", name, is_a ? ".lora_A.weight" : ".lora_B.weight");
          tensor.shape = is_a ? Shape{spec.rank, base[1]} : Shape{base[0], spec.rank};
          tensor.layer = layer;
          tensor.module = module;
          tensor.is_a = is_a;
          tensor.offset = layout.parameters_;
          tensor.size = NumElements(tensor.shape);
          layout.parameters_ += tensor.size;
          std::vector<int>& index = is_a ? layout.index_a_ : layout.index_b_;
          index[static_cast<size_t>(layer * kLayerTensors + module)] =
              static_cast<int>(layout.tensors_.size());
          layout.tensors_.push_back(std::move(tensor));
        }
      }
    }
  }
  TUNDRA_CHECK(!layout.tensors_.empty());
  return layout;
}

int LoraLayout::Index(int64_t layer, LayerTensor module, bool is_a) const {
  return (is_a ? index_a_ : index_b_)[static_cast<size_t>(layer * kLayerTensors + module)];
}

std::vector<LayerTensor> LoraLayout::Adapted(int64_t layer, LoraGroup group) const {
  std::vector<LayerTensor> modules;
  for (const LayerTensor module : kLoraModules) {
    if (GroupOf(module) == group && a(layer, module) >= 0) modules.push_back(module);
  }
  return modules;
}

LoraGroup LoraLayout::lowest_group() const { return GroupOf(tensors_.front().module); }

std::vector<std::string> LoraLayout::ConfigTargets() const {
  std::set<std::string> names(spec_.target_modules.begin(), spec_.target_modules.end());
  if (names.contains(kAllLinear)) {
    names.clear();
    for (const LayerTensor module : kLoraModules) names.insert(ShortName(module));
  }
  return {names.begin(), names.end()};
}

void InitAdapter(const LoraLayout& layout, uint64_t seed, std::span<float> adapter) {
  TUNDRA_CHECK(static_cast<int64_t>(adapter.size()) == layout.parameters());
  const PhiloxKey key = PhiloxKeyOf(seed);
  std::fill(adapter.begin(), adapter.end(), 0.0F);
  for (const LoraTensor& tensor : layout.tensors()) {
    if (!tensor.is_a) continue;
    const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(tensor.shape[1])));
    const uint32_t where =
        static_cast<uint32_t>(tensor.layer) * kLayerTensors + static_cast<uint32_t>(tensor.module);
    for (int64_t i = 0; i < tensor.size; ++i) {
      const PhiloxBlock block =
          Philox4x32({static_cast<uint32_t>(i / 4), static_cast<uint32_t>((i / 4) >> 32), where,
                      static_cast<uint32_t>(PhiloxUse::kInit)},
                     key);
      const float uniform = PhiloxUniform(block[static_cast<size_t>(i % 4)]);
      adapter[static_cast<size_t>(tensor.offset + i)] = (2 * uniform - 1) * bound;
    }
  }
}

}  // namespace tundra
