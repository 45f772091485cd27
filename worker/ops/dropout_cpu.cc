// Dropout whose mask belongs to the token, not to where it was packed.
//
// The mask of element (data row, position, column) in one (layer, module): four columns
// share one Philox block.
//   key     = PhiloxKeyOf(first two words of Philox({step, step >> 32, epoch, use}, seed))
//   counter = {position, data row, column / 4, use | layer << 8 | module << 20}
// and the element is kept when its word >= probability · 2^32.
#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/parallel.h"

namespace tundra {

// Whether the words of one block keep their elements is decided in integers: no rounding.
absl::Status CpuOps::Dropout(Ctx, ConstView x_TK, const DropoutKey& key, ConstView data_row_T,
                             ConstView position_T, Write write, View out_TK) {
  const int64_t t = x_TK.rows, k = x_TK.cols;
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, t, k));
  RETURN_IF_ERROR(CheckVector("data_row_T", data_row_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckVector("position_T", position_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckView("out_TK", out_TK, DType::kF32, t, k));
  if (!(key.probability >= 0 && key.probability < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a dropout probability of ", key.probability, " is not in [0, 1)"));
  }
  if (key.layer >= 1u << 12 || key.module >= 1u << 12) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", key.layer, ", module ", key.module, ": both must be below 4096"));
  }
  const auto use = static_cast<uint32_t>(PhiloxUse::kDropout);
  const PhiloxBlock mixed = Philox4x32(
      {static_cast<uint32_t>(key.step), static_cast<uint32_t>(key.step >> 32), key.epoch, use},
      PhiloxKeyOf(key.seed));
  const PhiloxKey philox_key = {mixed[0], mixed[1]};
  const uint32_t last_word = use | key.layer << 8 | key.module << 20;
  const auto threshold = static_cast<uint32_t>(static_cast<double>(key.probability) * 0x1p32);
  const float scale = 1.0f / (1.0f - key.probability);
  const bool add = write == Write::kAdd;
  ParallelRanges(threads(), t, GrainOf(8 * k), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto position = static_cast<uint32_t>(position_T.row<int32_t>(0)[i]);
      const auto data_row = static_cast<uint32_t>(data_row_T.row<int32_t>(0)[i]);
      const float* x = x_TK.row<float>(i);
      float* out = out_TK.row<float>(i);
      for (int64_t c = 0; c < k; c += 4) {
        const PhiloxBlock words =
            Philox4x32({position, data_row, static_cast<uint32_t>(c / 4), last_word}, philox_key);
        for (int64_t j = c; j < std::min(k, c + 4); ++j) {
          const float value = words[static_cast<size_t>(j - c)] >= threshold ? x[j] * scale : 0.0f;
          out[j] = add ? out[j] + value : value;
        }
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace tundra
