// For tests: a base in memory, unsharded, with its device and operations, and the
// golden files of tests/parity.
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/check.h"
#include "common/files.h"
#include "common/status.h"
#include "nlohmann/json.hpp"
#include "worker/model/llama.h"
#include "worker/model/resident_shard.h"

namespace tundra {

// A device and its operations, which are destroyed first.
struct TestDevice {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
};

struct TestBaseOptions {
  int threads = 1;
  int shards = 1;
  Precision precision = Precision::kF32;
  // Where the base is used; a CPU with `threads` by default.
  std::function<absl::StatusOr<TestDevice>()> open_device = nullptr;
};

// All shards of a base on this host, and a source that maps them.
struct TestBase {
  static absl::StatusOr<std::unique_ptr<TestBase>> Open(const std::string& dir,
                                                        const TestBaseOptions& options) {
    auto base = std::make_unique<TestBase>();
    base->options = options;
    ASSIGN_OR_RETURN(base->config, ReadModelConfig(dir));
    ASSIGN_OR_RETURN(const BaseFiles files, BaseFiles::Open(dir));
    ASSIGN_OR_RETURN(ShardPlan plan, ShardPlan::Make(base->config, files, options.shards));
    base->plan = std::make_unique<ShardPlan>(std::move(plan));
    std::vector<int> fds;
    for (int s = 0; s < options.shards; ++s) {
      ASSIGN_OR_RETURN(ResidentShard shard, ResidentShard::Load(*base->plan, files, s));
      base->shards.push_back(std::move(shard));
      fds.push_back(base->shards.back().fd());
    }
    if (options.open_device != nullptr) {
      ASSIGN_OR_RETURN(TestDevice opened, options.open_device());
      base->device = std::move(opened.device);
      base->ops = std::move(opened.ops);
    } else {
      ASSIGN_OR_RETURN(base->device, CreateCpuDevice({.threads = options.threads, .max_isa = ""}));
      ASSIGN_OR_RETURN(base->ops, CreateCpuOps(base->device.get()));
    }
    WeightSourceOptions source;
    source.precision = options.precision;
    source.shard_fds = fds;
    ASSIGN_OR_RETURN(base->weights, WeightSource::Create(*base->plan, base->ops.get(), source));
    return base;
  }

  absl::StatusOr<std::unique_ptr<Llama>> NewModel(int64_t max_positions, bool graphs = true) {
    return Llama::Create(
        config, ops.get(), weights.get(),
        {.precision = options.precision, .max_positions = max_positions, .graphs = graphs});
  }

  TestBaseOptions options;
  ModelConfig config;
  std::unique_ptr<ShardPlan> plan;
  std::vector<ResidentShard> shards;
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<WeightSource> weights;
};

inline std::string GoldenDir() {
  const char* source = std::getenv("TUNDRA_SOURCE_DIR");
  return std::string(source != nullptr ? source : ".") + "/tests/parity/golden/peft";
}

inline nlohmann::json LoadJson(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  TUNDRA_CHECK(text.ok()) << text.status().ToString();
  return nlohmann::json::parse(*text);
}

// A row that owns its tokens.
struct OwnedRow {
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;
  RowView view(int64_t index) const { return {ids, trained, index}; }
};

inline std::vector<OwnedRow> GoldenRows(const nlohmann::json& golden) {
  std::vector<OwnedRow> rows;
  for (const nlohmann::json& row : golden["rows"]) {
    OwnedRow owned;
    owned.ids = row["input_ids"].get<std::vector<int32_t>>();
    for (const int label : row["labels"]) owned.trained.push_back(label != -100 ? 1 : 0);
    rows.push_back(std::move(owned));
  }
  return rows;
}

inline std::vector<RowView> ViewsOf(const std::vector<OwnedRow>& rows) {
  std::vector<RowView> views;
  for (const OwnedRow& row : rows) views.push_back(row.view(static_cast<int64_t>(views.size())));
  return views;
}

inline absl::StatusOr<Batch> BatchOf(const std::vector<OwnedRow>& rows, int64_t vocab) {
  return MakeBatch(ViewsOf(rows), vocab);
}

inline std::vector<std::string> TargetsOf(const nlohmann::json& targets) {
  if (targets.is_string()) return {targets.get<std::string>()};
  return targets.get<std::vector<std::string>>();
}

inline std::vector<float> FloatsOf(const SafetensorsFile& file, const std::string& name) {
  const TensorEntry* entry = file.header().Find(name);
  TUNDRA_CHECK(entry != nullptr && entry->type == StoredType::kF32) << name;
  std::vector<float> values((entry->end - entry->begin) / sizeof(float));
  TUNDRA_CHECK(file.Read(*entry, 0, entry->end - entry->begin, values.data()).ok()) << name;
  return values;
}

inline std::vector<float> AdapterFromFile(const LoraLayout& layout, const SafetensorsFile& file) {
  std::vector<float> weights;
  for (const LoraTensor& tensor : layout.tensors()) {
    const std::vector<float> values = FloatsOf(file, tensor.name);
    weights.insert(weights.end(), values.begin(), values.end());
  }
  return weights;
}

}  // namespace tundra
