// Examples to token ids, and which of them are targets.
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

// What the template said, without our place in front of the row's.
RowProblem TemplateProblem(const absl::Status& status) {
  return Problem(RowError::kTemplate, absl::StrCat("the chat template refuses this row: ",
                                                   status.message(), "; change or drop the row"));
}

RowProblem Inconsistent(std::string_view why) {
  return Problem(
      RowError::kSpans,
      absl::StrCat("the assistant's turns can't be told from the rendered text (", std::string(why),
                   "); mark them with {% generation %} in the chat template, or set loss_on: all"));
}

bool IsAssistant(const RowExample& example, size_t i) {
  return example.messages[i]["role"] == "assistant";
}

// Tool calls of the OpenAI API carry their arguments as a JSON text, while
// templates expect the object. True when something changed.
bool DecodeArguments(Json* messages) {
  bool changed = false;
  for (Json& message : *messages) {
    const auto calls = message.find("tool_calls");
    if (calls == message.end() || !calls->is_array()) continue;
    for (Json& call : *calls) {
      if (!call.is_object() || !call.contains("function") || !call["function"].is_object())
        continue;
      Json& function = call["function"];
      const auto arguments = function.find("arguments");
      if (arguments == function.end() || !arguments->is_string()) continue;
      // The nesting of a text inside a row is not bounded by the row's.
      const auto& text = arguments->get_ref<const std::string&>();
      if (std::count_if(text.begin(), text.end(), [](char c) { return c == '[' || c == '{'; }) >
          5000)
        continue;
      Json decoded = Json::parse(text, nullptr, /*allow_exceptions=*/false);
      if (!decoded.is_object()) continue;
      *arguments = std::move(decoded);
      changed = true;
    }
  }
  return changed;
}

// What a message calls a tool with.
constexpr const char* kCallKeys[] = {"tool_calls", "function_call"};

// What a data set's bytes pay for of the chat template's steps. Real templates take some
// tens of steps a message, and some hundreds before the first.
constexpr uint64_t kFirstSteps = 20'000'000;
constexpr uint64_t kStepsPerRow = 20'000;
constexpr uint64_t kStepsPerByte = 500;

bool HasParts(const Json& message) {
  const auto content = message.find("content");
  return content != message.end() && content->is_array();
}

// Whether the template wrote a list of parts as Python writes lists: it knows texts only.
bool WritesPartsAsList(const RowExample& example, const std::string& text) {
  return std::any_of(example.messages.begin(), example.messages.end(), [&](const Json& message) {
    return HasParts(message) &&
           FindText(text, jinja::ToStr(jinja::Value::FromJson(message["content"]))) !=
               std::string::npos;
  });
}

// The parts' texts, one behind the other: what templates that know parts write.
void JoinParts(Json* messages) {
  for (Json& message : *messages) {
    if (!HasParts(message)) continue;
    std::string joined;
    for (const Json& part : message["content"]) joined += part["text"].get<std::string>();
    message["content"] = std::move(joined);
  }
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

bool HasCalls(const Json& message) {
  return std::any_of(std::begin(kCallKeys), std::end(kCallKeys), [&](const char* key) {
    const auto calls = message.find(key);
    return calls != message.end() && !calls->empty();
  });
}

RowProblem TooLong(size_t length, size_t most) {
  return Problem(RowError::kTooLong,
                 absl::StrCat(length, " tokens, over max_seq_length ", most,
                              "; shorten or split the row, raise max_seq_length, or set truncate"));
}

}  // namespace

std::vector<uint8_t> MarkTokens(const Encoding& encoding,
                                const std::vector<std::pair<size_t, size_t>>& spans) {
  std::vector<uint8_t> marks(encoding.ids.size(), 0);
  size_t span = 0;
  for (size_t i = 0; i < marks.size(); ++i) {
    const auto& [begin, end] = encoding.offsets[i];
    while (span < spans.size() && begin >= spans[span].second) ++span;
    if (span == spans.size()) break;
    if (end > spans[span].first) marks[i] = 1;
  }
  return marks;
}

int64_t TokenizedRow::targets() const {
  return trained.empty() ? 0 : std::count(trained.begin() + 1, trained.end(), uint8_t{1});
}

RowTokenizer::RowTokenizer(std::shared_ptr<const BaseText> base, const DatasetOptions& options)
    : base_(std::move(base)), options_(options), template_steps_(kFirstSteps) {}

LossOn RowTokenizer::Loss(DatasetFormat format) const {
  if (options_.loss_on != LossOn::kDefault) return options_.loss_on;
  switch (format) {
    case DatasetFormat::kText:
      return LossOn::kAll;
    case DatasetFormat::kPromptCompletion:
      return LossOn::kCompletion;
    default:
      return LossOn::kAssistant;
  }
}

RowProblem RowTokenizer::Tokenize(std::string_view line, uint64_t line_number, TokenizedRow* row) {
  *row = TokenizedRow();
  row->line = line_number;
  template_steps_ += kStepsPerRow + kStepsPerByte * line.size();
  RowExample example;
  const RowProblem problem = ParseRow(line, format_, base_->chat_template() != nullptr, &example);
  if (format_ == DatasetFormat::kUnknown) format_ = example.format;
  if (!problem.ok()) return problem;
  if (!example.chat) return TokenizeText(example, row);
  // Templates want the arguments of tool calls as objects; some want the text.
  RowExample decoded = example;
  if (!DecodeArguments(&decoded.messages)) return TokenizeChat(decoded, row);
  const RowProblem as_object = TokenizeChat(decoded, row);
  if (as_object.error != RowError::kTemplate) return as_object;
  *row = TokenizedRow();
  row->line = line_number;
  return TokenizeChat(example, row).ok() ? RowProblem() : as_object;
}

// --- texts

RowProblem RowTokenizer::TokenizeText(const RowExample& example, TokenizedRow* row) const {
  const LossOn loss = Loss(example.format);
  if (example.format == DatasetFormat::kText && loss != LossOn::kAll) {
    return Problem(
        RowError::kNoTarget,
        absl::StrCat("a text row has no ", std::string(LossOnName(loss)),
                     " to train on; set loss_on: all, or use messages or prompt and completion"));
  }
  std::string text = example.prompt + example.completion;
  if (!base_->eos_token().empty() && !text.ends_with(base_->eos_token()))
    text += base_->eos_token();
  std::vector<Span> spans;
  spans.push_back(loss == LossOn::kAll ? Span{0, text.size()}
                                       : Span{example.prompt.size(), text.size()});
  Encoding encoding;
  if (RowProblem p = Encode(text, /*document=*/true, &encoding); !p.ok()) return p;
  row->trained = MarkTokens(encoding, spans);
  row->ids = std::move(encoding.ids);
  if (loss == LossOn::kAll) std::fill(row->trained.begin(), row->trained.end(), uint8_t{1});
  return Finish(loss, row);
}

// --- conversations

absl::StatusOr<RenderedChat> RowTokenizer::Render(const RowExample& example, size_t messages,
                                                  bool generation_prompt) {
  ChatInput chat = base_->NewChat();
  chat.messages = Json::array();
  for (size_t i = 0; i < messages; ++i) chat.messages.push_back(example.messages[i]);
  chat.tools = example.tools;
  chat.variables = example.variables;
  chat.add_generation_prompt = generation_prompt;
  chat.now = options_.now;
  chat.zone = absl::UTCTimeZone();
  return base_->chat_template(!example.tools.is_null())
      ->Render(chat, RenderLimits(), &template_steps_);
}

// All of the conversation. A template that knows texts only, and not lists of parts, gets the
// parts joined, here and from now on.
absl::StatusOr<RenderedChat> RowTokenizer::RenderWhole(RowExample& example) {
  const size_t count = example.messages.size();
  absl::StatusOr<RenderedChat> whole = Render(example, count, false);
  const bool parts = std::any_of(example.messages.begin(), example.messages.end(), HasParts);
  if (!parts || (whole.ok() && !WritesPartsAsList(example, whole->text))) return whole;
  RowExample joined = example;
  JoinParts(&joined.messages);
  absl::StatusOr<RenderedChat> again = Render(joined, count, false);
  if (!again.ok()) return whole.ok() ? again : whole;
  example = std::move(joined);
  return again;
}

// A template that knows no tools leaves calls out, and what is trained is an empty answer. It
// is known by writing the same without them.
RowProblem RowTokenizer::FindLeftOutCall(const RowExample& example, const std::string& text) {
  for (size_t i = 0; i < example.messages.size(); ++i) {
    for (const char* const key : kCallKeys) {
      const auto calls = example.messages[i].find(key);
      if (calls == example.messages[i].end() || calls->empty()) continue;
      RowExample without = example;
      without.messages[i].erase(key);
      const absl::StatusOr<RenderedChat> same = Render(without, without.messages.size(), false);
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
  const absl::StatusOr<RenderedChat> whole = RenderWhole(example);
  if (!whole.ok()) return TemplateProblem(whole.status());
  Encoding encoding;
  if (RowProblem p = Encode(whole->text, /*document=*/false, &encoding); !p.ok()) return p;
  // Before the turns are looked for, which renders the conversation many times.
  const auto most = static_cast<size_t>(options_.max_seq_length);
  if (encoding.ids.size() > most && !options_.truncate) return TooLong(encoding.ids.size(), most);
  if (RowProblem p = FindLeftOutCall(example, whole->text); !p.ok()) return p;
  std::vector<Span> spans;
  if (loss != LossOn::kAll) {
    if (RowProblem p = FindSpans(example, *whole, loss, &spans); !p.ok()) return p;
  } else {
    spans.push_back(Span{0, whole->text.size()});
  }
  if (loss == LossOn::kAssistant && !chat_template->has_generation_blocks()) {
    TrimAfterEndMarkers(whole->text, encoding, &spans);
  }
  row->trained = MarkTokens(encoding, spans);
  row->ids = std::move(encoding.ids);
  Warn(example, loss, row);
  return Finish(loss, row);
}

void RowTokenizer::Warn(const RowExample& example, LossOn loss, TokenizedRow* row) const {
  const ChatTemplate& chat_template = *base_->chat_template(!example.tools.is_null());
  const auto names = [&](std::string_view word) {
    return FindText(chat_template.source(), word) != std::string_view::npos;
  };
  const bool writes_reasoning = names("reasoning") || names("thinking");
  size_t first = 0;  // that is trained
  if (loss == LossOn::kCompletion) {
    first = example.prompt_messages > 0 ? example.prompt_messages : example.messages.size() - 1;
  }
  bool empty_turn = false;
  bool reasoning = false;
  for (size_t i = first; i < example.messages.size(); ++i) {
    if (!IsAssistant(example, i) || example.trained_turns[i] == 0 || loss == LossOn::kAll) continue;
    const Json& message = example.messages[i];
    if (HasReasoning(message) && !writes_reasoning) {
      reasoning = true;
    } else if (IsBlank(message, "content") && !HasCalls(message) && !HasReasoning(message)) {
      empty_turn = true;
    }
  }
  if (empty_turn) row->warnings.push_back(RowWarning::kEmptyTurn);
  if (!example.tools.is_null() && !names("tools")) {
    row->warnings.push_back(RowWarning::kToolsLeftOut);
  }
  if (reasoning) row->warnings.push_back(RowWarning::kReasoningLeftOut);
}

RowProblem RowTokenizer::FindSpans(const RowExample& example, const RenderedChat& whole,
                                   LossOn loss, std::vector<Span>* spans) {
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
    return TurnSpan(example, first, count, whole.text, spans);
  }
  const bool marked = base_->chat_template(!example.tools.is_null())->has_generation_blocks();
  if (marked) return MarkedSpans(example, whole, spans);
  for (size_t i = 0; i < count; ++i) {
    if (!IsAssistant(example, i) || example.trained_turns[i] == 0) continue;
    if (RowProblem p = TurnSpan(example, i, i + 1, whole.text, spans); !p.ok()) return p;
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
RowProblem RowTokenizer::TurnSpan(const RowExample& example, size_t turn, size_t end_turn,
                                  const std::string& whole, std::vector<Span>* spans) {
  const absl::StatusOr<RenderedChat> before = Render(example, turn, true);
  if (!before.ok()) {
    return Inconsistent(absl::StrCat("the template refuses the first ", turn,
                                     " messages alone: ", before.status().message()));
  }
  if (!std::string_view(whole).starts_with(before->text)) {
    return Inconsistent(absl::StrCat("the first ", turn,
                                     " messages render differently with the generation prompt"));
  }
  size_t end = whole.size();
  if (end_turn < example.messages.size()) {
    const absl::StatusOr<RenderedChat> upto = Render(example, end_turn, false);
    if (!upto.ok()) {
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

RowProblem RowTokenizer::Encode(const std::string& text, bool document, Encoding* encoding) const {
  absl::StatusOr<Encoding> encoded =
      document ? base_->EncodeDocument(text) : base_->tokenizer().EncodeWithOffsets(text, false);
  if (!encoded.ok()) {
    return Problem(RowError::kBadField,
                   absl::StrCat("the row can't be tokenized: ", encoded.status().message()));
  }
  *encoding = *std::move(encoded);
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

RowProblem RowTokenizer::Finish(LossOn loss, TokenizedRow* row) const {
  const auto most = static_cast<size_t>(options_.max_seq_length);
  const size_t length = row->ids.size();
  if (length > most) {
    if (!options_.truncate) return TooLong(length, most);
    row->ids.resize(most);
    row->trained.resize(most);
    row->truncated = true;
  }
  if (!row->trained.empty()) row->trained[0] = 0;  // nothing predicts the first token
  if (row->targets() > 0) return {};
  return Problem(RowError::kNoTarget,
                 row->truncated
                     ? absl::StrCat("no target token within the first ", most,
                                    " tokens; shorten the prompt or raise max_seq_length")
                     : absl::StrCat("no target token with loss_on: ", std::string(LossOnName(loss)),
                                    "; drop the row"));
}

}  // namespace tundra
