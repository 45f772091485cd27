// Text from a rank's model: the prompt through the base's template and
// tokenizer, token by token to a sink.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/model/generate.h"
#include "worker/model/llama.h"
#include "worker/rank_base.h"
#include "worker/rank_control.pb.h"

namespace tundra::worker {

// Told each piece of text (complete UTF-8, may be empty) with the number of
// tokens so far; false stops.
using TextSink = std::function<bool(const std::string& text, int tokens)>;

struct Prompt {
  std::string text;
  // Put into the chat template as one user turn, where the base has one.
  bool templated = true;
  int max_tokens = 64;
  double temperature = 0;
  double top_p = 1;
  uint64_t seed = 0;
};

// Used by the rank's main thread.
class RankGenerator {
 public:
  explicit RankGenerator(RankBase* base) : base_(base) {}

  // Returns "stop" or "length". Where weights come over the network every rank
  // makes the same call, with sinks that decide alike.
  // Errors: kInvalidArgument for a prompt that is too long or not UTF-8.
  absl::StatusOr<std::string> Run(const Prompt& prompt, const AdapterView& adapter,
                                  const TextSink& sink);

  // The same with an adapter's files. Errors: also those of ReadAdapter.
  absl::StatusOr<std::string> RunTask(const GroupGenerate& task, const TextSink& sink);

 private:
  absl::StatusOr<std::vector<int32_t>> Tokens(const Prompt& prompt) const;

  RankBase* const base_;
  std::unique_ptr<Llama> model_;
};

}  // namespace tundra::worker
