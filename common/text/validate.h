// Checks a data set in one pass before a job is accepted: every row is parsed,
// rendered and tokenized exactly as training will, all problems are counted and
// the first are told by line, with what to do.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/base_text.h"
#include "common/text/dataset.h"

namespace tundra {

// One token of a previewed row.
struct PreviewToken {
  int32_t id = 0;
  std::string text;  // as decoded alone; may be a part of a character
  bool trained = false;
};

struct PreviewRow {
  uint64_t line = 0;
  std::vector<PreviewToken> tokens;
};

struct DatasetReport {
  DatasetFormat format = DatasetFormat::kUnknown;
  uint64_t rows = 0;  // good rows
  uint64_t bad_rows = 0;
  uint64_t total_tokens = 0;
  uint64_t target_tokens = 0;
  uint64_t longest_row = 0;  // tokens, before truncation never more than after
  uint64_t longest_row_line = 0;
  // Rows by length: key is the upper bound of the bucket (64, 128, 256, …).
  std::map<uint64_t, uint64_t> length_histogram;
  std::map<std::string, uint64_t> error_counts;  // by RowErrorName
  std::vector<std::string> errors;               // the first max_errors, "NAME:LINE: what; remedy"
  uint64_t duplicate_rows = 0;
  uint64_t truncated_rows = 0;
  std::vector<std::string> warnings;
  std::vector<PreviewRow> preview;

  // No bad row and at least one good one.
  bool ok() const { return bad_rows == 0 && errors.empty() && rows > 0; }
};

// `bytes` may be plain, gzip or zstd (a mapped file does well). `name` is the
// file's name in messages. preview_rows: how many first rows to show as tokens.
// Problems of the data are in the report; an error status means the report could
// not be made (kInvalidArgument: options out of range; kCancelled: no longer wanted,
// common/interrupt.h).
absl::StatusOr<DatasetReport> ValidateDataset(std::string_view bytes, const std::string& name,
                                              std::shared_ptr<const BaseText> base,
                                              const DatasetOptions& options, int preview_rows = 0);

// The row as text for a terminal: trained tokens in [[ ]], ignored ones plain.
std::string FormatPreview(const PreviewRow& row);

}  // namespace tundra
