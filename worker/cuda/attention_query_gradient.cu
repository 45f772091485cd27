// Attention, backward, for queries: a block computes dq of a tile of queries of one head,
// over blocks of keys in rising order.
//
//   p = exp(scale · q·k − lse),  dp = dout · v,  ds = p (dp − delta),  dq = scale · Σ ds k
//
// Scores are computed again. The gradients of keys and values are a kernel of their own
// (attention_key_gradient.cu), which costs two more products of seven, but no sum is shared
// between blocks, so each has one order.
// Source: Dao 2023, arXiv:2307.08691, algorithm 2.
#include <algorithm>

#include "worker/cuda/attention_kernels.h"
#include "worker/cuda/attention_shapes.h"
#include "worker/cuda/attention_tile.h"

namespace tundra::cuda {
namespace {

// lse (base 2) and delta of a warp's queries: [i][j] is row 16 i + 8 j + lane / 4.
template <int kRowBlocks>
struct QueryStats {
  float lse[kRowBlocks][2];
  float delta[kRowBlocks][2];

  // `stats` at the tile's first query; rows from `valid` on are of no use and 0.
  TUNDRA_DEVICE QueryStats(const Pointer<const float>& stats, int row0, int valid) {
    TUNDRA_UNROLL
    for (int i = 0; i < kRowBlocks; ++i) {
      TUNDRA_UNROLL
      for (int j = 0; j < 2; ++j) {
        const int row = row0 + 16 * i + 8 * j + Lane() / 4;
        lse[i][j] = row < valid ? stats[row * 4] : 0.0f;
        delta[i][j] = row < valid ? stats[row * 4 + 1] : 0.0f;
      }
    }
  }
};

// Raw scores s and dp become ds, in dp; 0 where the query doesn't see the key.
template <int kRowBlocks, int kKeys>
TUNDRA_DEVICE void ScoreGradients(const ScoreRule& rule, const QueryStats<kRowBlocks>& stats,
                                  int first_query, int first_key, int length, bool all_visible,
                                  const Accumulators<kRowBlocks, kKeys>& s,
                                  Accumulators<kRowBlocks, kKeys>& dp) {
  TUNDRA_UNROLL
  for (int i = 0; i < kRowBlocks; ++i) {
    TUNDRA_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      TUNDRA_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float p = Exp2(rule.Score(s.v[i][n][e]) - stats.lse[i][e / 2]);
        dp.v[i][n][e] = p * (dp.v[i][n][e] - stats.delta[i][e / 2]);
      }
    }
  }
  if (all_visible) return;
  TUNDRA_UNROLL
  for (int i = 0; i < kRowBlocks; ++i) {
    TUNDRA_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      TUNDRA_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int query = first_query + 16 * i + AccumulatorRow(e);
        const int key = first_key + 8 * n + AccumulatorColumn(e);
        if (!rule.Visible(query, key, length)) dp.v[i][n][e] = 0;
      }
    }
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(QueryGradientShape<T, kDim>::kThreads)
    AttentionQueryGradientKernel(AttentionOperands<T> in, AttentionResult dq_TH) {
  using Shape = QueryGradientShape<T, kDim>;
  constexpr int kQueries = Shape::kQueries, kKeys = Shape::kKeys, kThreads = Shape::kThreads;
  const int head = static_cast<int>(blockIdx.x) % in.heads;
  // Late queries see most keys, so their tiles start first.
  const int number = static_cast<int>(gridDim.x - 1 - blockIdx.x) / in.heads;
  const RowTile tile = FindTile(in.offsets, in.num_rows, in.tokens, kQueries, number);
  const int valid = std::min(kQueries, tile.length - tile.first);
  if (valid <= 0) return;
  const int first_token = tile.begin + tile.first;
  const RowsOut out{dq_TH.to, first_token, static_cast<int64_t>(head) * in.dim,
                    in.dim,   valid,       dq_TH.wide};
  if (tile.padding) {
    ZeroRows(out);
    return;
  }

  constexpr size_t kBytes = kRowBytes<T, kDim>;
  const auto q = Tile<T, kDim>::AtShared(0, kQueries);
  const auto dout = Tile<T, kDim>::AtShared(kBytes * kQueries, kQueries);
  // Two stages of kKeys keys and as many values.
  const auto k = Tile<T, kDim>::AtShared(kBytes * 2 * kQueries, 2 * kKeys);
  const auto v = Tile<T, kDim>::AtShared(kBytes * (2 * kQueries + 2 * kKeys), 2 * kKeys);
  const auto copy = [&](int first_key, int stage) {
    const int head_kv = head / in.group, token = tile.begin + first_key;
    const int rows = tile.length - first_key;
    CopyRows<kKeys, kThreads>(k.From(stage * kKeys),
                              PackedRow(in.k, head_kv, in.tokens, token, kDim), rows);
    CopyRows<kKeys, kThreads>(v.From(stage * kKeys),
                              PackedRow(in.v, head_kv, in.tokens, token, kDim), rows);
  };
  const int begin = in.rule.KeysBegin(tile.first) / kKeys * kKeys;
  const int end = in.rule.KeysEnd(tile.first + kQueries, tile.length);
  const int row0 = Warp() * 16 * Shape::kRowBlocks;
  CopyRows<kQueries, kThreads>(q, PackedRow(in.q, head, in.tokens, first_token, kDim), valid);
  CopyRows<kQueries, kThreads>(dout, PackedRow(in.dout, head, in.tokens, first_token, kDim), valid);
  copy(begin, 0);
  CpAsyncCommit();
  const QueryStats<Shape::kRowBlocks> stats(PackedRow(in.stats, head, in.tokens, first_token, 4),
                                            row0, valid);
  Accumulators<Shape::kRowBlocks, kDim> dq;
  int stage = 0;
  for (int key = begin; key < end; key += kKeys, stage ^= 1) {
    CpAsyncWait<0>();
    SyncThreads();  // this stage has come, and all have used the other
    if (key + kKeys < end) copy(key + kKeys, stage ^ 1);
    CpAsyncCommit();
    Accumulators<Shape::kRowBlocks, kKeys> s, dp;
    AddRowsTimesRows(q, row0, k.From(stage * kKeys), s);
    AddRowsTimesRows(dout, row0, v.From(stage * kKeys), dp);
    ScoreGradients(in.rule, stats, tile.first + row0, key, tile.length,
                   in.rule.AllVisible(tile.first, tile.first + kQueries, key + kKeys, tile.length),
                   s, dp);
    AddWeightedRows(dp, k.From(stage * kKeys), dq);
  }
  StoreRows(dq, row0, in.rule.scale, out);
}

}  // namespace

template <typename T>
absl::Status LaunchQueryGradient(cudaStream_t stream, const AttentionOperands<T>& in,
                                 int padded_dim, const AttentionResult& dq_TH) {
  return WithHeadDim<T>(padded_dim, [&](auto dim) {
    using Shape = QueryGradientShape<T, dim()>;
    const int64_t blocks = TileSlots(in.tokens, in.num_rows, Shape::kQueries) * in.heads;
    return Launch<AttentionQueryGradientKernel<T, dim()>>(dim3(static_cast<unsigned>(blocks)),
                                                          dim3(Shape::kThreads),
                                                          Shape::kSharedBytes, stream, in, dq_TH);
  });
}

template absl::Status LaunchQueryGradient(cudaStream_t, const AttentionOperands<BF16>&, int,
                                          const AttentionResult&);
template absl::Status LaunchQueryGradient(cudaStream_t, const AttentionOperands<float>&, int,
                                          const AttentionResult&);

}  // namespace tundra::cuda
