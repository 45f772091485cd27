#include "common/text/dataset.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/interrupt.h"
#include "common/status.h"
#include "common/text/decompress.h"

namespace tundra {
namespace {

constexpr size_t kMaxLineBytes = size_t{8} << 20;

// Cuts pieces into lines.
class LineCutter {
 public:
  explicit LineCutter(absl::FunctionRef<bool(const DatasetLine&)> on_line) : on_line_(on_line) {}

  bool Put(std::string_view piece) {
    while (!piece.empty()) {
      const size_t end = piece.find('\n');
      const bool ends = end != std::string_view::npos;
      const std::string_view part = piece.substr(0, end);
      piece.remove_prefix(ends ? end + 1 : piece.size());
      if (ends && line_.empty() && !too_long_ && part.size() <= kMaxLineBytes) {
        if (!Give(part)) return false;  // the whole line stands in this piece
        continue;
      }
      if (!too_long_ && line_.size() + part.size() <= kMaxLineBytes) {
        line_ += part;
      } else {
        too_long_ = true;
        line_.clear();
      }
      if (ends && !Flush()) return false;
    }
    return true;
  }

  // The line without an end, if there is one.
  void Finish() {
    if (!line_.empty() || too_long_) Flush();
  }

 private:
  bool Flush() {
    const std::string line = std::exchange(line_, "");
    if (!std::exchange(too_long_, false)) return Give(line);
    return on_line_(DatasetLine{"", ++number_, true});
  }

  bool Give(std::string_view line) {
    ++number_;
    if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);  // byte order mark
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) return true;
    return on_line_(DatasetLine{line, number_, false});
  }

  absl::FunctionRef<bool(const DatasetLine&)> on_line_;
  std::string line_;
  bool too_long_ = false;
  uint64_t number_ = 0;
};

}  // namespace

std::string_view DatasetFormatName(DatasetFormat format) {
  switch (format) {
    case DatasetFormat::kUnknown:
      return "unknown";
    case DatasetFormat::kMessages:
      return "messages";
    case DatasetFormat::kPromptCompletion:
      return "prompt-completion";
    case DatasetFormat::kText:
      return "text";
    case DatasetFormat::kAlpaca:
      return "alpaca";
    case DatasetFormat::kShareGpt:
      return "sharegpt";
    case DatasetFormat::kPreference:
      return "preference";
  }
  return "unknown";
}

absl::StatusOr<LossOn> ParseLossOn(std::string_view name) {
  for (LossOn loss : {LossOn::kAssistant, LossOn::kCompletion, LossOn::kAll}) {
    if (name == LossOnName(loss)) return loss;
  }
  if (name.empty() || name == "default") return LossOn::kDefault;
  return absl::InvalidArgumentError(
      absl::StrCat("loss_on: '", std::string(name), "' is none of assistant, completion, all"));
}

std::string_view LossOnName(LossOn loss_on) {
  switch (loss_on) {
    case LossOn::kDefault:
      return "default";
    case LossOn::kAssistant:
      return "assistant";
    case LossOn::kCompletion:
      return "completion";
    case LossOn::kAll:
      return "all";
  }
  return "default";
}

std::string_view RowWarningText(RowWarning warning) {
  switch (warning) {
    case RowWarning::kEmptyTurn:
      return "an assistant turn of which nothing is trained but white space and its end marker; "
             "drop the row unless it is meant";
    case RowWarning::kToolsLeftOut:
      return "the base's chat template does not write tools, so the model is trained without "
             "seeing them; use a base whose template does";
    case RowWarning::kReasoningLeftOut:
      return "the base's chat template does not write reasoning, so it is not trained; use a base "
             "whose template does, or put it into the content";
  }
  return "";
}

std::string_view RowErrorName(RowError error) {
  switch (error) {
    case RowError::kNone:
      return "none";
    case RowError::kMalformedJson:
      return "malformed_json";
    case RowError::kBadUtf8:
      return "bad_utf8";
    case RowError::kNotAnObject:
      return "not_an_object";
    case RowError::kUnknownKeys:
      return "unknown_keys";
    case RowError::kFormatMix:
      return "format_mix";
    case RowError::kPreference:
      return "preference_unsupported";
    case RowError::kBadField:
      return "bad_field";
    case RowError::kUnknownRole:
      return "unknown_role";
    case RowError::kEmpty:
      return "empty_row";
    case RowError::kTemplate:
      return "template_refused";
    case RowError::kTemplateTooSlow:
      return "template_too_slow";
    case RowError::kSpans:
      return "assistant_spans_unclear";
    case RowError::kNoTarget:
      return "no_target_token";
    case RowError::kTooLong:
      return "over_max_seq_length";
    case RowError::kLineTooLong:
      return "line_too_long";
  }
  return "none";
}

absl::Status ForEachLine(std::string_view bytes,
                         absl::FunctionRef<bool(const DatasetLine&)> on_line, uint64_t max_bytes) {
  bool stopped = false;
  bool interrupted = false;
  const auto unless_interrupted = [&](const DatasetLine& line) {
    // After the line too: it may have failed for no other reason.
    const bool more = !Interrupted() && on_line(line);
    interrupted = Interrupted();
    return more && !interrupted;
  };
  LineCutter cutter(unless_interrupted);
  RETURN_IF_ERROR(Decompress(
      bytes,
      [&](std::string_view piece) {
        stopped = !cutter.Put(piece);
        return !stopped;
      },
      max_bytes));
  if (!stopped) cutter.Finish();
  return interrupted ? InterruptedError() : absl::OkStatus();
}

RowProblem LineTooLong() {
  return RowProblem{RowError::kLineTooLong, "a line longer than 8 MiB; split the row"};
}

absl::StatusOr<std::vector<TokenizedRow>> TokenizeDataset(std::string_view bytes,
                                                          const std::string& name,
                                                          std::shared_ptr<const BaseText> base,
                                                          const DatasetOptions& options) {
  RowTokenizer tokenizer(std::move(base), options);
  std::vector<TokenizedRow> rows;
  absl::Status bad;
  const absl::Status read = ForEachLine(bytes, [&](const DatasetLine& line) {
    TokenizedRow row;
    const RowProblem problem =
        line.too_long ? LineTooLong() : tokenizer.Tokenize(line.text, line.number, &row);
    if (!problem.ok()) {
      bad = absl::InvalidArgumentError(absl::StrCat(name, ":", line.number, ": ", problem.what));
      return false;
    }
    rows.push_back(std::move(row));
    return true;
  });
  if (absl::IsCancelled(read)) return read;
  RETURN_IF_ERROR(bad);
  if (!read.ok()) return Annotate(read, name);
  if (rows.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": the file has no rows; write one JSON object a line"));
  }
  return rows;
}

}  // namespace tundra
