// Examples to token ids, and which of them are targets.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/text/dataset.h"
#include "common/text/row_parser.h"
#include "common/text/tokenizer.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;

RowProblem Problem(RowError error, std::string what) { return RowProblem{error, std::move(what)}; }

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

// What a data set's bytes pay for of the chat template's steps. Real templates take some
// tens of steps a message, and some hundreds before the first.
constexpr uint64_t kFirstSteps = 20'000'000;
constexpr uint64_t kStepsPerRow = 20'000;
constexpr uint64_t kStepsPerByte = 500;

}  // namespace

RowProblem RowTooLong(size_t length, size_t most) {
  return Problem(RowError::kTooLong,
                 absl::StrCat(length, " tokens, over max_seq_length ", most,
                              "; shorten or split the row, raise max_seq_length, or set truncate"));
}

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

RowProblem RowTokenizer::Finish(LossOn loss, TokenizedRow* row) const {
  const auto most = static_cast<size_t>(options_.max_seq_length);
  const size_t length = row->ids.size();
  if (length > most) {
    if (!options_.truncate) return RowTooLong(length, most);
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
