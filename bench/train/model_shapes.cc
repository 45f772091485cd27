#include "bench/train/model_shapes.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/suggest.h"

namespace tundra::bench {
namespace {

constexpr StoredType kBF16 = StoredType::kBF16;

// clang-format off
constexpr ModelShape kShapes[] = {
    // name, published as, vocab, hidden, intermediate, layers, heads, kv heads, head size,
    // positions, rms eps, rope theta, rope factor, tied, stored
    {"tiny-tales", "examples/bases/tiny-tales", 2048, 192, 512, 4, 6, 2, 32, 512, 1e-5, 1e4, 0, true, kBF16},
    {"smollm2-135m", "HuggingFaceTB/SmolLM2-135M", 49152, 576, 1536, 30, 9, 3, 64, 8192, 1e-5, 1e5, 0, true, kBF16},
    {"smollm2-360m", "HuggingFaceTB/SmolLM2-360M", 49152, 960, 2560, 32, 15, 5, 64, 8192, 1e-5, 1e5, 0, true, kBF16},
    {"tinyllama-1.1b", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 32000, 2048, 5632, 22, 32, 4, 64, 2048, 1e-5, 1e4, 0, false, kBF16},
    {"llama3.2-1b", "meta-llama/Llama-3.2-1B", 128256, 2048, 8192, 16, 32, 8, 64, 131072, 1e-5, 5e5, 32, true, kBF16},
    {"smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B", 49152, 2048, 8192, 24, 32, 32, 64, 8192, 1e-5, 1.3e5, 0, true, kBF16},
    {"llama3.2-3b", "meta-llama/Llama-3.2-3B", 128256, 3072, 8192, 28, 24, 8, 128, 131072, 1e-5, 5e5, 32, true, kBF16},
    {"mistral-7b", "mistralai/Mistral-7B-v0.3", 32768, 4096, 14336, 32, 32, 8, 128, 32768, 1e-5, 1e6, 0, false, kBF16},
    {"llama3-8b", "meta-llama/Meta-Llama-3-8B", 128256, 4096, 14336, 32, 32, 8, 128, 8192, 1e-5, 5e5, 0, false, kBF16},
    {"llama3.1-8b", "meta-llama/Llama-3.1-8B", 128256, 4096, 14336, 32, 32, 8, 128, 131072, 1e-5, 5e5, 8, false, kBF16},
    {"llama3-70b", "meta-llama/Meta-Llama-3-70B", 128256, 8192, 28672, 80, 64, 8, 128, 8192, 1e-5, 5e5, 0, false, kBF16},
};
// clang-format on

}  // namespace

std::span<const ModelShape> ModelShapes() { return kShapes; }

absl::StatusOr<const ModelShape*> FindModelShape(std::string_view name) {
  std::vector<std::string> names;
  for (const ModelShape& shape : kShapes) {
    if (shape.name == name) return &shape;
    names.emplace_back(shape.name);
  }
  return absl::NotFoundError(absl::StrCat("no shape is called '", std::string(name), "'; ",
                                          Suggest(name, names), "; or give a base folder"));
}

nlohmann::json ConfigJson(const ModelShape& shape) {
  nlohmann::json config = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"vocab_size", shape.vocab},
      {"hidden_size", shape.hidden},
      {"intermediate_size", shape.intermediate},
      {"num_hidden_layers", shape.layers},
      {"num_attention_heads", shape.heads},
      {"num_key_value_heads", shape.kv_heads},
      {"head_dim", shape.head_dim},
      {"max_position_embeddings", shape.max_positions},
      {"rms_norm_eps", shape.rms_eps},
      {"rope_theta", shape.rope_theta},
      {"rope_scaling", nullptr},
      {"tie_word_embeddings", shape.tied},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"attention_dropout", 0.0},
      {"torch_dtype", shape.stored == StoredType::kBF16 ? "bfloat16" : "float32"},
  };
  if (shape.rope_factor > 0) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", shape.rope_factor},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 8192}};
  }
  return config;
}

int64_t BaseParameters(const ModelConfig& config) {
  const int64_t layer = config.hidden * (2 * config.q_width() + 2 * config.kv_width()) +
                        3 * config.hidden * config.intermediate + 2 * config.hidden;
  const int64_t matrix = config.vocab * config.hidden;
  return config.layers * layer + config.hidden + (config.tied ? matrix : 2 * matrix);
}

}  // namespace tundra::bench
