// Attention, forward: a block computes a tile of queries of one head.
//
// Scores of the tile against a block of keys stay in registers; softmax runs online over
// the blocks of keys, in rising order. Blocks are counted from a row's own first token.
// Source: Dao 2023, arXiv:2307.08691; Milakov & Gimelshein 2018, arXiv:1805.02867.
#include <algorithm>
#include <limits>

#include "worker/cuda/attention_kernels.h"
#include "worker/cuda/attention_shapes.h"
#include "worker/cuda/attention_tile.h"

namespace tundra::cuda {
namespace {

constexpr float kLn2 = 0.693147180559945309f;

// The running maximum and sum of a warp's rows: [i][j] is row 16 i + 8 j + lane / 4. A thread's
// sum is of its own columns, until Finish.
template <int kRowBlocks>
struct OnlineSoftmax {
  float max[kRowBlocks][2];
  float sum[kRowBlocks][2];

  TUNDRA_DEVICE OnlineSoftmax() {
    TUNDRA_UNROLL
    for (int i = 0; i < kRowBlocks; ++i) {
      max[i][0] = max[i][1] = -std::numeric_limits<float>::infinity();
      sum[i][0] = sum[i][1] = 0;
    }
  }

  // Scores (base 2) become weights 2^(score − max); what was summed before is scaled to the
  // new maximum.
  template <int kKeys, int kDim>
  TUNDRA_DEVICE void Update(Accumulators<kRowBlocks, kKeys>& s,
                            Accumulators<kRowBlocks, kDim>& out) {
    TUNDRA_UNROLL
    for (int i = 0; i < kRowBlocks; ++i) {
      TUNDRA_UNROLL
      for (int j = 0; j < 2; ++j) {
        float largest = max[i][j];
        TUNDRA_UNROLL
        for (int n = 0; n < kKeys / 8; ++n) {
          largest = fmaxf(largest, fmaxf(s.v[i][n][2 * j], s.v[i][n][2 * j + 1]));
        }
        largest = fmaxf(largest, ShuffleXor(largest, 1));
        largest = fmaxf(largest, ShuffleXor(largest, 2));
        // A query that has seen no key yet must not compute −inf − −inf.
        const float shift = largest == -std::numeric_limits<float>::infinity() ? 0.0f : largest;
        const float factor = Exp2(max[i][j] - shift);
        float added = 0;
        TUNDRA_UNROLL
        for (int n = 0; n < kKeys / 8; ++n) {
          TUNDRA_UNROLL
          for (int e = 2 * j; e < 2 * j + 2; ++e) {
            s.v[i][n][e] = Exp2(s.v[i][n][e] - shift);
            added += s.v[i][n][e];
          }
        }
        max[i][j] = largest;
        sum[i][j] = fmaf(sum[i][j], factor, added);
        TUNDRA_UNROLL
        for (int n = 0; n < kDim / 8; ++n) {
          out.v[i][n][2 * j] *= factor;
          out.v[i][n][2 * j + 1] *= factor;
        }
      }
    }
  }

  // out := weighted mean; sum becomes the row's log Σ exp in base e.
  template <int kDim>
  TUNDRA_DEVICE void Finish(Accumulators<kRowBlocks, kDim>& out) {
    TUNDRA_UNROLL
    for (int i = 0; i < kRowBlocks; ++i) {
      TUNDRA_UNROLL
      for (int j = 0; j < 2; ++j) {
        float total = sum[i][j];
        total += ShuffleXor(total, 1);
        total += ShuffleXor(total, 2);
        const float factor = 1.0f / total;
        TUNDRA_UNROLL
        for (int n = 0; n < kDim / 8; ++n) {
          out.v[i][n][2 * j] *= factor;
          out.v[i][n][2 * j + 1] *= factor;
        }
        sum[i][j] = fmaf(max[i][j], kLn2, logf(total));
      }
    }
  }
};

// Raw scores of a warp's queries, from first_query on, become scores in base 2; −inf where
// the query doesn't see the key.
template <int kRowBlocks, int kKeys>
TUNDRA_DEVICE void ApplyRule(const ScoreRule& rule, int first_query, int first_key, int length,
                             bool all_visible, Accumulators<kRowBlocks, kKeys>& s) {
  TUNDRA_UNROLL
  for (int i = 0; i < kRowBlocks; ++i) {
    TUNDRA_UNROLL
    for (int n = 0; n < kKeys / 8; ++n) {
      TUNDRA_UNROLL
      for (int e = 0; e < 4; ++e) s.v[i][n][e] = rule.Score(s.v[i][n][e]);
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
        if (!rule.Visible(query, key, length)) {
          s.v[i][n][e] = -std::numeric_limits<float>::infinity();
        }
      }
    }
  }
}

template <int kRowBlocks>
TUNDRA_DEVICE void StoreLse(const OnlineSoftmax<kRowBlocks>& softmax, int first_query,
                            const RowTile& tile, int head, const Matrix<float>& lse_TH) {
  if (Lane() % 4 != 0) return;
  TUNDRA_UNROLL
  for (int i = 0; i < kRowBlocks; ++i) {
    TUNDRA_UNROLL
    for (int j = 0; j < 2; ++j) {
      const int query = first_query + 16 * i + 8 * j + Lane() / 4;
      if (query < tile.length) lse_TH(tile.begin + query, head) = softmax.sum[i][j];
    }
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(ForwardShape<T, kDim>::kThreads)
    AttentionForwardKernel(AttentionOperands<T> in, AttentionResult out_TH, Matrix<float> lse_TH) {
  using Shape = ForwardShape<T, kDim>;
  constexpr int kQueries = Shape::kQueries, kKeys = Shape::kKeys;
  const int head = static_cast<int>(blockIdx.x) % in.heads;
  // Late queries see most keys, so their tiles start first.
  const int number = static_cast<int>(gridDim.x - 1 - blockIdx.x) / in.heads;
  const RowTile tile = FindTile(in.offsets, in.num_rows, in.tokens, kQueries, number);
  const int valid = std::min(kQueries, tile.length - tile.first);
  if (valid <= 0) return;
  const RowsOut out{
      out_TH.to,  tile.begin + tile.first, static_cast<int64_t>(head) * in.dim, in.dim, valid,
      out_TH.wide};
  if (tile.padding) {
    ZeroRows(out);
    for (int i = static_cast<int>(threadIdx.x); i < valid; i += Shape::kThreads) {
      lse_TH(out.token + i, head) = -std::numeric_limits<float>::infinity();
    }
    return;
  }

  const auto q = Tile<T, kDim>::AtShared(0, kQueries);
  const auto k = Tile<T, kDim>::AtShared(kRowBytes<T, kDim> * kQueries, kKeys);
  const auto v = Tile<T, kDim>::AtShared(kRowBytes<T, kDim> * (kQueries + kKeys), kKeys);
  const auto copy = [&](const Tile<T, kDim>& to, const Pointer<const T>& from, int first_key) {
    CopyRows<kKeys, Shape::kThreads>(
        to, PackedRow(from, head / in.group, in.tokens, tile.begin + first_key, kDim),
        tile.length - first_key);
  };
  const int begin = in.rule.KeysBegin(tile.first) / kKeys * kKeys;
  const int end = in.rule.KeysEnd(tile.first + kQueries, tile.length);
  const int row0 = Warp() * 16 * Shape::kRowBlocks;
  CopyRows<kQueries, Shape::kThreads>(
      q, PackedRow(in.q, head, in.tokens, tile.begin + tile.first, kDim), valid);
  copy(k, in.k, begin);
  CpAsyncCommit();
  OnlineSoftmax<Shape::kRowBlocks> softmax;
  Accumulators<Shape::kRowBlocks, kDim> sums;
  for (int key = begin; key < end; key += kKeys) {
    CpAsyncWait<0>();
    SyncThreads();  // the keys have come, and all have used the last values
    copy(v, in.v, key);
    CpAsyncCommit();
    Accumulators<Shape::kRowBlocks, kKeys> s;
    AddRowsTimesRows(q, row0, k, s);
    CpAsyncWait<0>();
    SyncThreads();  // the values have come, and all have used the keys
    if (key + kKeys < end) copy(k, in.k, key + kKeys);
    CpAsyncCommit();
    ApplyRule(in.rule, tile.first + row0, key, tile.length,
              in.rule.AllVisible(tile.first, tile.first + kQueries, key + kKeys, tile.length), s);
    softmax.Update(s, sums);
    AddWeightedRows(s, v, sums);
  }
  softmax.Finish(sums);
  StoreRows(sums, row0, 1.0f, out);
  StoreLse(softmax, tile.first + row0, tile, head, lse_TH);
}

}  // namespace

template <typename T>
absl::Status LaunchForward(cudaStream_t stream, const AttentionOperands<T>& in, int padded_dim,
                           const AttentionResult& out_TH, Matrix<float> lse_TH) {
  return WithHeadDim<T>(padded_dim, [&](auto dim) {
    using Shape = ForwardShape<T, dim()>;
    const int64_t blocks = TileSlots(in.tokens, in.num_rows, Shape::kQueries) * in.heads;
    return Launch<AttentionForwardKernel<T, dim()>>(dim3(static_cast<unsigned>(blocks)),
                                                    dim3(Shape::kThreads), Shape::kSharedBytes,
                                                    stream, in, out_TH, lse_TH);
  });
}

template absl::Status LaunchForward(cudaStream_t, const AttentionOperands<BF16>&, int,
                                    const AttentionResult&, Matrix<float>);
template absl::Status LaunchForward(cudaStream_t, const AttentionOperands<float>&, int,
                                    const AttentionResult&, Matrix<float>);

}  // namespace tundra::cuda
