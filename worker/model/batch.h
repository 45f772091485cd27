// A micro-batch as the model takes it: rows laid end to end, attention and
// positions kept inside each row, the end padded to a multiple of 128 tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace tundra {

// A row of the data set: trained[i] says whether token i is a target, that is,
// whether its loss counts. Both spans have one length, at least 1.
struct RowView {
  std::span<const int32_t> ids;
  std::span<const uint8_t> trained;
  // Its number in the data set; dropout is keyed by it.
  int64_t index = 0;
};

// Lives on the host. T is the padded length.
struct Batch {
  std::vector<int32_t> tokens_T;
  // The id that position t is to predict: token t + 1 of its row if that is a
  // target, else -1.
  std::vector<int32_t> targets_T;
  // Within the row; 0 for padding.
  std::vector<int32_t> positions_T;
  std::vector<int32_t> data_rows_T;
  // First token of each row, then the end of the last.
  std::vector<int32_t> offsets;
  int32_t max_length = 0;
  int64_t target_tokens = 0;

  int64_t padded_tokens() const { return static_cast<int64_t>(tokens_T.size()); }
  int64_t tokens() const { return offsets.back(); }
  int num_rows() const { return static_cast<int>(offsets.size()) - 1; }
};

// Errors: kInvalidArgument for a token id outside [0, vocab), an empty row, or more
// than 2^30 tokens.
absl::StatusOr<Batch> MakeBatch(std::span<const RowView> rows, int64_t vocab);

}  // namespace tundra
