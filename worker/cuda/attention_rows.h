// Which tokens a block of an attention kernel works on, and which pairs of tokens see each
// other. Device code.
#pragma once

#include <cstdint>

#include "worker/cuda/launch.h"

namespace tundra::cuda {

// The rule of the scores, in one place for forward and backward: which keys a query sees,
// and what becomes of a raw score q·k. Positions count from the row's first token. A sliding
// window changes the ranges and Visible; a soft cap changes Score, and gives the gradient of
// the score a factor.
struct ScoreRule {
  float scale = 0;        // of raw scores
  float scale_log2e = 0;  // the same in base 2: scale · log2(e)

  // Keys that any query in [query_begin, query_end) sees: [KeysBegin, KeysEnd).
  TUNDRA_DEVICE int KeysBegin(int /*query_begin*/) const { return 0; }
  TUNDRA_DEVICE int KeysEnd(int query_end, int length) const {
    return query_end < length ? query_end : length;
  }
  // Queries that see any key in [key_begin, key_end): [QueriesBegin, QueriesEnd).
  TUNDRA_DEVICE int QueriesBegin(int key_begin) const { return key_begin; }
  TUNDRA_DEVICE int QueriesEnd(int /*key_end*/, int length) const { return length; }

  // Both are tokens of the row, for queries only where the caller doesn't look at `length`.
  TUNDRA_DEVICE bool Visible(int query, int key, int length) const {
    return key <= query && query < length;
  }
  // Whether every query in [query_begin, query_end) sees every key before key_end.
  TUNDRA_DEVICE bool AllVisible(int query_begin, int query_end, int key_end, int length) const {
    return key_end <= query_begin + 1 && query_end <= length;
  }

  // The score in base 2: softmax weights are 2^(Score − largest).
  TUNDRA_DEVICE float Score(float raw) const { return raw * scale_log2e; }
};

// A tile: up to `tile_size` tokens of one row of the data set, counted from the row's own
// first token, so that its bits don't depend on what is packed beside it.
struct RowTile {
  int begin = 0;   // the row's first token
  int length = 0;  // of the row, in tokens
  int first = 0;   // the tile's first token, counted from begin; the tile is empty from length on
  bool padding = false;  // the tokens after the last row
};

// How many numbers FindTile takes: enough for any rows.
inline int64_t TileSlots(int64_t tokens, int num_rows, int tile_size) {
  return tokens / tile_size + num_rows + 1;
}

// The tile with a number in [0, TileSlots). Row i's tiles begin at offsets[i] / tile_size + i:
// floor((o + n) / s) + 1 − floor(o / s) >= ceil(n / s), so that is room enough, and no sum over
// earlier rows is needed. Some numbers have no tile: first >= length. The padding counts as
// a row. Offsets that are not as PackedRows says give wrong tiles, but within the tokens.
TUNDRA_DEVICE RowTile FindTile(Pointer<const int32_t> offsets, int num_rows, int tokens,
                               int tile_size, int number) {
  const auto offset = [&](int row) {
    const int at = row == 0 ? 0 : row > num_rows ? tokens : offsets[row];
    return at < 0 ? 0 : at > tokens ? tokens : at;
  };
  int row = 0;
  for (int after = num_rows + 1; after - row > 1;) {
    const int middle = row + (after - row) / 2;
    (offset(middle) / tile_size + middle <= number ? row : after) = middle;
  }
  RowTile tile;
  tile.begin = offset(row);
  tile.length = offset(row + 1) - tile.begin;
  tile.first = (number - tile.begin / tile_size - row) * tile_size;
  tile.padding = row == num_rows;
  return tile;
}

}  // namespace tundra::cuda
