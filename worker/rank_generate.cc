#include "worker/rank_generate.h"

#include <algorithm>

#include "common/files.h"
#include "common/status.h"
#include "common/text/tokenizer.h"
#include "worker/train/adapter.h"

namespace tundra::worker {
namespace {

// Longest context that prompts get, whatever the base supports: attention's
// tables and activations grow with it.
constexpr int64_t kMaxPositions = 8192;

}  // namespace

absl::StatusOr<std::vector<int32_t>> RankGenerator::Tokens(const Prompt& prompt) const {
  const BaseText& text = *base_->text();
  if (!prompt.templated || text.chat_template() == nullptr) {
    return text.tokenizer().Encode(prompt.text, /*add_special_tokens=*/true);
  }
  ChatInput chat = text.NewChat();
  chat.messages.push_back({{"role", "user"}, {"content", prompt.text}});
  chat.add_generation_prompt = true;
  ASSIGN_OR_RETURN(const RenderedChat rendered, text.chat_template()->Render(chat));
  return text.tokenizer().Encode(rendered.text, /*add_special_tokens=*/false);
}

absl::StatusOr<std::string> RankGenerator::Run(const Prompt& prompt, const AdapterView& adapter,
                                               const TextSink& sink) {
  if (model_ == nullptr) {
    ModelOptions options;
    options.precision = base_->precision();
    options.max_positions = std::min(base_->config().max_positions, kMaxPositions);
    ASSIGN_OR_RETURN(model_,
                     Llama::Create(base_->config(), base_->ops(), base_->weights(), options));
  }
  ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, Tokens(prompt));
  if (tokens.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
  if (static_cast<int64_t>(tokens.size()) >= model_->max_positions()) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt has ", tokens.size(),
                                                   " tokens; the longest that can be answered "
                                                   "has ",
                                                   model_->max_positions() - 1));
  }
  GenerateOptions options;
  options.max_tokens = prompt.max_tokens;
  options.temperature = prompt.temperature;
  options.top_p = prompt.top_p;
  options.seed = prompt.seed;
  for (const int32_t id : base_->text()->stop_ids()) options.eos_ids.push_back(id);
  StreamDecoder decoder(base_->text()->tokenizer(), /*skip_special_tokens=*/true);
  int count = 0;
  ASSIGN_OR_RETURN(const StopReason reason,
                   Generate(*model_, adapter, tokens, options, [&](int32_t token) {
                     ++count;
                     return sink(decoder.Put(token), count);
                   }));
  const std::string rest = decoder.Finish();
  if (!rest.empty()) sink(rest, count);
  return std::string(reason == StopReason::kEos ? "stop" : "length");
}

absl::StatusOr<std::string> RankGenerator::RunTask(const GroupGenerate& task,
                                                   const TextSink& sink) {
  Prompt prompt;
  prompt.text = task.task().prompt();
  prompt.templated = task.task().templated();
  prompt.max_tokens = task.task().max_tokens();
  prompt.temperature = task.task().temperature();
  prompt.top_p = task.task().top_p() > 0 ? task.task().top_p() : 1;
  prompt.seed = static_cast<uint64_t>(task.task().seed());
  if (task.adapter_model().empty()) return Run(prompt, AdapterView{}, sink);

  TempDir dir;
  RETURN_IF_ERROR(WriteAdapter(dir.path(), {task.adapter_model(), task.adapter_config()}));
  ASSIGN_OR_RETURN(const LoadedAdapter loaded, ReadAdapter(dir.path(), base_->config()));
  if (!loaded.origin.base_hash.empty() && loaded.origin.base_hash != base_->setup().base_hash()) {
    return absl::InvalidArgumentError(absl::StrCat("the adapter was trained on base ",
                                                   loaded.origin.base_hash, ", not on ",
                                                   base_->setup().base_hash()));
  }
  const size_t bytes = loaded.weights.size() * sizeof(float);
  ASSIGN_OR_RETURN(const Buffer buffer, base_->device()->Allocate(bytes));
  ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, base_->device()->CreateStream());
  const Ctx ctx{stream.get(), nullptr};
  RETURN_IF_ERROR(base_->device()->CopyIn(ctx, buffer.data(), loaded.weights.data(), bytes));
  RETURN_IF_ERROR(base_->device()->Synchronize(ctx));
  const AdapterView view{
      &loaded.layout, buffer.Matrix(DType::kF32, 1, static_cast<int64_t>(loaded.weights.size()))};
  return Run(prompt, view, sink);
}

}  // namespace tundra::worker
