// Models by name, as the figures of the config.json that they are published with. A
// bench needs a model's shape, not its knowledge: random weights cost the same.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/model/config.h"
#include "worker/model/safetensors.h"

namespace tundra::bench {

struct ModelShape {
  // As the bench is told it, and what is published under that shape.
  std::string_view name;
  std::string_view published_as;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, max_positions;
  double rms_eps;
  double rope_theta;
  // Of Llama 3's frequency scaling; 0: none.
  double rope_factor;
  bool tied;
  StoredType stored;
};

// All of them, from the smallest.
std::span<const ModelShape> ModelShapes();

// Errors: kNotFound, with the name that was probably meant.
absl::StatusOr<const ModelShape*> FindModelShape(std::string_view name);

// The shape as a config.json, which this engine and Transformers both read.
nlohmann::json ConfigJson(const ModelShape& shape);

// Numbers in all tensors of the base; a tied output matrix counts once.
int64_t BaseParameters(const ModelConfig& config);

}  // namespace tundra::bench
