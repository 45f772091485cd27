// Conversations to token ids: rendered by the base's chat template, and the trained turns
// found in what it wrote.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/text/dataset.h"
#include "common/text/find.h"
#include "common/text/jinja/unicode.h"
#include "common/text/jinja/value.h"
#include "common/text/row_parser.h"
#include "common/text/tokenizer.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;

RowProblem Problem(RowError error, std::string what) { return RowProblem{error, std::move(what)}; }

RowProblem Inconsistent(std::string_view why) {
  return Problem(
      RowError::kSpans,
      absl::StrCat("the assistant's turns can't be told from the rendered text (", std::string(why),
                   "); mark them with {% generation %} in the chat template, or set loss_on: all"));
}

bool IsAssistant(const RowExample& example, size_t i) {
  return example.messages[i]["role"] == "assistant";
}

// What a message calls a tool with.
constexpr const char* kCallKeys[] = {"tool_calls", "function_call"};

bool HasParts(const Json& message) {
  const auto content = message.find("content");
  return content != message.end() && content->is_array();
}

// Whether the text holds the message's parts as Python writes a list.
bool IsWrittenAsList(const Json& message, const std::string& text) {
  const std::string list = jinja::ToStr(jinja::Value::FromJson(message["content"]));
  return FindText(text, list) != std::string::npos;
}

// The parts' texts, one behind the other: what templates that know parts write.
void JoinParts(Json* message) {
  std::string joined;
  for (const Json& part : (*message)["content"]) joined += part["text"].get<std::string>();
  (*message)["content"] = std::move(joined);
}

bool IsBlank(const Json& message, const char* key) {
  const auto it = message.find(key);
  if (it == message.end() || it->is_null()) return true;
  if (it->is_string()) return jinja::Strip(it->get_ref<const std::string&>()).empty();
  return it->is_array() && std::all_of(it->begin(), it->end(), [](const Json& part) {
           return part.is_object() && IsBlank(part, "text");
         });
}

bool HasReasoning(const Json& message) {
  return !IsBlank(message, "reasoning_content") || !IsBlank(message, "reasoning") ||
         !IsBlank(message, "thinking");
}

}  // namespace

absl::StatusOr<PreparedChat> RowTokenizer::Prepare(const RowExample& example) const {
  ChatInput input = base_->NewChat();
  input.messages = example.messages;
  input.tools = example.tools;
  input.variables = example.variables;
  input.now = options_.now;
  input.zone = absl::UTCTimeZone();
  return PreparedChat::Make(input);
}

absl::StatusOr<RenderedChat> RowTokenizer::Render(const Chat& chat, size_t messages,
                                                  bool generation_prompt) {
  return chat.chat_template.Render(chat.prepared, messages, generation_prompt, RenderLimits(),
                                   &template_steps_);
}

// What the template said, without our place in front of the row's.
RowProblem RowTokenizer::TemplateProblem(const absl::Status& status) const {
  if (template_steps_ == 0 && absl::IsResourceExhausted(status)) {
    return Problem(RowError::kTemplateTooSlow,
                   "the base's chat template takes too long: all the steps that the data set so "
                   "far pays for are used up; mark the assistant's turns in it with "
                   "{% generation %}, or use a base with a simpler one");
  }
  return Problem(RowError::kTemplate, absl::StrCat("the chat template refuses this row: ",
                                                   status.message(), "; change or drop the row"));
}

// All of the conversation. Where the template knows texts only, and writes a list of parts as
// Python writes lists, or fails over it, such lists are joined, here and from now on.
absl::StatusOr<RenderedChat> RowTokenizer::RenderWhole(Chat& chat) {
  const size_t count = chat.example.messages.size();
  absl::StatusOr<RenderedChat> whole = Render(chat, count, false);
  RowExample joined = chat.example;
  bool any = false;
  for (Json& message : joined.messages) {
    if (!HasParts(message) || (whole.ok() && !IsWrittenAsList(message, whole->text))) continue;
    JoinParts(&message);
    any = true;
  }
  if (!any) return whole;
  absl::StatusOr<PreparedChat> prepared = Prepare(joined);
  if (!prepared.ok()) return prepared.status();
  const Chat again{joined, chat.chat_template, *std::move(prepared)};
  absl::StatusOr<RenderedChat> rendered = Render(again, count, false);
  if (!rendered.ok()) return whole.ok() ? rendered : whole;
  chat.prepared = again.prepared;
  chat.example = std::move(joined);
  return rendered;
}

// A template that knows no tools leaves calls out, and what is trained is an empty answer. It
// is known by writing the same without them.
RowProblem RowTokenizer::FindLeftOutCall(const Chat& chat, const std::string& text) {
  const Json& messages = chat.example.messages;
  for (size_t i = 0; i < messages.size(); ++i) {
    for (const char* const key : kCallKeys) {
      const auto calls = messages[i].find(key);
      if (calls == messages[i].end() || calls->empty()) continue;
      Json without = messages[i];
      without.erase(key);
      absl::StatusOr<PreparedChat> prepared = chat.prepared.Replaced(i, without);
      if (!prepared.ok()) return TemplateProblem(prepared.status());
      const absl::StatusOr<RenderedChat> same =
          Render({chat.example, chat.chat_template, *std::move(prepared)}, messages.size(), false);
      if (template_steps_ == 0) return TemplateProblem(same.status());
      if (!same.ok() || same->text != text) continue;
      return Problem(
          RowError::kTemplate,
          absl::StrCat("the base's chat template leaves out the ", key, " of messages[", i,
                       "]; drop the row, or train on a base whose template writes "
                       "calls of tools"));
    }
  }
  return {};
}

RowProblem RowTokenizer::TokenizeChat(RowExample& example, TokenizedRow* row) {
  const ChatTemplate* chat_template = base_->chat_template(!example.tools.is_null());
  if (chat_template == nullptr) {
    return Problem(RowError::kTemplate,
                   "the base has no chat template, so a conversation can't be rendered; use prompt "
                   "and completion or "
                   "text rows, or a base with a chat template");
  }
  const LossOn loss = Loss(example.format);
  const size_t count = example.messages.size();
  if (loss != LossOn::kAll) {
    size_t turns = 0;
    for (size_t i = 0; i < count; ++i)
      turns += IsAssistant(example, i) && example.trained_turns[i] != 0 ? 1 : 0;
    if (turns == 0) {
      return Problem(RowError::kNoTarget,
                     "no assistant turn (of weight 1), so nothing to train on; drop the row or set "
                     "loss_on: all");
    }
  }
  absl::StatusOr<PreparedChat> prepared = Prepare(example);
  if (!prepared.ok()) return TemplateProblem(prepared.status());
  Chat chat{example, *chat_template, *std::move(prepared)};
  const absl::StatusOr<RenderedChat> whole = RenderWhole(chat);
  if (!whole.ok()) return TemplateProblem(whole.status());
  Encoding encoding;
  if (RowProblem p = Encode(whole->text, /*document=*/false, &encoding); !p.ok()) return p;
  // Before the turns are looked for, which renders the conversation many times.
  const auto most = static_cast<size_t>(options_.max_seq_length);
  if (encoding.ids.size() > most && !options_.truncate)
    return RowTooLong(encoding.ids.size(), most);
  if (RowProblem p = FindLeftOutCall(chat, whole->text); !p.ok()) return p;
  std::vector<Span> spans;
  if (loss != LossOn::kAll) {
    if (RowProblem p = FindSpans(chat, *whole, loss, &spans); !p.ok()) return p;
  } else {
    spans.push_back(Span{0, whole->text.size()});
  }
  if (loss == LossOn::kAssistant && !chat_template->has_generation_blocks()) {
    TrimAfterEndMarkers(whole->text, encoding, &spans);
  }
  Warn(chat, loss, row);
  if (loss != LossOn::kAll && HasEmptySpan(whole->text, encoding, spans)) {
    row->warnings.push_back(RowWarning::kEmptyTurn);
  }
  row->trained = MarkTokens(encoding, spans);
  row->ids = std::move(encoding.ids);
  return Finish(loss, row);
}

// Whether a span holds nothing but white space beside special tokens.
bool RowTokenizer::HasEmptySpan(const std::string& text, const Encoding& encoding,
                                const std::vector<Span>& spans) const {
  size_t token = 0;
  for (const auto& [begin, end] : spans) {
    bool empty = true;
    for (; token < encoding.ids.size() && encoding.offsets[token].first < end; ++token) {
      const auto& [from, to] = encoding.offsets[token];
      if (from < begin || base_->tokenizer().IsSpecial(encoding.ids[token])) continue;
      empty = empty && jinja::Strip(std::string_view(text).substr(from, to - from)).empty();
    }
    if (empty) return true;
  }
  return false;
}

void RowTokenizer::Warn(const Chat& chat, LossOn loss, TokenizedRow* row) const {
  const auto names = [&](std::string_view word) {
    return FindText(chat.chat_template.source(), word) != std::string_view::npos;
  };
  const Json& messages = chat.example.messages;
  if (!chat.example.tools.is_null() && !names("tools")) {
    row->warnings.push_back(RowWarning::kToolsLeftOut);
  }
  if (loss == LossOn::kAll || names("reasoning") || names("thinking")) return;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!IsAssistant(chat.example, i) || chat.example.trained_turns[i] == 0) continue;
    if (!HasReasoning(messages[i])) continue;
    row->warnings.push_back(RowWarning::kReasoningLeftOut);
    return;
  }
}

RowProblem RowTokenizer::FindSpans(const Chat& chat, const RenderedChat& whole, LossOn loss,
                                   std::vector<Span>* spans) {
  const RowExample& example = chat.example;
  const size_t count = example.messages.size();
  if (loss == LossOn::kCompletion) {
    const size_t first = example.prompt_messages > 0 ? example.prompt_messages : count - 1;
    if (!IsAssistant(example, first) || example.trained_turns[first] == 0) {
      return Problem(
          RowError::kNoTarget,
          absl::StrCat("the ",
                       example.prompt_messages > 0 ? "completion does not begin with"
                                                   : "last message is not",
                       " an assistant message of weight 1, so there is no completion to train on; "
                       "drop the row or set loss_on: assistant"));
    }
    return TurnSpan(chat, first, count, whole.text, spans);
  }
  if (chat.chat_template.has_generation_blocks()) return MarkedSpans(example, whole, spans);
  for (size_t i = 0; i < count; ++i) {
    if (!IsAssistant(example, i) || example.trained_turns[i] == 0) continue;
    if (RowProblem p = TurnSpan(chat, i, i + 1, whole.text, spans); !p.ok()) return p;
  }
  return {};
}

RowProblem RowTokenizer::MarkedSpans(const RowExample& example, const RenderedChat& whole,
                                     std::vector<Span>* spans) const {
  std::vector<uint8_t> weights;
  for (size_t i = 0; i < example.messages.size(); ++i) {
    if (IsAssistant(example, i)) weights.push_back(example.trained_turns[i]);
  }
  const bool all =
      std::all_of(weights.begin(), weights.end(), [](uint8_t weight) { return weight != 0; });
  if (!all && weights.size() != whole.generation_spans.size()) {
    return Inconsistent(absl::StrCat("weights of ", weights.size(),
                                     " assistant turns, but the template marks ",
                                     whole.generation_spans.size(), " parts"));
  }
  for (size_t i = 0; i < whole.generation_spans.size(); ++i) {
    const auto& [begin, end] = whole.generation_spans[i];
    if (all || weights[i] != 0) spans->push_back(Span{begin, end});
  }
  return {};
}

// What messages [turn, end_turn) add to the rendering of those before, with the
// generation prompt, as long as growing prefixes of the conversation render to
// growing prefixes of the text.
RowProblem RowTokenizer::TurnSpan(const Chat& chat, size_t turn, size_t end_turn,
                                  const std::string& whole, std::vector<Span>* spans) {
  const absl::StatusOr<RenderedChat> before = Render(chat, turn, true);
  if (!before.ok()) {
    if (template_steps_ == 0) return TemplateProblem(before.status());
    return Inconsistent(absl::StrCat("the template refuses the first ", turn,
                                     " messages alone: ", before.status().message()));
  }
  if (!std::string_view(whole).starts_with(before->text)) {
    return Inconsistent(absl::StrCat("the first ", turn,
                                     " messages render differently with the generation prompt"));
  }
  size_t end = whole.size();
  if (end_turn < chat.example.messages.size()) {
    const absl::StatusOr<RenderedChat> upto = Render(chat, end_turn, false);
    if (!upto.ok()) {
      if (template_steps_ == 0) return TemplateProblem(upto.status());
      return Inconsistent(absl::StrCat("the template refuses the first ", end_turn,
                                       " messages alone: ", upto.status().message()));
    }
    if (!std::string_view(whole).starts_with(upto->text)) {
      return Inconsistent(
          absl::StrCat("the first ", end_turn, " messages render differently alone"));
    }
    end = upto->text.size();
  }
  if (end < before->text.size()) return Inconsistent("a turn has no text of its own");
  spans->push_back(Span{before->text.size(), end});
  return {};
}

// Leaves out white space after the last special token of each span.
void RowTokenizer::TrimAfterEndMarkers(const std::string& text, const Encoding& encoding,
                                       std::vector<Span>* spans) const {
  const auto& offsets = encoding.offsets;
  size_t token = 0;
  for (auto& [begin, end] : *spans) {
    size_t marker_end = 0;
    for (; token < offsets.size() && offsets[token].first < end; ++token) {
      if (offsets[token].first >= begin && base_->tokenizer().IsSpecial(encoding.ids[token]))
        marker_end = offsets[token].second;
    }
    if (marker_end == 0 || marker_end > end) continue;
    const std::string_view rest = std::string_view(text).substr(marker_end, end - marker_end);
    if (jinja::Strip(rest).empty()) end = marker_end;
  }
}

}  // namespace tundra
