// A checkpoint, as it comes back from a disk or from the coordinator. Its hash of itself hides
// from mutations what lies behind, so that each input is also tried with the hash put right.
#include "worker/train/checkpoint.h"

#include "common/sha256.h"
#include "tests/fuzz/target.h"

namespace {

using namespace tundra;

// The adapter of "q_proj" alone, of rank 1.
const LoraLayout& Layout() {
  static const LoraLayout* const layout = [] {
    ModelConfig config;
    config.architecture = "LlamaForCausalLM";
    config.vocab = 16;
    config.hidden = 2;
    config.intermediate = 4;
    config.layers = 1;
    config.heads = 1;
    config.kv_heads = 1;
    config.head_dim = 2;
    config.max_positions = 32;
    auto made = LoraLayout::Make(config, {.rank = 1, .target_modules = {"q_proj"}});
    EXPECT_FUZZ(made.ok());
    return new LoraLayout(*std::move(made));
  }();
  return *layout;
}

// With the SHA-256 that the file should have, where its header has one.
std::string WithHash(std::string_view file) {
  std::string mended(file);
  constexpr std::string_view kKey = "\"sha256\":\"";
  constexpr size_t kDigits = 64;
  const size_t key = mended.find(kKey);
  if (key == std::string::npos || mended.size() - key - kKey.size() < kDigits) return mended;
  mended.replace(key + kKey.size(), kDigits, std::string(kDigits, '0'));
  const std::string hash = Sha256Hex(mended);
  return mended.replace(key + kKey.size(), kDigits, hash);
}

void Try(std::string_view file) {
  const JobIdentity identity = {"spec", "base", "class"};
  (void)ReadCheckpointInfo(file, "file");
  const auto state = DecodeCheckpoint(file, "file", Layout(), identity);
  if (!state.ok()) return;
  EXPECT_FUZZ(state->weights.size() == static_cast<size_t>(Layout().parameters()));
  EXPECT_FUZZ(state->exponents.size() == Layout().tensors().size());
  const std::string again = EncodeCheckpoint(Layout(), *state);
  const auto read = DecodeCheckpoint(again, "again", Layout(), identity);
  EXPECT_FUZZ(read.ok() && EncodeCheckpoint(Layout(), *read) == again);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file = tundra::fuzz::View(data, size);
  Try(file);
  Try(WithHash(file));
  return 0;
}
