#include "worker/train/adapter.h"

#include <cmath>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/files.h"
#include "common/status.h"
#include "worker/model/half.h"
#include "worker/model/json_fields.h"
#include "worker/model/safetensors.h"
#include "worker/model/strict_json.h"

namespace tundra {
namespace {

using nlohmann::json;

constexpr char kModelFile[] = "adapter_model.safetensors";
constexpr char kConfigFile[] = "adapter_config.json";
constexpr char kBaseHashKey[] = "tundra.base_hash";
constexpr char kNumericsKey[] = "tundra.numerics_class";
constexpr uint64_t kMaxConfigBytes = 4 << 20;

// Keys of the pinned release that a job of ours leaves at their defaults.
constexpr char kDefaults[] = R"({
  "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
  "auto_mapping": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
  "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
  "init_lora_weights": true, "kasa_config": null, "layer_replication": null,
  "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_bias": false,
  "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
  "modules_to_save": null, "monteclora_config": null, "peft_type": "LORA",
  "qalora_group_size": 16, "rank_pattern": {}, "revision": null, "target_parameters": null,
  "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null,
  "use_dora": false, "use_qalora": false, "velora_config": null})";

// Keys whose values change what an adapter computes: anything but these values (or
// null, or absence) is refused by name.
struct PlainKey {
  const char* name;
  const char* plain;
};
constexpr PlainKey kMustBePlain[] = {{"alora_invocation_tokens", "null"},
                                     {"alpha_pattern", "{}"},
                                     {"arrow_config", "null"},
                                     {"bias", "\"none\""},
                                     {"exclude_modules", "[]"},
                                     {"fan_in_fan_out", "false"},
                                     {"kasa_config", "null"},
                                     {"layer_replication", "null"},
                                     {"layers_pattern", "[]"},
                                     {"layers_to_transform", "null"},
                                     {"lora_bias", "false"},
                                     {"megatron_config", "null"},
                                     {"modules_to_save", "[]"},
                                     {"monteclora_config", "null"},
                                     {"rank_pattern", "{}"},
                                     {"target_parameters", "[]"},
                                     {"trainable_token_indices", "null"},
                                     {"use_bdlora", "null"},
                                     {"use_dora", "false"},
                                     {"use_qalora", "false"},
                                     {"velora_config", "null"}};

absl::StatusOr<LoraSpec> ParseSpec(const json& config, const std::string& path) {
  if (!config.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  }
  const JsonFields fields(config, path, "");
  ASSIGN_OR_RETURN(const std::string type, fields.Text("peft_type", ""));
  if (type != "LORA") {
    return absl::UnimplementedError(
        absl::StrCat(path, ": peft_type \"", type, "\" is not supported; only LORA is"));
  }
  for (const PlainKey& key : kMustBePlain) {
    const json* value = fields.Get(key.name);
    if (value == nullptr || *value == json::parse(key.plain)) continue;
    return absl::UnimplementedError(absl::StrCat(path, ": ", key.name, " = ", value->dump(),
                                                 " is not supported; only ", key.plain, " is"));
  }
  // The others (PiSSA, OLoRA, CorDA, LoftQ, …) train beside a base that they have changed.
  const json* init = fields.Get("init_lora_weights");
  if (init != nullptr && !init->is_boolean() && *init != "gaussian" && *init != "eva" &&
      *init != "orthogonal") {
    return absl::UnimplementedError(absl::StrCat(
        path, ": init_lora_weights = ", init->dump(), " is not supported: it changes the base; ",
        "convert the adapter to plain LoRA first (save_pretrained with ",
        "path_initial_model_for_weight_conversion)"));
  }
  LoraSpec spec;
  ASSIGN_OR_RETURN(spec.rank, fields.Integer("r", std::nullopt, 1, 1024));
  ASSIGN_OR_RETURN(spec.alpha, fields.Number("lora_alpha", std::nullopt, 0, 1e6));
  ASSIGN_OR_RETURN(spec.use_rslora, fields.Bool("use_rslora", false));
  ASSIGN_OR_RETURN(spec.dropout, fields.Number("lora_dropout", 0.0, 0, 1));
  const json* targets = fields.Get("target_modules");
  spec.target_modules.clear();
  if (targets != nullptr && targets->is_string() && *targets == "all-linear") {
    spec.target_modules = {"all-linear"};
    return spec;
  }
  if (targets == nullptr || !targets->is_array() || targets->size() > 100'000) {
    return fields.Bad("target_modules",
                      "a list of module names is needed (patterns are not supported)");
  }
  for (const json& target : *targets) {
    if (!target.is_string())
      return fields.Bad("target_modules", "a list of module names is needed");
    spec.target_modules.push_back(target.get<std::string>());
  }
  return spec;
}

void Widen(StoredType type, const std::string& bytes, float* to) {
  const size_t count = bytes.size() / static_cast<size_t>(StoredSize(type));
  if (type == StoredType::kF32) {
    std::memcpy(to, bytes.data(), bytes.size());
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, bytes.data() + 2 * i, sizeof(half));
    to[i] = type == StoredType::kF16 ? HalfToFloat(half)
                                     : std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
}

absl::Status ReadTensors(const SafetensorsFile& file, LoadedAdapter& adapter) {
  adapter.weights.resize(static_cast<size_t>(adapter.layout.parameters()));
  std::set<std::string> wanted;
  for (const LoraTensor& tensor : adapter.layout.tensors()) {
    wanted.insert(tensor.name);
    const TensorEntry* entry = file.header().Find(tensor.name);
    if (entry == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          file.path(), ": no tensor \"", tensor.name,
          "\", though adapter_config.json targets it; adapter and base don't belong together"));
    }
    if (entry->shape != tensor.shape || entry->type == StoredType::kI64) {
      return absl::InvalidArgumentError(absl::StrCat(
          file.path(), ": tensor \"", tensor.name, "\" is ", std::string(StoredName(entry->type)),
          " ", ShapeText(entry->shape), ", but base and rank make it ", ShapeText(tensor.shape)));
    }
    std::string bytes(entry->end - entry->begin, '\0');
    RETURN_IF_ERROR(file.Read(*entry, 0, bytes.size(), bytes.data()));
    Widen(entry->type, bytes, adapter.weights.data() + tensor.offset);
  }
  for (const TensorEntry& entry : file.header().tensors) {
    if (!wanted.contains(entry.name)) {
      return absl::UnimplementedError(absl::StrCat(file.path(), ": tensor \"", entry.name,
                                                   "\" belongs to no adapted module of this base"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

AdapterFiles MakeAdapterFiles(const LoraLayout& layout, std::span<const float> weights,
                              const AdapterOrigin& origin) {
  TUNDRA_CHECK(static_cast<int64_t>(weights.size()) == layout.parameters());
  std::vector<TensorToWrite> tensors;
  for (const LoraTensor& tensor : layout.tensors()) {
    const char* bytes = reinterpret_cast<const char*>(weights.data() + tensor.offset);
    tensors.push_back({tensor.name,
                       StoredType::kF32,
                       tensor.shape,
                       {bytes, static_cast<size_t>(tensor.size) * sizeof(float)}});
  }
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!origin.base_hash.empty()) metadata[kBaseHashKey] = origin.base_hash;
  if (!origin.numerics_class.empty()) metadata[kNumericsKey] = origin.numerics_class;
  json config = json::parse(kDefaults);
  const LoraSpec& spec = layout.spec();
  config["base_model_name_or_path"] = origin.base_name;
  config["r"] = spec.rank;
  // PEFT's alpha is a whole number unless it can't be one.
  if (spec.alpha == std::floor(spec.alpha)) {
    config["lora_alpha"] = static_cast<int64_t>(spec.alpha);
  } else {
    config["lora_alpha"] = spec.alpha;
  }
  config["lora_dropout"] = spec.dropout;
  config["target_modules"] = layout.ConfigTargets();
  config["use_rslora"] = spec.use_rslora;
  config["peft_version"] = kPeftVersion;
  return {WriteSafetensors(std::move(tensors), metadata),
          config.dump(2, ' ', true, json::error_handler_t::replace)};
}

absl::Status WriteAdapter(const std::string& dir, const AdapterFiles& files) {
  RETURN_IF_ERROR(MakeDirs(dir));
  RETURN_IF_ERROR(WriteFileAtomically(dir + "/" + kModelFile, files.model));
  return WriteFileAtomically(dir + "/" + kConfigFile, files.config);
}

absl::StatusOr<LoadedAdapter> ReadAdapter(const std::string& dir, const ModelConfig& config) {
  const std::string config_path = dir + "/" + kConfigFile;
  absl::StatusOr<json> json_or = ReadStrictJson(config_path, kMaxConfigBytes);
  if (absl::IsNotFound(json_or.status())) {
    return absl::NotFoundError(absl::StrCat(config_path, ": missing; an adapter is a folder with ",
                                            kConfigFile, " and ", kModelFile));
  }
  RETURN_IF_ERROR(json_or.status());
  ASSIGN_OR_RETURN(const LoraSpec spec, ParseSpec(*json_or, config_path));
  absl::StatusOr<LoraLayout> layout = LoraLayout::Make(config, spec);
  RETURN_IF_ERROR(Annotate(layout.status(), config_path));
  LoadedAdapter adapter{*std::move(layout), {}, {}};
  ASSIGN_OR_RETURN(adapter.origin.base_name,
                   JsonFields(*json_or, config_path, "").Text("base_model_name_or_path", ""));
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(dir + "/" + kModelFile));
  RETURN_IF_ERROR(ReadTensors(file, adapter));
  const auto metadata = [&](const char* key) {
    const auto it = file.header().metadata.find(key);
    return it == file.header().metadata.end() ? std::string() : it->second;
  };
  adapter.origin.base_hash = metadata(kBaseHashKey);
  adapter.origin.numerics_class = metadata(kNumericsKey);
  return adapter;
}

}  // namespace tundra
