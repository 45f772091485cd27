// Adapters as folders that PEFT reads and writes: adapter_model.safetensors and
// adapter_config.json.
//
// Written keys and their order are those of the pinned PEFT release (peft_version
// below), all that a job doesn't set at their defaults. The base's content hash and
// the numerics class stand in the safetensors metadata, which PEFT doesn't look at.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/lora.h"

namespace tundra {

inline constexpr char kPeftVersion[] = "0.21.2";

struct AdapterFiles {
  std::string model;   // adapter_model.safetensors
  std::string config;  // adapter_config.json
};

struct AdapterOrigin {
  // For base_model_name_or_path: what the user called the base.
  std::string base_name;
  // Content hash, hex; empty when unknown.
  std::string base_hash;
  std::string numerics_class;
};

// weights: layout.parameters() elements. Equal arguments give equal bytes.
AdapterFiles MakeAdapterFiles(const LoraLayout& layout, std::span<const float> weights,
                              const AdapterOrigin& origin);

// Makes the folder and writes both files, each atomically, the config last.
absl::Status WriteAdapter(const std::string& dir, const AdapterFiles& files);

struct LoadedAdapter {
  LoraLayout layout;
  std::vector<float> weights;
  // base_hash and numerics_class are empty for adapters that others made.
  AdapterOrigin origin;
};

// Reads an adapter for a base of this config, with tensors in f32, bf16 or f16.
// Errors: kNotFound; kInvalidArgument for damaged files, or tensors that are missing,
// too many or of a wrong shape; kUnimplemented for what PEFT can but we can't, by name.
absl::StatusOr<LoadedAdapter> ReadAdapter(const std::string& dir, const ModelConfig& config);

}  // namespace tundra
