#include "worker/model/batch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tundra {
namespace {

constexpr int64_t kMultiple = 128;

}  // namespace

absl::StatusOr<Batch> MakeBatch(std::span<const RowView> rows, int64_t vocab) {
  Batch batch;
  int64_t total = 0;
  for (const RowView& row : rows) {
    total += static_cast<int64_t>(row.ids.size());
    if (row.ids.empty() || row.ids.size() != row.trained.size() || total > (int64_t{1} << 30)) {
      return absl::InvalidArgumentError(
          absl::StrCat("row ", row.index, ": empty, without its marks, or too long"));
    }
  }
  const size_t padded = static_cast<size_t>((total + kMultiple - 1) / kMultiple * kMultiple);
  batch.tokens_T.reserve(padded);
  batch.targets_T.reserve(padded);
  batch.positions_T.reserve(padded);
  batch.data_rows_T.reserve(padded);
  batch.offsets.push_back(0);
  for (const RowView& row : rows) {
    for (size_t i = 0; i < row.ids.size(); ++i) {
      if (row.ids[i] < 0 || row.ids[i] >= vocab) {
        return absl::InvalidArgumentError(absl::StrCat("row ", row.index, ": token id ", row.ids[i],
                                                       " is not in the base's vocabulary of ", vocab,
                                                       "; tokenizer and base don't belong together"));
      }
      const bool target = i + 1 < row.ids.size() && row.trained[i + 1] != 0;
      batch.tokens_T.push_back(row.ids[i]);
      batch.targets_T.push_back(target ? row.ids[i + 1] : -1);
      batch.positions_T.push_back(static_cast<int32_t>(i));
      batch.data_rows_T.push_back(static_cast<int32_t>(row.index));
      batch.target_tokens += target ? 1 : 0;
    }
    batch.max_length = std::max(batch.max_length, static_cast<int32_t>(row.ids.size()));
    batch.offsets.push_back(static_cast<int32_t>(batch.tokens_T.size()));
  }
  batch.tokens_T.resize(padded, 0);
  batch.targets_T.resize(padded, -1);
  batch.positions_T.resize(padded, 0);
  batch.data_rows_T.resize(padded, 0);
  return batch;
}

}  // namespace tundra
