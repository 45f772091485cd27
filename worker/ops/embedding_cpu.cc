// Rows picked by number: the embedding, and the tokens whose logits are wanted.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/parallel.h"

namespace tundra {
namespace {

absl::Status CheckIds(std::string_view name, const ConstView& ids, int64_t limit) {
  for (int64_t i = 0; i < ids.cols; ++i) {
    const int32_t id = ids.row<int32_t>(0)[i];
    if (id < 0 || id >= limit) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(name), "[", i, "] is ", id, "; it must be in [0, ", limit, ")"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CpuOps::EmbeddingLookup(Ctx, ConstView tokens_T, ConstView table_VD, View out_TD) {
  const int64_t t = tokens_T.cols;
  RETURN_IF_ERROR(CheckVector("tokens_T", tokens_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckWeight("table_VD", table_VD, table_VD.rows, table_VD.cols));
  RETURN_IF_ERROR(CheckView("out_TD", out_TD, DType::kF32, t, table_VD.cols));
  RETURN_IF_ERROR(CheckIds("tokens_T", tokens_T, table_VD.rows));
  const int32_t* ids = tokens_T.row<int32_t>(0);
  ParallelRanges(threads(), t, GrainOf(table_VD.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* out = out_TD.row<float>(i);
      if (table_VD.dtype == DType::kF32) {
        std::memcpy(out, table_VD.row<float>(ids[i]),
                    static_cast<size_t>(table_VD.cols) * sizeof(float));
      } else {
        const BF16* from = table_VD.row<BF16>(ids[i]);
        for (int64_t d = 0; d < table_VD.cols; ++d) out[d] = ToFloat(from[d]);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status CpuOps::GatherRows(Ctx, ConstView x_TD, ConstView index_N, View out_ND) {
  const int64_t n = index_N.cols;
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, x_TD.rows, x_TD.cols));
  RETURN_IF_ERROR(CheckVector("index_N", index_N, DType::kI32, n));
  RETURN_IF_ERROR(CheckView("out_ND", out_ND, DType::kF32, n, x_TD.cols));
  RETURN_IF_ERROR(CheckIds("index_N", index_N, x_TD.rows));
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(out_ND.row<float>(i), x_TD.row<float>(index_N.row<int32_t>(0)[i]),
                static_cast<size_t>(x_TD.cols) * sizeof(float));
  }
  return absl::OkStatus();
}

}  // namespace tundra
