// Attention, backward, for keys and values: a block computes dk and dv of a tile of keys of
// one kv head, over the query heads that share it and their blocks of queries, both in
// rising order, so that each sum has one order and no block shares one.
//
//   p = exp(scale · q·k − lse),  dv = Σ p dout
//   dp = dout · v,  ds = p (dp − delta),  dk = scale · Σ ds q
//
// Scores are computed transposed, keys by queries, so that p and ds are factors of the sums
// as they lie in registers.
// Source: Dao 2023, arXiv:2307.08691, algorithm 2.
#include <algorithm>

#include "worker/cuda/attention_kernels.h"
#include "worker/cuda/attention_shapes.h"
#include "worker/cuda/attention_tile.h"

namespace tundra::cuda {
namespace {

// Which of the two gradients a launch computes.
enum class Makes { kBoth, kKeys, kValues };

// One block's place among tokens and heads.
struct KeyTile {
  RowTile tile;
  int head_kv = 0;
  int valid = 0;  // keys
};

// The queries of a step of the loop: a block of one head.
struct QueryBlock {
  int head = 0;
  int first = 0;  // query, counted from the row's first token
};

// Shared memory of a block: keys and values, and two stages of queries, their output's
// gradients and stats.
template <typename T, int kDim>
struct KeyGradientMemory {
  using Shape = KeyGradientShape<T, kDim>;
  static constexpr int kQueries = Shape::kQueries;

  Tile<T, kDim> k, v, q, dout;
  Pointer<float> stats;

  TUNDRA_DEVICE KeyGradientMemory()
      : k(Tile<T, kDim>::AtShared(0, Shape::kKeys)),
        v(Tile<T, kDim>::AtShared(kRowBytes<T, kDim> * Shape::kKeys, Shape::kKeys)),
        q(Tile<T, kDim>::AtShared(kRowBytes<T, kDim> * 2 * Shape::kKeys, 2 * kQueries)),
        dout(Tile<T, kDim>::AtShared(kRowBytes<T, kDim> * (2 * Shape::kKeys + 2 * kQueries),
                                     2 * kQueries)),
        stats(SharedArray<float>(Shape::kSharedBytes - Shape::kStatsBytes, 2 * kQueries * 4)) {}

  TUNDRA_DEVICE void Copy(const AttentionOperands<T>& in, const RowTile& tile,
                          const QueryBlock& block, int stage) const {
    const int token = tile.begin + block.first, valid = tile.length - block.first;
    CopyRows<kQueries, Shape::kThreads>(q.From(stage * kQueries),
                                        PackedRow(in.q, block.head, in.tokens, token, kDim), valid);
    CopyRows<kQueries, Shape::kThreads>(
        dout.From(stage * kQueries), PackedRow(in.dout, block.head, in.tokens, token, kDim), valid);
    const Pointer<const float> from = PackedRow(in.stats, block.head, in.tokens, token, 4);
    for (int i = static_cast<int>(threadIdx.x); i < kQueries; i += Shape::kThreads) {
      const bool inside = i < valid;
      CpAsync16OrZero(stats + (stage * kQueries + i) * 4, from + (inside ? i : 0) * 4, inside);
    }
  }
};

// Raw scores s, keys by queries, become p; 0 where the query doesn't see the key.
template <int kQueries>
TUNDRA_DEVICE void Weights(const ScoreRule& rule, const Pointer<float>& stats, int first_key,
                           int first_query, int length, bool all_visible,
                           Accumulators<1, kQueries>& s) {
  TUNDRA_UNROLL
  for (int n = 0; n < kQueries / 8; ++n) {
    TUNDRA_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int column = 8 * n + AccumulatorColumn(e);
      s.v[0][n][e] = Exp2(rule.Score(s.v[0][n][e]) - stats[column * 4]);
      if (all_visible) continue;
      if (!rule.Visible(first_query + column, first_key + AccumulatorRow(e), length)) {
        s.v[0][n][e] = 0;
      }
    }
  }
}

// p (dp − delta), in dp; 0 where p is, so that nothing comes of rows beyond the last one.
template <int kQueries>
TUNDRA_DEVICE void ScoreGradients(const Pointer<float>& stats, bool all_visible,
                                  const Accumulators<1, kQueries>& p,
                                  Accumulators<1, kQueries>& dp) {
  TUNDRA_UNROLL
  for (int n = 0; n < kQueries / 8; ++n) {
    TUNDRA_UNROLL
    for (int e = 0; e < 4; ++e) {
      const float delta = stats[(8 * n + AccumulatorColumn(e)) * 4 + 1];
      const float ds = p.v[0][n][e] * (dp.v[0][n][e] - delta);
      dp.v[0][n][e] = all_visible || p.v[0][n][e] != 0 ? ds : 0.0f;
    }
  }
}

// The loop over query heads and blocks of queries.
template <Makes makes, typename T, int kDim>
TUNDRA_DEVICE void AddGradients(const AttentionOperands<T>& in, const KeyTile& keys,
                                const KeyGradientMemory<T, kDim>& memory, Accumulators<1, kDim>& dk,
                                Accumulators<1, kDim>& dv) {
  constexpr int kQueries = KeyGradientShape<T, kDim>::kQueries;
  constexpr int kKeys = KeyGradientShape<T, kDim>::kKeys;
  const RowTile& tile = keys.tile;
  const int begin = in.rule.QueriesBegin(tile.first) / kQueries * kQueries;
  const int end = in.rule.QueriesEnd(tile.first + kKeys, tile.length);
  const int last_head = (keys.head_kv + 1) * in.group;
  const int row0 = Warp() * 16;
  QueryBlock block{keys.head_kv * in.group, begin};
  memory.Copy(in, tile, block, 0);
  CpAsyncCommit();
  for (int stage = 0; block.head < last_head; stage ^= 1) {
    QueryBlock next{block.head, block.first + kQueries};
    if (next.first >= end) next = {block.head + 1, begin};
    CpAsyncWait<0>();
    SyncThreads();  // this stage has come, and all have used the other
    if (next.head < last_head) memory.Copy(in, tile, next, stage ^ 1);
    CpAsyncCommit();

    const auto q = memory.q.From(stage * kQueries), dout = memory.dout.From(stage * kQueries);
    const Pointer<float> stats = memory.stats + stage * kQueries * 4;
    const bool all_visible =
        in.rule.AllVisible(block.first, block.first + kQueries, tile.first + kKeys, tile.length);
    Accumulators<1, kQueries> s;
    AddRowsTimesRows(memory.k, row0, q, s);
    Weights(in.rule, stats, tile.first + row0, block.first, tile.length, all_visible, s);
    if constexpr (makes != Makes::kKeys) AddWeightedRows(s, dout, dv);
    if constexpr (makes != Makes::kValues) {
      Accumulators<1, kQueries> dp;
      AddRowsTimesRows(memory.v, row0, dout, dp);
      ScoreGradients(stats, all_visible, s, dp);
      AddWeightedRows(dp, q, dk);
    }
    block = next;
  }
}

template <typename T, int kDim, Makes makes>
__global__ void __launch_bounds__(KeyGradientShape<T, kDim>::kThreads)
    AttentionKeyGradientKernel(AttentionOperands<T> in, AttentionResult dk_TG,
                               AttentionResult dv_TG) {
  using Shape = KeyGradientShape<T, kDim>;
  constexpr int kKeys = Shape::kKeys;
  const int heads_kv = in.heads / in.group;
  // Early keys are seen by most queries, so their tiles start first.
  const int number = static_cast<int>(blockIdx.x) / heads_kv;
  KeyTile keys;
  keys.head_kv = static_cast<int>(blockIdx.x) % heads_kv;
  keys.tile = FindTile(in.offsets, in.num_rows, in.tokens, kKeys, number);
  keys.valid = std::min(kKeys, keys.tile.length - keys.tile.first);
  if (keys.valid <= 0) return;
  const int first_token = keys.tile.begin + keys.tile.first;
  RowsOut out{dk_TG.to, first_token, static_cast<int64_t>(keys.head_kv) * in.dim,
              in.dim,   keys.valid,  dk_TG.wide};
  if (keys.tile.padding) {
    if constexpr (makes != Makes::kValues) ZeroRows(out);
    out.to = dv_TG.to;
    if constexpr (makes != Makes::kKeys) ZeroRows(out);
    return;
  }
  const KeyGradientMemory<T, kDim> memory;
  CopyRows<kKeys, Shape::kThreads>(
      memory.k, PackedRow(in.k, keys.head_kv, in.tokens, first_token, kDim), keys.valid);
  if constexpr (makes != Makes::kValues) {
    CopyRows<kKeys, Shape::kThreads>(
        memory.v, PackedRow(in.v, keys.head_kv, in.tokens, first_token, kDim), keys.valid);
  }
  Accumulators<1, kDim> dk, dv;
  AddGradients<makes>(in, keys, memory, dk, dv);
  if constexpr (makes != Makes::kValues) StoreRows(dk, Warp() * 16, in.rule.scale, out);
  out.to = dv_TG.to;
  out.wide = dv_TG.wide;
  if constexpr (makes != Makes::kKeys) StoreRows(dv, Warp() * 16, 1.0f, out);
}

}  // namespace

template <typename T>
absl::Status LaunchKeyGradient(cudaStream_t stream, const AttentionOperands<T>& in, int padded_dim,
                               const AttentionResult& dk_TG, const AttentionResult& dv_TG) {
  return WithHeadDim<T>(padded_dim, [&](auto dim) {
    using Shape = KeyGradientShape<T, dim()>;
    const auto launch = [&]<Makes makes>() {
      const int64_t blocks =
          TileSlots(in.tokens, in.num_rows, Shape::kKeys) * (in.heads / in.group);
      return Launch<AttentionKeyGradientKernel<T, dim(), makes>>(
          dim3(static_cast<unsigned>(blocks)), dim3(Shape::kThreads), Shape::kSharedBytes, stream,
          in, dk_TG, dv_TG);
    };
    if constexpr (Shape::kTogether) {
      return launch.template operator()<Makes::kBoth>();
    } else {
      const absl::Status status = launch.template operator()<Makes::kValues>();
      return status.ok() ? launch.template operator()<Makes::kKeys>() : status;
    }
  });
}

template absl::Status LaunchKeyGradient(cudaStream_t, const AttentionOperands<BF16>&, int,
                                        const AttentionResult&, const AttentionResult&);
template absl::Status LaunchKeyGradient(cudaStream_t, const AttentionOperands<float>&, int,
                                        const AttentionResult&, const AttentionResult&);

}  // namespace tundra::cuda
