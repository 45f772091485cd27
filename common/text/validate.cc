#include "common/text/validate.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/tokenizer.h"

namespace tundra {
namespace {

constexpr size_t kMaxRemembered = 5'000'000;  // lines looked at for duplicates
constexpr int kMaxWarnings = 20;

uint64_t Bucket(uint64_t length) {
  uint64_t bound = 64;
  while (bound < length) bound *= 2;
  return bound;
}

PreviewRow Preview(const TokenizedRow& row, const Tokenizer& tokenizer) {
  PreviewRow preview;
  preview.line = row.line;
  for (size_t i = 0; i < row.ids.size(); ++i) {
    preview.tokens.push_back(
        PreviewToken{row.ids[i], tokenizer.Decode({&row.ids[i], 1}, /*skip_special_tokens=*/false),
                     row.trained[i] != 0});
  }
  return preview;
}

class Validator {
 public:
  Validator(const std::string& name, std::shared_ptr<const BaseText> base,
            const DatasetOptions& options, int preview_rows)
      : name_(name),
        base_(base),
        options_(options),
        rows_(std::move(base), options),
        preview_rows_(static_cast<size_t>(std::max(preview_rows, 0))) {}

  // False when it makes no sense to go on.
  bool Line(const DatasetLine& line);
  DatasetReport Finish(const absl::Status& read);

 private:
  void Refuse(std::string_view kind, std::string message);
  void Warn(std::string message);
  void CountDuplicate(const DatasetLine& line);

  const std::string& name_;
  std::shared_ptr<const BaseText> base_;
  const DatasetOptions& options_;
  RowTokenizer rows_;
  const size_t preview_rows_;
  DatasetReport report_;
  std::map<RowWarning, uint64_t> odd_rows_;
  absl::flat_hash_map<uint64_t, uint64_t> seen_;  // hash of a line → its number
};

void Validator::Refuse(std::string_view kind, std::string message) {
  ++report_.error_counts[std::string(kind)];
  if (report_.errors.size() < static_cast<size_t>(options_.max_errors))
    report_.errors.push_back(std::move(message));
}

void Validator::Warn(std::string message) {
  if (report_.warnings.size() < kMaxWarnings) report_.warnings.push_back(std::move(message));
}

void Validator::CountDuplicate(const DatasetLine& line) {
  const uint64_t hash = std::hash<std::string_view>()(line.text);
  if (const auto it = seen_.find(hash); it != seen_.end()) {
    if (report_.duplicate_rows++ == 0) {
      Warn(absl::StrCat(name_, ":", line.number, ": the same row as line ", it->second,
                        "; drop it unless it is meant to count twice"));
    }
  } else if (seen_.size() < kMaxRemembered) {
    seen_.emplace(hash, line.number);
  }
}

bool Validator::Line(const DatasetLine& line) {
  TokenizedRow row;
  const RowProblem problem =
      line.too_long ? LineTooLong() : rows_.Tokenize(line.text, line.number, &row);
  if (!problem.ok()) {
    ++report_.bad_rows;
    Refuse(RowErrorName(problem.error), absl::StrCat(name_, ":", line.number, ": ", problem.what));
    return problem.error != RowError::kTemplateTooSlow;
  }
  CountDuplicate(line);
  const uint64_t length = row.ids.size();
  ++report_.rows;
  report_.total_tokens += length;
  report_.target_tokens += static_cast<uint64_t>(row.targets());
  ++report_.length_histogram[Bucket(length)];
  if (length > report_.longest_row) {
    report_.longest_row = length;
    report_.longest_row_line = line.number;
  }
  if (row.truncated && report_.truncated_rows++ == 0) {
    Warn(absl::StrCat(name_, ":", line.number, ": cut to max_seq_length ", options_.max_seq_length,
                      " tokens; its end is not trained on"));
  }
  for (const RowWarning warning : row.warnings) {
    if (odd_rows_[warning]++ == 0) {
      Warn(absl::StrCat(name_, ":", line.number, ": ", std::string(RowWarningText(warning))));
    }
  }
  if (report_.preview.size() < preview_rows_)
    report_.preview.push_back(Preview(row, base_->tokenizer()));
  return true;
}

DatasetReport Validator::Finish(const absl::Status& read) {
  report_.format = rows_.format();
  if (!read.ok()) {
    Refuse("unreadable", absl::StrCat(name_, ": ", read.message()));
  } else if (report_.rows == 0 && report_.bad_rows == 0) {
    Refuse("empty_file",
           absl::StrCat(name_, ": the file has no rows; write one JSON object a line"));
  }
  if (report_.duplicate_rows > 1)
    Warn(absl::StrCat(report_.duplicate_rows, " rows repeat earlier ones"));
  if (report_.truncated_rows > 1)
    Warn(absl::StrCat(report_.truncated_rows, " rows are cut to max_seq_length"));
  for (const auto& [warning, rows] : odd_rows_) {
    if (rows > 1) Warn(absl::StrCat(rows, " rows: ", std::string(RowWarningText(warning))));
  }
  return std::move(report_);
}

}  // namespace

absl::StatusOr<DatasetReport> ValidateDataset(std::string_view bytes, const std::string& name,
                                              std::shared_ptr<const BaseText> base,
                                              const DatasetOptions& options, int preview_rows) {
  if (options.max_seq_length < 2) {
    return absl::InvalidArgumentError("max_seq_length must be at least 2");
  }
  if (options.max_errors < 1) return absl::InvalidArgumentError("max_errors must be at least 1");
  Validator validator(name, std::move(base), options, preview_rows);
  const absl::Status read =
      ForEachLine(bytes, [&](const DatasetLine& line) { return validator.Line(line); });
  if (absl::IsCancelled(read)) return read;
  return validator.Finish(read);
}

std::string FormatPreview(const PreviewRow& row) {
  std::string out;
  bool inside = false;
  for (const PreviewToken& token : row.tokens) {
    if (token.trained != inside) out += token.trained ? "[[" : "]]";
    inside = token.trained;
    out += token.text;
  }
  if (inside) out += "]]";
  return out;
}

}  // namespace tundra
