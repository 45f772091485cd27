// A base's folder as a worker finds it: config.json, generation_config.json, the index of its
// weights, two weight files, and the worker's own cache of its hash.
#include <optional>

#include "tests/fuzz/scratch.h"
#include "tests/fuzz/target.h"
#include "worker/model/base_files.h"
#include "worker/model/base_hash.h"
#include "worker/model/config.h"
#include "worker/model/lora.h"
#include "worker/model/shard_plan.h"

namespace {

using namespace tundra;

// As large as what it is worth to compute of it here; larger ones are planned alike.
bool IsSmall(const ModelConfig& config) { return config.layers <= 1000 && config.head_dim <= 4096; }

void Plan(const ModelConfig& config, const BaseFiles& files) {
  for (const int shards : {1, 3}) {
    const auto plan = ShardPlan::Make(config, files, shards);
    if (!plan.ok()) continue;
    for (const Unit& unit : plan->units()) {
      EXPECT_FUZZ(unit.slice_bytes * static_cast<uint64_t>(shards) >= unit.bytes);
      for (const UnitTensor& tensor : unit.tensors) {
        EXPECT_FUZZ(tensor.offset <= unit.bytes && tensor.bytes <= unit.bytes - tensor.offset);
      }
    }
    std::vector<std::byte> shard(plan->shard_bytes());
    for (int i = 0; i < shards; ++i) EXPECT_FUZZ(LoadShard(*plan, files, i, shard).ok());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const tundra::fuzz::Scratch scratch;
  const auto parts = tundra::fuzz::Parts(tundra::fuzz::View(data, size), 6);
  constexpr const char* kNames[] = {
      "config.json", "generation_config.json", "model.safetensors.index.json",
      "cache.json",  "a.safetensors",          "model.safetensors"};
  for (size_t i = 0; i < parts.size(); ++i) scratch.Write(kNames[i], parts[i]);
  const auto config = ReadModelConfig(scratch.path());
  if (config.ok() && IsSmall(*config)) {
    EXPECT_FUZZ(RopeFrequencies(*config).size() == static_cast<size_t>(config->head_dim / 2));
    (void)LoraLayout::Make(*config, {});
  }
  const auto files = BaseFiles::Open(scratch.path());
  if (!files.ok()) return 0;
  (void)HashBaseCached(scratch.path(), scratch / "cache.json");
  if (config.ok() && IsSmall(*config)) Plan(*config, *files);
  return 0;
}
