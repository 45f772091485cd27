// What goes before the attention kernels: operands packed head by head in the type of the
// products, and what the backward knows of each token and head.
#include "worker/cuda/attention_kernels.h"
#include "worker/cuda/attention_tile.h"

namespace tundra::cuda {
namespace {

constexpr int kThreads = 128;
constexpr float kLog2e = 1.44269504088896341f;

// 16 bytes of T from four or eight floats.
TUNDRA_DEVICE Float4 Narrowed(const float (&x)[4]) { return {x[0], x[1], x[2], x[3]}; }
TUNDRA_DEVICE Float4 Narrowed(const float (&x)[8]) {
  return {std::bit_cast<float>(Pack(x[0], x[1])), std::bit_cast<float>(Pack(x[2], x[3])),
          std::bit_cast<float>(Pack(x[4], x[5])), std::bit_cast<float>(Pack(x[6], x[7]))};
}

struct RowsToCheck {
  Pointer<const int32_t> offsets;
  int num_rows = 0;
  int max_length = 0;
  Pointer<uint32_t> fault;
};

// One block looks at all offsets.
TUNDRA_DEVICE void CheckRows(const RowsToCheck& rows, int64_t tokens) {
  for (int i = static_cast<int>(threadIdx.x); i < rows.num_rows; i += kThreads) {
    const int begin = rows.offsets[i], end = rows.offsets[i + 1];
    if (begin < 0 || end < begin || end > tokens || end - begin > rows.max_length ||
        (i == 0 && begin != 0)) {
      Report(rows.fault, Fault::kOffsets, i);
    }
  }
}

// A block packs one token of one item; a thread 16 bytes at a time.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    AttentionPackKernel(RowsToCheck rows, PackItems<T> items, int dim, int padded_dim) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  const PackItem<T>& item = items.item[blockIdx.y];
  const int64_t token = blockIdx.x, tokens = gridDim.x;
  if (blockIdx.x == 0 && blockIdx.y == 0) CheckRows(rows, item.from.rows);
  const bool there = token < item.from.rows;
  const int columns = there ? dim : 0;  // of a head, to be copied
  const int chunks = padded_dim / kElements;
  for (int i = static_cast<int>(threadIdx.x); i < item.heads * chunks; i += kThreads) {
    const int head = i / chunks, chunk = i % chunks;
    const int64_t first = static_cast<int64_t>(head) * dim;
    const Pointer<const float> row = item.from.row(there ? token : 0);
    float x[kElements];
    TUNDRA_UNROLL
    for (int j = 0; j < kElements; j += 4) {
      const int column = chunk * kElements + j;
      Float4 four{0, 0, 0, 0};
      if (item.wide && column < columns) {
        four = Load4(row + (first + column));
      } else if (!item.wide) {
        if (column < columns) four.x = row[first + column];
        if (column + 1 < columns) four.y = row[first + column + 1];
        if (column + 2 < columns) four.z = row[first + column + 2];
        if (column + 3 < columns) four.w = row[first + column + 3];
      }
      x[j] = four.x, x[j + 1] = four.y, x[j + 2] = four.z, x[j + 3] = four.w;
    }
    const int64_t place = items.by_token ? token * item.heads + head : head * tokens + token;
    Store4(item.to + (place * chunks + chunk) * 4, Narrowed(x));
  }
}

// A block takes one token, a warp one head at a time. The sum has one order: lanes take
// every 32nd column, then WarpSum's tree.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    AttentionStatsKernel(AttentionOperands<T> in, int padded_dim, Matrix<const float> out_TH,
                         Matrix<const float> lse_TH, Pointer<float> stats) {
  const int token = static_cast<int>(blockIdx.x);
  for (int head = Warp(); head < in.heads; head += kThreads / kWarp) {
    const Pointer<const T> dout = PackedRow(in.dout, head, in.tokens, token, padded_dim);
    const Pointer<const float> out = out_TH.row(token) + static_cast<int64_t>(head) * in.dim;
    float delta = 0;
    for (int d = Lane(); d < in.dim; d += kWarp) delta = fmaf(AsFloat(dout[d]), out[d], delta);
    delta = WarpSum(delta);
    if (Lane() == 0) {
      Store4(stats + (static_cast<int64_t>(head) * in.tokens + token) * 4,
             {lse_TH(token, head) * kLog2e, delta, 0, 0});
    }
  }
}

}  // namespace

template <typename T>
absl::Status LaunchPack(const Queue& queue, const PackedRows& rows, const PackItems<T>& items,
                        int dim, int padded_dim) {
  const RowsToCheck check{Input<int32_t>(rows.offsets).data, rows.num_rows, rows.max_length,
                          queue.fault};
  const dim3 grid(static_cast<unsigned>(items.tokens), static_cast<unsigned>(items.count));
  return Launch<AttentionPackKernel<T>>(grid, dim3(kThreads), 0, queue.stream, check, items, dim,
                                        padded_dim);
}

template <typename T>
absl::Status LaunchStats(cudaStream_t stream, const AttentionOperands<T>& in, int padded_dim,
                         Matrix<const float> out_TH, Matrix<const float> lse_TH,
                         Pointer<float> stats) {
  return Launch<AttentionStatsKernel<T>>(dim3(static_cast<unsigned>(in.tokens)), dim3(kThreads), 0,
                                         stream, in, padded_dim, out_TH, lse_TH, stats);
}

template absl::Status LaunchPack(const Queue&, const PackedRows&, const PackItems<BF16>&, int, int);
template absl::Status LaunchPack(const Queue&, const PackedRows&, const PackItems<float>&, int,
                                 int);
template absl::Status LaunchStats(cudaStream_t, const AttentionOperands<BF16>&, int,
                                  Matrix<const float>, Matrix<const float>, Pointer<float>);
template absl::Status LaunchStats(cudaStream_t, const AttentionOperands<float>&, int,
                                  Matrix<const float>, Matrix<const float>, Pointer<float>);

}  // namespace tundra::cuda
