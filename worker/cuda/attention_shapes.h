// How large the tiles of the attention kernels are, by type of operand and size of head: all
// that is to be tuned on a card stands here.
//
// A warp computes 16 · kRowBlocks rows of scores against all columns of the other tile. Two
// row blocks read half as much shared memory for a product, but hold twice the sums; limits
// are 255 registers a thread, and the 99 KiB of shared memory of a block on the smallest card
// (compute capability 8.9). Float tiles are twice as large and serve where speed doesn't count.
#pragma once

#include <cstddef>

#include "worker/cuda/attention_tile.h"

namespace tundra::cuda {

inline constexpr size_t kMaxSharedBytes = 99 << 10;

template <typename T>
inline constexpr bool kFullPrecision = kParts<T> > 1;

template <typename T, int kDim>
inline constexpr size_t kRowBytes = sizeof(T) * static_cast<size_t>(kDim);

// Forward: a tile of queries against tiles of keys and values.
template <typename T, int kDim>
struct ForwardShape {
  static constexpr int kWarps = kFullPrecision<T> && kDim > 192 ? 2 : 4;
  static constexpr int kRowBlocks = kFullPrecision<T> || kDim > 128 ? 1 : 2;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kQueries = kWarps * 16 * kRowBlocks;
  // Half as many scores where the sums leave no registers for more.
  static constexpr bool kManySums = kFullPrecision<T> ? kDim > 128 : kRowBlocks == 2 && kDim > 64;
  static constexpr int kKeys = (kFullPrecision<T> ? 32 : 64) / (kManySums ? 2 : 1);
  static constexpr size_t kSharedBytes = kRowBytes<T, kDim> * (kQueries + 2 * kKeys);
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

// Gradient of queries: queries and their output's gradient against tiles of keys and
// values, of which the next is copied while one is used.
template <typename T, int kDim>
struct QueryGradientShape {
  static constexpr int kWarps = !kFullPrecision<T> || kDim <= 128 ? 4 : kDim <= 192 ? 2 : 1;
  static constexpr int kRowBlocks = kFullPrecision<T> || kDim > 128 ? 1 : 2;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kQueries = kWarps * 16 * kRowBlocks;
  static constexpr int kKeys = kRowBytes<T, kDim> > 384 ? 16 : 32;
  static constexpr size_t kSharedBytes = kRowBytes<T, kDim> * (2 * kQueries + 4 * kKeys);
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

// Gradients of keys and values: keys and values against tiles of queries and their output's
// gradient, of which the next is copied while one is used. Where the sums of both gradients
// are too many registers, two launches compute them one after the other.
template <typename T, int kDim>
struct KeyGradientShape {
  static constexpr int kWarps = !kFullPrecision<T> || kDim <= 128 ? 4 : kDim <= 192 ? 2 : 1;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kKeys = kWarps * 16;
  static constexpr int kQueries = kRowBytes<T, kDim> <= 128 ? 64
                                  : kRowBytes<T, kDim> <= 256 || !kFullPrecision<T> && kDim <= 192
                                      ? 32
                                      : 16;
  static constexpr bool kTogether = kDim <= 128;
  static constexpr size_t kStatsBytes = 2 * kQueries * sizeof(Float4);
  static constexpr size_t kSharedBytes =
      kRowBytes<T, kDim> * (2 * kKeys + 4 * kQueries) + kStatsBytes;
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

}  // namespace tundra::cuda
