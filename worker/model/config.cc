#include "worker/model/config.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "worker/model/json_fields.h"
#include "worker/model/strict_json.h"

namespace tundra {
namespace {

using nlohmann::json;
using Fields = JsonFields;

constexpr uint64_t kMaxConfigBytes = 16 << 20;
// What Ops::Attention takes.
constexpr int64_t kMaxAttentionHeadDim = 256;

// A row of the table of families.
struct FamilyTraits {
  const char* architecture;
  // Values of fields that a config may leave out, as transformers has them.
  double default_rms_eps;
  double default_rope_theta;
  int64_t default_max_positions;
  bool default_tied;
  // The window that holds when "sliding_window" is left out; 0 for none.
  int64_t default_window;
};
constexpr FamilyTraits kFamilies[] = {
    {"LlamaForCausalLM", 1e-6, 10000.0, 2048, false, 0},
    {"MistralForCausalLM", 1e-6, 10000.0, 4096 * 32, false, 4096},
};

absl::StatusOr<const FamilyTraits*> FindFamily(const Fields& fields, std::string_view source) {
  std::vector<std::string> supported;
  for (const FamilyTraits& row : kFamilies) supported.emplace_back(row.architecture);
  const json* names = fields.Get("architectures");
  if (names == nullptr || !names->is_array() || names->size() != 1 || !(*names)[0].is_string()) {
    return fields.Bad("architectures", absl::StrCat("a list with one name is needed; supported: ",
                                                    absl::StrJoin(supported, ", ")));
  }
  for (const FamilyTraits& row : kFamilies) {
    if ((*names)[0].get_ref<const std::string&>() == row.architecture) return &row;
  }
  return absl::UnimplementedError(
      absl::StrCat(std::string(source), ": architecture ", (*names)[0].get<std::string>(),
                   " is not supported; supported: ", absl::StrJoin(supported, ", ")));
}

absl::Status RefuseFeatures(const Fields& fields, const json& whole, const FamilyTraits& family,
                            int64_t max_positions, std::string_view source) {
  const auto refuse = [&](const char* what) {
    return absl::UnimplementedError(
        absl::StrCat(std::string(source), ": ", what, " is not supported; choose another base"));
  };
  for (const char* name : {"attention_bias", "mlp_bias", "use_qk_norm"}) {
    ASSIGN_OR_RETURN(const bool on, fields.Bool(name, false));
    if (on) return refuse(name);
  }
  if (fields.Get("quantization_config") != nullptr) {
    return refuse("quantization_config (a quantized base)");
  }
  for (const char* name : {"num_local_experts", "num_experts"}) {
    if (fields.Get(name) != nullptr) return refuse("a mixture of experts");
  }
  ASSIGN_OR_RETURN(const double partial, fields.Number("partial_rotary_factor", 1.0, 0, 1));
  if (partial != 1.0) return refuse("partial_rotary_factor other than 1");
  ASSIGN_OR_RETURN(const double dropout, fields.Number("attention_dropout", 0.0, 0, 1));
  if (dropout != 0.0) return refuse("attention_dropout above 0");
  if (const json* types = fields.Get("layer_types"); types != nullptr) {
    if (!types->is_array()) return fields.Bad("layer_types", "a list is needed");
    for (const json& type : *types) {
      if (type != "full_attention")
        return refuse(absl::StrCat("layer_types ", type.dump()).c_str());
    }
  }
  // An explicit null means no window; a missing field means the family's.
  int64_t window = whole.contains("sliding_window") ? 0 : family.default_window;
  ASSIGN_OR_RETURN(window, fields.Integer("sliding_window", window, 1, int64_t{1} << 40));
  if (window != 0 && window < max_positions) return refuse("sliding_window attention");
  return absl::OkStatus();
}

// By Transformers' names (its ACT2FN), of which some mean the same.
absl::StatusOr<Activation> ParseActivation(const Fields& fields, std::string_view source) {
  ASSIGN_OR_RETURN(const std::string name, fields.Text("hidden_act", "silu"));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::kGeluTanh;
  return absl::UnimplementedError(
      absl::StrCat(std::string(source), ": hidden_act \"", name,
                   "\" is not supported; supported: silu, gelu_pytorch_tanh"));
}

// "rope_theta" and "rope_scaling" beside the other fields, or both inside
// "rope_parameters" (transformers 5).
absl::StatusOr<RopeConfig> ParseRope(const Fields& fields, const FamilyTraits& family,
                                     std::string_view source) {
  RopeConfig rope;
  const json* nested = fields.Get("rope_parameters");
  const char* name = nested != nullptr ? "rope_parameters" : "rope_scaling";
  const json* scaling = nested != nullptr ? nested : fields.Get("rope_scaling");
  if (scaling != nullptr && !scaling->is_object()) return fields.Bad(name, "an object is needed");
  const json empty = json::object();
  const Fields in(scaling != nullptr ? *scaling : empty, source, absl::StrCat(name, "."));
  if (scaling != nullptr) {
    for (const auto& [key, value] : scaling->items()) {
      if (!value.is_object()) continue;
      return absl::UnimplementedError(absl::StrCat(
          std::string(source), ": ", name, ".", key,
          " is an object: rotary embeddings that differ between layers are not supported"));
    }
  }
  const Fields& theta_in = in.Get("rope_theta") != nullptr ? in : fields;
  ASSIGN_OR_RETURN(rope.theta, theta_in.Number("rope_theta", family.default_rope_theta, 1.0, 1e12));
  ASSIGN_OR_RETURN(std::string type, in.Text("rope_type", ""));
  if (type.empty()) {
    ASSIGN_OR_RETURN(type, in.Text("type", "default"));
  }
  ASSIGN_OR_RETURN(const double partial, in.Number("partial_rotary_factor", 1.0, 0, 1));
  if (partial != 1.0) {
    return absl::UnimplementedError(absl::StrCat(
        std::string(source), ": ", name, ".partial_rotary_factor other than 1 is not supported"));
  }
  if (type == "default") return rope;
  if (type != "linear" && type != "llama3") {
    return absl::UnimplementedError(
        absl::StrCat(std::string(source), ": ", name, " of type \"", type,
                     "\" is not supported; supported: default, linear, llama3"));
  }
  ASSIGN_OR_RETURN(rope.factor, in.Number("factor", std::nullopt, 1.0, 1e6));
  rope.scaling = RopeConfig::Scaling::kLinear;
  if (type == "linear") return rope;
  rope.scaling = RopeConfig::Scaling::kLlama3;
  ASSIGN_OR_RETURN(rope.low_freq_factor, in.Number("low_freq_factor", std::nullopt, 1e-6, 1e6));
  ASSIGN_OR_RETURN(rope.high_freq_factor, in.Number("high_freq_factor", std::nullopt, 1e-6, 1e6));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return in.Bad("high_freq_factor", "it must be above low_freq_factor");
  }
  ASSIGN_OR_RETURN(rope.original_max_positions,
                   in.Integer("original_max_position_embeddings", std::nullopt, 1, 1 << 30));
  return rope;
}

absl::StatusOr<std::vector<int64_t>> ParseIds(const Fields& fields, const char* name) {
  std::vector<int64_t> ids;
  const json* value = fields.Get(name);
  if (value == nullptr) return ids;
  const auto add = [&](const json& item) {
    if (!item.is_number_integer() || item.get<int64_t>() < 0 || item.get<int64_t>() >= (1 << 30)) {
      return false;
    }
    ids.push_back(item.get<int64_t>());
    return true;
  };
  if (!value->is_array()) {
    if (!add(*value)) return fields.Bad(name, "a token id or a list of them is needed");
    return ids;
  }
  if (value->size() > 1024) return fields.Bad(name, "over 1024 ids");
  for (const json& item : *value) {
    if (!add(item)) return fields.Bad(name, "a token id or a list of them is needed");
  }
  return ids;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const json& whole, std::string_view source) {
  if (!whole.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(source), ": not a JSON object"));
  }
  const Fields fields(whole, source, "");
  ASSIGN_OR_RETURN(const FamilyTraits* family, FindFamily(fields, source));
  ModelConfig config;
  config.architecture = family->architecture;
  constexpr int64_t kMaxWidth = 1 << 20;
  ASSIGN_OR_RETURN(config.vocab, fields.Integer("vocab_size", std::nullopt, 1, 1 << 24));
  ASSIGN_OR_RETURN(config.hidden, fields.Integer("hidden_size", std::nullopt, 1, kMaxWidth));
  ASSIGN_OR_RETURN(config.intermediate,
                   fields.Integer("intermediate_size", std::nullopt, 1, kMaxWidth));
  ASSIGN_OR_RETURN(config.layers, fields.Integer("num_hidden_layers", std::nullopt, 1, 4096));
  ASSIGN_OR_RETURN(config.heads, fields.Integer("num_attention_heads", std::nullopt, 1, 4096));
  ASSIGN_OR_RETURN(config.kv_heads, fields.Integer("num_key_value_heads", config.heads, 1, 4096));
  if (config.heads % config.kv_heads != 0) {
    return fields.Bad("num_key_value_heads", "it must divide num_attention_heads");
  }
  if (fields.Get("head_dim") == nullptr && config.hidden % config.heads != 0) {
    return fields.Bad("hidden_size",
                      "it is no multiple of num_attention_heads, and no head_dim is given");
  }
  ASSIGN_OR_RETURN(config.head_dim,
                   fields.Integer("head_dim", config.hidden / config.heads, 1, kMaxWidth));
  if (config.head_dim % 2 != 0) return fields.Bad("head_dim", "rotary embedding needs it even");
  if (config.head_dim > kMaxAttentionHeadDim) {
    return absl::UnimplementedError(
        absl::StrCat(std::string(source), ": heads of ", config.head_dim,
                     " dimensions are not supported; at most ", kMaxAttentionHeadDim, " are"));
  }
  ASSIGN_OR_RETURN(config.max_positions, fields.Integer("max_position_embeddings",
                                                        family->default_max_positions, 1, 1 << 30));
  ASSIGN_OR_RETURN(const double eps,
                   fields.Number("rms_norm_eps", family->default_rms_eps, 1e-12, 1.0));
  config.rms_eps = static_cast<float>(eps);
  ASSIGN_OR_RETURN(config.activation, ParseActivation(fields, source));
  ASSIGN_OR_RETURN(config.tied, fields.Bool("tie_word_embeddings", family->default_tied));
  RETURN_IF_ERROR(RefuseFeatures(fields, whole, *family, config.max_positions, source));
  ASSIGN_OR_RETURN(config.rope, ParseRope(fields, *family, source));
  ASSIGN_OR_RETURN(config.eos_ids, ParseIds(fields, "eos_token_id"));
  ASSIGN_OR_RETURN(const std::vector<int64_t> bos, ParseIds(fields, "bos_token_id"));
  if (!bos.empty()) config.bos_id = bos[0];
  return config;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& base_dir) {
  const std::string path = base_dir + "/config.json";
  ASSIGN_OR_RETURN(const json config_json, ReadStrictJson(path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(config_json, path));
  const std::string generation = base_dir + "/generation_config.json";
  absl::StatusOr<json> extra = ReadStrictJson(generation, kMaxConfigBytes);
  if (absl::IsNotFound(extra.status())) return config;
  RETURN_IF_ERROR(extra.status());
  if (!extra->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(generation, ": not a JSON object"));
  }
  ASSIGN_OR_RETURN(std::vector<int64_t> eos,
                   ParseIds(Fields(*extra, generation, ""), "eos_token_id"));
  if (!eos.empty()) config.eos_ids = std::move(eos);
  return config;
}

std::vector<float> RopeFrequencies(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  std::vector<float> frequencies;
  for (int64_t i = 0; i < config.head_dim; i += 2) {
    // transformers: 1.0 / theta ** (arange(0, d, 2).float() / d), in float.
    const float exponent = static_cast<float>(i) / static_cast<float>(config.head_dim);
    float f = 1.0F / static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    const float factor = static_cast<float>(rope.factor);
    if (rope.scaling == RopeConfig::Scaling::kLinear) f /= factor;
    if (rope.scaling == RopeConfig::Scaling::kLlama3) {
      const double original = static_cast<double>(rope.original_max_positions);
      const double wavelength = 2 * std::numbers::pi / static_cast<double>(f);
      const double low_wavelength = original / rope.low_freq_factor;
      const double high_wavelength = original / rope.high_freq_factor;
      if (wavelength > low_wavelength) {
        f /= factor;
      } else if (wavelength >= high_wavelength) {
        const double smooth = (original / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
        const double mixed =
            (1 - smooth) * static_cast<double>(f) / rope.factor + smooth * static_cast<double>(f);
        f = static_cast<float>(mixed);
      }
    }
    frequencies.push_back(f);
  }
  return frequencies;
}

}  // namespace tundra
