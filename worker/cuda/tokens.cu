// Operations that look something up for each token: embedding, picked rows, rotary
// embedding, dropout.
#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "worker/cuda/kernels.h"
#include "worker/ops/dropout.h"

namespace tundra::cuda {
namespace {

// out[i] = table[ids[i]], zeros for an id that the table lacks.
template <typename W>
__global__ void PickRowsKernel(Pointer<const int32_t> ids, Matrix<const W> table, Matrix<float> out,
                               Fault kind, Pointer<uint32_t> fault) {
  ForEach(out.rows, out.cols, [&](int64_t r, int64_t c) {
    const int32_t id = ids[r];
    const bool known = id >= 0 && id < table.rows;
    if (!known && c == 0) Report(fault, kind, r);
    out(r, c) = known ? AsFloat(table(id, c)) : 0.0f;
  });
}

// One thread rotates one pair: column c is pair c % r of head c / r.
__global__ void RopeKernel(Pointer<const int32_t> positions, Matrix<const float> cos,
                           Matrix<const float> sin, float sign, int64_t num_heads, int64_t head_dim,
                           Matrix<float> x, Pointer<uint32_t> fault) {
  const int64_t pairs = cos.cols;
  ForEach(x.rows, num_heads * pairs, [&](int64_t t, int64_t column) {
    const int64_t head = column / pairs, i = column % pairs;
    const int32_t p = positions[t];
    if (p < 0 || p >= cos.rows) {
      if (column == 0) Report(fault, Fault::kPosition, t);
      return;
    }
    const float c = cos(p, i), s = sign * sin(p, i);
    const int64_t at = head * head_dim + i;
    const float a = x(t, at), b = x(t, at + pairs);
    x(t, at) = fmaf(-b, s, a * c);
    x(t, at + pairs) = fmaf(a, s, b * c);
  });
}

struct DropoutArgs {
  uint32_t key0, key1;  // of Philox
  uint32_t last_word;   // of its counter
  uint32_t threshold;   // an element with a smaller word is dropped
  float scale;
  bool add;
};

// One thread makes one block of random words: four columns.
__global__ void DropoutKernel(Matrix<const float> x, DropoutArgs args,
                              Pointer<const int32_t> data_row, Pointer<const int32_t> position,
                              Matrix<float> out) {
  ForEach(out.rows, (out.cols + 3) / 4, [&](int64_t t, int64_t quad) {
    const PhiloxBlock words =
        Philox4x32({static_cast<uint32_t>(position[t]), static_cast<uint32_t>(data_row[t]),
                    static_cast<uint32_t>(quad), args.last_word},
                   {args.key0, args.key1});
    TUNDRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int64_t c = 4 * quad + i;
      if (c >= out.cols) break;
      const float value =
          words[static_cast<size_t>(i)] >= args.threshold ? x(t, c) * args.scale : 0.0f;
      out(t, c) = args.add ? out(t, c) + value : value;
    }
  });
}

template <typename W>
absl::Status PickRowsOf(const Queue& queue, const ConstView& ids, const ConstView& table,
                        Fault kind, const View& out) {
  return Launch<PickRowsKernel<W>>(ElementGrid(out.rows, out.cols), kElementThreads, 0,
                                   queue.stream, Input<int32_t>(ids).data, Input<W>(table),
                                   Output<float>(out), kind, queue.fault);
}

}  // namespace

absl::Status CudaOps::EmbeddingLookup(Ctx ctx, ConstView tokens_T, ConstView table_VD,
                                      View out_TD) {
  const int64_t t = tokens_T.cols;
  RETURN_IF_ERROR(CheckVector("tokens_T", tokens_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckWeight("table_VD", table_VD, table_VD.rows, table_VD.cols));
  RETURN_IF_ERROR(CheckView("out_TD", out_TD, DType::kF32, t, table_VD.cols));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  return table_VD.dtype == DType::kF32
             ? PickRowsOf<float>(queue, tokens_T, table_VD, Fault::kToken, out_TD)
             : PickRowsOf<BF16>(queue, tokens_T, table_VD, Fault::kToken, out_TD);
}

absl::Status CudaOps::GatherRows(Ctx ctx, ConstView x_TD, ConstView index_N, View out_ND) {
  const int64_t n = index_N.cols;
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, x_TD.rows, x_TD.cols));
  RETURN_IF_ERROR(CheckVector("index_N", index_N, DType::kI32, n));
  RETURN_IF_ERROR(CheckView("out_ND", out_ND, DType::kF32, n, x_TD.cols));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  return PickRows(queue, x_TD, index_N, out_ND);
}

absl::Status PickRows(const Queue& queue, ConstView x_TD, ConstView index_N, View out_ND) {
  return PickRowsOf<float>(queue, index_N, x_TD, Fault::kIndex, out_ND);
}

absl::Status CudaOps::Rope(Ctx ctx, Direction direction, ConstView positions_T, ConstView cos_PR,
                           ConstView sin_PR, int num_heads, int head_dim, View x_TH) {
  const int64_t t = x_TH.rows, r = cos_PR.cols;
  RETURN_IF_ERROR(CheckVector("positions_T", positions_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckView("cos_PR", cos_PR, DType::kF32, cos_PR.rows, r));
  RETURN_IF_ERROR(CheckView("sin_PR", sin_PR, DType::kF32, cos_PR.rows, r));
  RETURN_IF_ERROR(
      CheckView("x_TH", x_TH, DType::kF32, t, static_cast<int64_t>(num_heads) * head_dim));
  if (2 * r > head_dim) {
    return absl::InvalidArgumentError(
        absl::StrCat("rotary tables of ", r, " columns are too wide for heads of ", head_dim));
  }
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  const float sign = direction == Direction::kForward ? 1.0f : -1.0f;
  return Launch<RopeKernel>(ElementGrid(t, num_heads * r), kElementThreads, 0, queue.stream,
                            Input<int32_t>(positions_T).data, Input<float>(cos_PR),
                            Input<float>(sin_PR), sign, num_heads, head_dim, Output<float>(x_TH),
                            queue.fault);
}

// The same numbers and the same threshold as on a CPU: dropout_cpu.cc says what they are.
absl::Status CudaOps::Dropout(Ctx ctx, ConstView x_TK, const DropoutKey& key, ConstView data_row_T,
                              ConstView position_T, Write write, View out_TK) {
  const int64_t t = x_TK.rows, k = x_TK.cols;
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, t, k));
  RETURN_IF_ERROR(CheckVector("data_row_T", data_row_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckVector("position_T", position_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckView("out_TK", out_TK, DType::kF32, t, k));
  ASSIGN_OR_RETURN(const DropoutNumbers numbers, DropoutNumbersOf(key));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  const DropoutArgs args{numbers.philox_key[0], numbers.philox_key[1], numbers.last_word,
                         numbers.threshold,     numbers.scale,         write == Write::kAdd};
  return Launch<DropoutKernel>(ElementGrid(t, (k + 3) / 4), kElementThreads, 0, queue.stream,
                               Input<float>(x_TK), args, Input<int32_t>(data_row_T).data,
                               Input<int32_t>(position_T).data, Output<float>(out_TK));
}

}  // namespace tundra::cuda
