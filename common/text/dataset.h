// Data sets: JSONL (or gzip or zstd of it), one row a line, one format a file,
// told apart by the keys of its first row. A row becomes token ids with a mark
// on each token that is a target of the loss.
//
// What is trained (loss_on):
//   assistant   each assistant turn: its content and end marker, less the turns
//               of weight 0. Default of messages, Alpaca and ShareGPT. The turns are
//               what the template's {% generation %} blocks write; where it has none,
//               what is between the rendering of the messages before a turn (with the
//               generation prompt) and of those up to it, less white space after the
//               end marker.
//   completion  the completion, or of a conversation its last message, which must
//               be the assistant's. Default of prompt/completion.
// Rows of texts get the base's EOS appended, where they don't end with it, and BOS
// where the tokenizer adds one. A token is trained when it overlaps what is, as in
// Transformers' assistant mask.
//   all         every token but the first, which nothing predicts. Default of text.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/base_text.h"

namespace tundra {

enum class DatasetFormat {
  kUnknown,
  kMessages,
  kPromptCompletion,
  kText,
  kAlpaca,
  kShareGpt,
  kPreference
};

// "messages", "prompt-completion", "text", "alpaca", "sharegpt", "preference".
std::string_view DatasetFormatName(DatasetFormat format);

enum class LossOn { kDefault, kAssistant, kCompletion, kAll };

// "" is kDefault. Errors: kInvalidArgument, naming the three.
absl::StatusOr<LossOn> ParseLossOn(std::string_view name);
std::string_view LossOnName(LossOn loss_on);

struct DatasetOptions {
  int64_t max_seq_length = 2048;  // tokens of a row; a longer one is an error …
  bool truncate = false;          // … unless this cuts it there
  LossOn loss_on = LossOn::kDefault;
  int max_errors = 20;  // messages kept; all are counted

  // What strftime_now gives to templates, in UTC. One day for ever, so that a row
  // has the same tokens, and a job the same bytes, whenever it is run: 26 July
  // 2024, which templates of dated system prompts (Llama 3.1 and later) themselves
  // fall back to where strftime_now is missing.
  absl::Time now = absl::FromUnixSeconds(1'721'952'000);
};

// What is odd about a row that can be trained on.
enum class RowWarning {
  kEmptyTurn,         // of a trained turn nothing is trained but white space and its end marker
  kToolsLeftOut,      // the chat template does not write the row's tools
  kReasoningLeftOut,  // … nor the reasoning of an assistant turn
};
// "an assistant turn without text …; drop the row".
std::string_view RowWarningText(RowWarning warning);

struct TokenizedRow {
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;  // as long as ids; 1: predicting this token is trained
  uint64_t line = 0;             // 1-based, of the file
  bool truncated = false;
  std::vector<RowWarning> warnings;  // one of a kind

  // How many targets. The first token is never one.
  int64_t targets() const;
};

// Why a row is refused. Each has a name for counting: "malformed_json", ….
enum class RowError {
  kNone,
  kMalformedJson,
  kBadUtf8,
  kNotAnObject,
  kUnknownKeys,
  kFormatMix,
  kPreference,
  kBadField,
  kUnknownRole,
  kEmpty,
  kTemplate,
  kTemplateTooSlow,
  kSpans,
  kNoTarget,
  kTooLong,
  kLineTooLong,
};
std::string_view RowErrorName(RowError error);

// A refusal without its place: "no assistant turn, so nothing to train on; drop
// the row or set loss_on: all".
struct RowProblem {
  RowError error = RowError::kNone;
  std::string what;
  bool ok() const { return error == RowError::kNone; }
};

struct RowExample;  // row_parser.h
struct Encoding;    // tokenizer.h

// 1 for each token that overlaps one of the byte ranges [begin, end), which are
// in order: as Transformers makes its assistant mask.
std::vector<uint8_t> MarkTokens(const Encoding& encoding,
                                const std::vector<std::pair<size_t, size_t>>& spans);

// Turns the lines of one file into rows. Remembers the file's format, which the
// first good line tells. The chat template's work is bounded by the bytes of the lines, so
// that a slow one can't hold up what reads the file: with kTemplateTooSlow the file ends.
// Not thread-safe.
class RowTokenizer {
 public:
  RowTokenizer(std::shared_ptr<const BaseText> base, const DatasetOptions& options);

  // On success *row is filled.
  RowProblem Tokenize(std::string_view line, uint64_t line_number, TokenizedRow* row);

  DatasetFormat format() const { return format_; }

 private:
  // Bytes [begin, end) of a rendered text that are trained.
  using Span = std::pair<size_t, size_t>;
  // A conversation being worked on.
  struct Chat {
    RowExample& example;
    const ChatTemplate& chat_template;
    PreparedChat prepared;
  };
  RowProblem TokenizeChat(RowExample& example, TokenizedRow* row);
  RowProblem TokenizeText(const RowExample& example, TokenizedRow* row) const;
  absl::StatusOr<PreparedChat> Prepare(const RowExample& example) const;
  absl::StatusOr<RenderedChat> Render(const Chat& chat, size_t messages, bool generation_prompt);
  absl::StatusOr<RenderedChat> RenderWhole(Chat& chat);
  RowProblem TemplateProblem(const absl::Status& status) const;
  RowProblem FindLeftOutCall(const Chat& chat, const std::string& text);
  RowProblem FindSpans(const Chat& chat, const RenderedChat& whole, LossOn loss,
                       std::vector<Span>* spans);
  RowProblem MarkedSpans(const RowExample& example, const RenderedChat& whole,
                         std::vector<Span>* spans) const;
  RowProblem TurnSpan(const Chat& chat, size_t turn, size_t end_turn, const std::string& whole,
                      std::vector<Span>* spans);
  RowProblem Encode(const std::string& text, bool document, Encoding* encoding) const;
  void TrimAfterEndMarkers(const std::string& text, const Encoding& encoding,
                           std::vector<Span>* spans) const;
  bool HasEmptySpan(const std::string& text, const Encoding& encoding,
                    const std::vector<Span>& spans) const;
  void Warn(const Chat& chat, LossOn loss, TokenizedRow* row) const;
  RowProblem Finish(LossOn loss, TokenizedRow* row) const;
  LossOn Loss(DatasetFormat format) const;

  std::shared_ptr<const BaseText> base_;
  DatasetOptions options_;
  DatasetFormat format_ = DatasetFormat::kUnknown;
  uint64_t template_steps_;  // that the chat template may still take
};

// Lines of a data set, decompressed as they come (gzip and zstd are known by
// their first bytes). A line is without its end; blank lines are skipped but
// counted. on_line returns false to stop early. Lines over 8 MiB are passed as
// too_long with empty text.
// Errors: kInvalidArgument when the compressed stream is damaged or cut off,
// kResourceExhausted over max_bytes decompressed or when it grows over 1 GiB and 1,000-fold,
// kCancelled when the work is no longer wanted (common/interrupt.h).
struct DatasetLine {
  std::string_view text;
  uint64_t number = 0;  // 1-based
  bool too_long = false;
};
absl::Status ForEachLine(std::string_view bytes,
                         absl::FunctionRef<bool(const DatasetLine&)> on_line,
                         uint64_t max_bytes = uint64_t{1} << 40);

// The problems of a line that is too long, and of a row of too many tokens.
RowProblem LineTooLong();
RowProblem RowTooLong(size_t length, size_t most);

// All rows of a file, in order: what training reads. The first bad row is an
// error, "NAME:LINE: what; remedy", as ValidateDataset would have reported it.
absl::StatusOr<std::vector<TokenizedRow>> TokenizeDataset(std::string_view bytes,
                                                          const std::string& name,
                                                          std::shared_ptr<const BaseText> base,
                                                          const DatasetOptions& options);

}  // namespace tundra
