// What a base's config.json says, as numbers that the engine has checked.
//
// A model family is a row of a table (config.cc), not a subclass: all families
// here are decoders of RMSNorm, RoPE, grouped-query attention and a gated MLP. What a
// family or a config has beyond that is refused by name, never ignored.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/ops/ops.h"

namespace tundra {

// Rotary position embedding. Angles of pair i of a head: position · f_i with
// f_i = theta^(−2i/head_dim), then scaled.
// Source: transformers, modeling_rope_utils.py.
struct RopeConfig {
  enum class Scaling { kNone, kLinear, kLlama3 };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  // Above 0; the frequencies are divided by it (all of them, or the low ones).
  double factor = 1.0;
  // kLlama3 only.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_positions = 8192;
};

struct ModelConfig {
  // "LlamaForCausalLM".
  std::string architecture;
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  // Divides heads.
  int64_t kv_heads = 0;
  // Even.
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  float rms_eps = 1e-6F;
  // Of the MLP's gate.
  Activation activation = Activation::kSilu;
  // The output matrix is the embedding.
  bool tied = false;
  RopeConfig rope;
  // Ids that end a generation; may be empty.
  std::vector<int64_t> eos_ids;
  // -1 when there is none.
  int64_t bos_id = -1;

  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

// Reads the fields of config.json. `source` names it in messages.
// Errors: kInvalidArgument for a missing or out-of-range field, kUnimplemented
// for an architecture or feature that is not supported, by name.
absl::StatusOr<ModelConfig> ParseModelConfig(const nlohmann::json& json, std::string_view source);

// ParseModelConfig of base_dir/config.json, with eos_ids from
// generation_config.json where that file has them.
// Errors: kNotFound, and those of ParseModelConfig.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& base_dir);

// The head_dim/2 angular frequencies, computed in double, rounded as
// transformers does (to float after each step).
std::vector<float> RopeFrequencies(const ModelConfig& config);

}  // namespace tundra
