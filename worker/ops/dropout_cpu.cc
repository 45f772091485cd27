// Dropout whose mask belongs to the token, not to where it was packed: dropout.h.
#include "common/philox.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/dropout.h"
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
  ASSIGN_OR_RETURN(const DropoutNumbers numbers, DropoutNumbersOf(key));
  const bool add = write == Write::kAdd;
  ParallelRanges(threads(), t, GrainOf(8 * k), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto position = static_cast<uint32_t>(position_T.row<int32_t>(0)[i]);
      const auto data_row = static_cast<uint32_t>(data_row_T.row<int32_t>(0)[i]);
      const float* x = x_TK.row<float>(i);
      float* out = out_TK.row<float>(i);
      for (int64_t c = 0; c < k; c += 4) {
        const PhiloxBlock words =
            Philox4x32({position, data_row, static_cast<uint32_t>(c / 4), numbers.last_word},
                       numbers.philox_key);
        for (int64_t j = c; j < std::min(k, c + 4); ++j) {
          const float value =
              words[static_cast<size_t>(j - c)] >= numbers.threshold ? x[j] * numbers.scale : 0.0f;
          out[j] = add ? out[j] + value : value;
        }
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace tundra
