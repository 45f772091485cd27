// Tiles of rows in shared memory and their products on tensor cores: what the attention
// kernels are made of. Device code. Operands are of type BF16, or float for full precision
// (fragments.h).
#pragma once

#include <cstdint>
#include <type_traits>

#include "worker/cuda/fragments.h"

namespace tundra::cuda {

// Rows of kDim elements in shared memory. Chunks of 16 bytes lie in an order that depends on
// the row, so that a column of chunks, as tensor cores read it, lies in different banks.
template <typename T, int kDim>
struct Tile {
  static constexpr int kChunkElements = 16 / static_cast<int>(sizeof(T));
  static constexpr int kChunks = kDim / kChunkElements;
  static_assert(kDim % 32 == 0);

  // Of `rows` rows at `offset_bytes` of the block's shared memory; a multiple of 16 rows.
  static TUNDRA_DEVICE Tile AtShared(size_t offset_bytes, int rows) {
    return {SharedArray<T>(offset_bytes, rows * kDim)};
  }

  // The tile without its first `row` rows, a multiple of 16.
  TUNDRA_DEVICE Tile From(int row) const { return {data + row * kDim}; }

  // What is added (xor) to the number of a chunk in row r of 16.
  static TUNDRA_DEVICE int Spread(int r) {
    if constexpr (std::is_same_v<T, float>) {
      return (r & 3) * 2;  // threads take pairs of two rows of chunks: eight banks a row
    } else {
      // All rows begin at the same of the 128 bytes of banks, or every second one does.
      return kChunks % 8 == 0 ? r & 7 : r / 2 & 3;
    }
  }

  // Chunk `chunk` of row row0 + r; row0 a multiple of 8.
  TUNDRA_DEVICE Pointer<T> At(int row0, int r, int chunk) const {
    // Written so that chunks eight apart have addresses a constant apart: fewer registers.
    const int place = (chunk & ~7) + ((chunk & 7) ^ Spread(r));
    return data + ((row0 + r) * kChunks + place) * kChunkElements;
  }

  // Two neighbouring elements of row row0 + r.
  TUNDRA_DEVICE Pointer<T> PairAt(int row0, int r, int column) const {
    return At(row0, r, column / kChunkElements) + column % kChunkElements;
  }

  // A = rows [row0, row0 + 16), columns [k0, k0 + 16).
  TUNDRA_DEVICE FragmentA<T> LoadA(int row0, int k0) const {
    FragmentA<T> a;
    const int lane = Lane();
    if constexpr (kParts<T> == 1) {
      LoadMatrix4(a.part[0], At(row0, lane % 16, (k0 / 8) ^ (lane / 16)));
    } else {
      TUNDRA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Pointer<T> p = PairAt(row0, lane / 4 + i % 2 * 8, k0 + i / 2 * 8 + lane % 4 * 2);
        uint32_t parts[kParts<T>];
        SplitPair<T>(p[0], p[1], parts);
        TUNDRA_UNROLL
        for (int j = 0; j < kParts<T>; ++j) a.part[j][i] = parts[j];
      }
    }
    return a;
  }

  // B = the transpose of rows [n0, n0 + 8) and of [n0 + 8, n0 + 16), columns [k0, k0 + 16).
  TUNDRA_DEVICE void LoadB(int n0, int k0, FragmentB<T> (&b)[2]) const {
    const int lane = Lane();
    if constexpr (kParts<T> == 1) {
      uint32_t r[4];
      LoadMatrix4(r, At(n0, lane / 16 * 8 + lane % 8, (k0 / 8) ^ (lane / 8 % 2)));
      b[0] = {{{r[0], r[1]}}};
      b[1] = {{{r[2], r[3]}}};
    } else {
      TUNDRA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Pointer<T> p = PairAt(n0, lane / 4 + i / 2 * 8, k0 + i % 2 * 8 + lane % 4 * 2);
        SplitInto(p[0], p[1], b[i / 2], i % 2);
      }
    }
  }

  // B = rows [k0, k0 + 16), columns [n0, n0 + 8) and [n0 + 8, n0 + 16).
  TUNDRA_DEVICE void LoadRowsAsB(int k0, int n0, FragmentB<T> (&b)[2]) const {
    const int lane = Lane();
    if constexpr (kParts<T> == 1) {
      uint32_t r[4];
      LoadMatrix4Transposed(r, At(k0, lane % 16, (n0 / 8) ^ (lane / 16)));
      b[0] = {{{r[0], r[1]}}};
      b[1] = {{{r[2], r[3]}}};
    } else {
      TUNDRA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int r = lane % 4 * 2 + i % 2 * 8, column = n0 + i / 2 * 8 + lane / 4;
        SplitInto(PairAt(k0, r, column)[0], PairAt(k0, r + 1, column)[0], b[i / 2], i % 2);
      }
    }
  }

  Pointer<T> data;

 private:
  static TUNDRA_DEVICE void SplitInto(float lo, float hi, FragmentB<T>& b, int i) {
    uint32_t parts[kParts<T>];
    SplitPair<T>(lo, hi, parts);
    TUNDRA_UNROLL
    for (int j = 0; j < kParts<T>; ++j) b.part[j][i] = parts[j];
  }
};

// Starts to copy rows [0, kRows), kDim elements each, end to end at `rows`, into a tile; rows
// from `valid` on become zeros. All of the block's kThreads threads call it.
template <int kRows, int kThreads, typename T, int kDim>
TUNDRA_DEVICE void CopyRows(const Tile<T, kDim>& tile, const Pointer<const T>& rows, int valid) {
  using Tile = Tile<T, kDim>;
  // 8 (or 4) threads take neighbouring chunks of a row. A thread's rows are a multiple of the
  // period of Spread apart and its chunks are too, so its addresses are constants apart.
  constexpr int kAcross = Tile::kChunks % 8 == 0 ? 8 : 4;
  constexpr int kDown = kThreads / kAcross;
  static_assert(Tile::kChunks % kAcross == 0 && kRows % kDown == 0);
  const int row = static_cast<int>(threadIdx.x / kAcross);
  const int chunk = static_cast<int>(threadIdx.x % kAcross);
  const Pointer<T> to = tile.At(0, row, chunk);
  const Pointer<const T> from = rows + (row * kDim + chunk * Tile::kChunkElements);
  TUNDRA_UNROLL
  for (int r = 0; r < kRows; r += kDown) {
    TUNDRA_UNROLL
    for (int c = 0; c < kDim; c += kAcross * Tile::kChunkElements) {
      // Of a row that is not valid nothing is read.
      CpAsync16OrZero(to + (r * kDim + c), from + (r * kDim + c), row + r < valid);
    }
  }
}

// s += A · Bᵀ: A the tile's rows from row0 on, B all kCols rows of the other.
template <int kRowBlocks, int kCols, typename T, int kDim>
TUNDRA_DEVICE void AddRowsTimesRows(const Tile<T, kDim>& a, int row0, const Tile<T, kDim>& b,
                                    Accumulators<kRowBlocks, kCols>& s) {
  // No sum has a place that depends on k0, so not all steps need unrolling: then the compiler
  // would bring more factors forward than there are registers. 128 bytes of columns at a time,
  // after which the places of chunks repeat.
  TUNDRA_UNROLL_BY(128 / 16 / static_cast<int>(sizeof(T)))
  for (int k0 = 0; k0 < kDim; k0 += 16) {
    FragmentA<T> fa[kRowBlocks];
    TUNDRA_UNROLL
    for (int i = 0; i < kRowBlocks; ++i) fa[i] = a.LoadA(row0 + 16 * i, k0);
    TUNDRA_UNROLL
    for (int n0 = 0; n0 < kCols; n0 += 16) {
      FragmentB<T> fb[2];
      b.LoadB(n0, k0, fb);
      TUNDRA_UNROLL
      for (int i = 0; i < kRowBlocks; ++i) {
        MultiplyAdd(fa[i], fb[0], s.v[i][n0 / 8]);
        MultiplyAdd(fa[i], fb[1], s.v[i][n0 / 8 + 1]);
      }
    }
  }
}

// o += W · B: weights from registers, B all kKeys rows of the tile. A thread's sums of one
// product are its elements of the next one's A.
template <int kRowBlocks, int kKeys, typename T, int kDim>
TUNDRA_DEVICE void AddWeightedRows(const Accumulators<kRowBlocks, kKeys>& w, const Tile<T, kDim>& b,
                                   Accumulators<kRowBlocks, kDim>& o) {
  TUNDRA_UNROLL
  for (int k0 = 0; k0 < kKeys; k0 += 16) {
    FragmentA<T> fa[kRowBlocks];
    TUNDRA_UNROLL
    for (int i = 0; i < kRowBlocks; ++i) {
      TUNDRA_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float* pair = &w.v[i][k0 / 8 + e / 2][e % 2 * 2];
        uint32_t parts[kParts<T>];
        SplitPair<T>(pair[0], pair[1], parts);
        TUNDRA_UNROLL
        for (int j = 0; j < kParts<T>; ++j) fa[i].part[j][e] = parts[j];
      }
    }
    TUNDRA_UNROLL
    for (int n0 = 0; n0 < kDim; n0 += 16) {
      FragmentB<T> fb[2];
      b.LoadRowsAsB(k0, n0, fb);
      TUNDRA_UNROLL
      for (int i = 0; i < kRowBlocks; ++i) {
        MultiplyAdd(fa[i], fb[0], o.v[i][n0 / 8]);
        MultiplyAdd(fa[i], fb[1], o.v[i][n0 / 8 + 1]);
      }
    }
  }
}

// Where rows of sums go: columns [column, column + dim) of a matrix of f32, whose row of the
// tile's first token is `token`.
struct RowsOut {
  Matrix<float> to;
  int64_t token = 0;
  int64_t column = 0;
  int dim = 0;        // a head's columns; sums beyond them are dropped
  int valid = 0;      // rows; sums of later ones are dropped
  bool wide = false;  // whether every head of every row begins at a 16-byte boundary
};

// Rows row0 on of a tile := factor · the sums.
template <int kRowBlocks, int kDim>
TUNDRA_DEVICE void StoreRows(const Accumulators<kRowBlocks, kDim>& sums, int row0, float factor,
                             const RowsOut& out) {
  // Neighbours swap halves, so that a thread has four columns of one row.
  const bool odd = Lane() % 2 != 0;
  const int first_column = Lane() % 4 / 2 * 4;
  TUNDRA_UNROLL
  for (int i = 0; i < kRowBlocks; ++i) {
    const int row = row0 + 16 * i + Lane() / 4 + (odd ? 8 : 0);
    Pointer<float> to;
    if (row < out.valid) to = out.to.row(out.token + row) + (out.column + first_column);
    const int dim = row < out.valid ? out.dim - first_column : 0;  // columns left from there
    TUNDRA_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      const float(&v)[4] = sums.v[i][n];
      const float got0 = ShuffleXor(odd ? v[0] : v[2], 1), got1 = ShuffleXor(odd ? v[1] : v[3], 1);
      const Float4 four{(odd ? got0 : v[0]) * factor, (odd ? got1 : v[1]) * factor,
                        (odd ? v[2] : got0) * factor, (odd ? v[3] : got1) * factor};
      if (out.wide) {
        if (8 * n < dim) Store4(to + 8 * n, four);
      } else {
        if (8 * n < dim) to[8 * n] = four.x;
        if (8 * n + 1 < dim) to[8 * n + 1] = four.y;
        if (8 * n + 2 < dim) to[8 * n + 2] = four.z;
        if (8 * n + 3 < dim) to[8 * n + 3] = four.w;
      }
    }
  }
}

// The same rows and columns := 0, by all threads of the block.
TUNDRA_DEVICE void ZeroRows(const RowsOut& out) {
  for (int i = static_cast<int>(threadIdx.x); i < out.valid * out.dim;
       i += static_cast<int>(blockDim.x)) {
    out.to(out.token + i / out.dim, out.column + i % out.dim) = 0.0f;
  }
}

}  // namespace tundra::cuda
