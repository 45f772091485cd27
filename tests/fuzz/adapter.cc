// An adapter's folder, which a user uploads: adapter_config.json and adapter_model.safetensors.
#include "worker/train/adapter.h"

#include "tests/fuzz/scratch.h"
#include "tests/fuzz/target.h"

namespace {

using namespace tundra;

ModelConfig SmallModel() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab = 16;
  config.hidden = 4;
  config.intermediate = 8;
  config.layers = 1;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 2;
  config.max_positions = 32;
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const tundra::fuzz::Scratch scratch;
  const auto parts = tundra::fuzz::Parts(tundra::fuzz::View(data, size), 2);
  scratch.Write("adapter_config.json", parts[0]);
  scratch.Write("adapter_model.safetensors", parts[1]);
  const auto adapter = ReadAdapter(scratch.path(), SmallModel());
  if (!adapter.ok()) return 0;
  EXPECT_FUZZ(adapter->weights.size() == static_cast<size_t>(adapter->layout.parameters()));
  // What was read can be written, and reads back as it was.
  const AdapterFiles files = MakeAdapterFiles(adapter->layout, adapter->weights, adapter->origin);
  scratch.Write("adapter_config.json", files.config);
  scratch.Write("adapter_model.safetensors", files.model);
  const auto again = ReadAdapter(scratch.path(), SmallModel());
  EXPECT_FUZZ(again.ok());
  const AdapterFiles twice = MakeAdapterFiles(again->layout, again->weights, again->origin);
  EXPECT_FUZZ(twice.model == files.model && twice.config == files.config);
  return 0;
}
