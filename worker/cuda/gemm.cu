// A factor's numbers are split into bf16 once for a block, on their way to shared memory, in
// the order in which they lie in the operand's memory; transposing is left to the instruction
// that loads factors from there.
#include <bit>

#include "absl/strings/str_cat.h"
#include "worker/cuda/fragments.h"
#include "worker/cuda/gemm.h"

namespace tundra::cuda {
namespace {

// A block computes a tile of kTileM x TN results, a warp 16 rows of it, TK terms at a time.
constexpr int kTileM = 64;
constexpr int kThreads = kTileM / 16 * kWarp;
// TK where k is a rank, so that a small one wastes little, and where k is long.
constexpr int kShortTileK = 16, kLongTileK = 32;
constexpr int64_t kPiecesAtOnce = 64;

struct Operands {
  Matrix<const float> a, b;
  int64_t m = 0, n = 0, k = 0;
  int64_t piece = 0;  // terms of one piece; block z computes piece z
  float scale = 1;
  bool add = false;
  Matrix<float> c;  // block z's results start at row z · m
  // Whether all rows begin at 16-byte boundaries; those of c must end there, too.
  bool a_wide = false, b_wide = false, c_wide = false;
};

// kRows x kCols numbers of an operand, as they lie in its memory, on their way to shared
// memory: each thread of the block has some chunks of eight neighbours in registers.
template <int kRows, int kCols>
struct Chunks {
  static constexpr int kAcross = kCols / 8;
  static constexpr int kCount = kRows * kAcross;
  static constexpr int kEach = (kCount + kThreads - 1) / kThreads;
  float v[kEach][8];

  static TUNDRA_DEVICE int Number(int i) { return static_cast<int>(threadIdx.x) + i * kThreads; }

  // From (row0, col0) on, zeros from row_end and from col_end on.
  TUNDRA_DEVICE void Read(const Matrix<const float>& from, bool wide, int64_t row0, int64_t row_end,
                          int64_t col0, int64_t col_end) {
    TUNDRA_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const int chunk = Number(i);
      const int64_t row = row0 + chunk / kAcross, col = col0 + chunk % kAcross * 8;
      const bool inside = chunk < kCount && row < row_end && col < col_end;
      const int left = !inside ? 0 : static_cast<int>(col_end - col < 8 ? col_end - col : 8);
      Pointer<const float> p;
      if (inside) p = from.row(row) + col;
      if (wide && left == 8) {
        const Float4 lo = Load4(p), hi = Load4(p + 4);
        v[i][0] = lo.x, v[i][1] = lo.y, v[i][2] = lo.z, v[i][3] = lo.w;
        v[i][4] = hi.x, v[i][5] = hi.y, v[i][6] = hi.z, v[i][7] = hi.w;
      } else {
        TUNDRA_UNROLL
        for (int j = 0; j < 8; ++j) v[i][j] = j < left ? p[j] : 0.0f;
      }
    }
  }
};

// The same in shared memory, each number as three bf16: a matrix for each part. A row has 16
// bytes more than it needs, an odd number of chunks in all, so that eight chunks below each
// other, as tensor cores read them, lie in different banks.
template <int kRows, int kCols>
struct PartsTile {
  static constexpr int kRowFloats = kCols / 2 + 4;
  static constexpr int kFloats = kParts<float> * kRows * kRowFloats;
  static_assert(kRows % 16 == 0 && kCols % 16 == 0);
  Pointer<float> data;

  // Two bf16 in each float, from an even column on.
  TUNDRA_DEVICE Pointer<float> At(int part, int row, int col) const {
    return data + ((part * kRows + row) * kRowFloats + col / 2);
  }

  TUNDRA_DEVICE void Write(const Chunks<kRows, kCols>& chunks) const {
    using From = Chunks<kRows, kCols>;
    TUNDRA_UNROLL
    for (int i = 0; i < From::kEach; ++i) {
      const int chunk = From::Number(i);
      if (chunk >= From::kCount) break;
      const int row = chunk / From::kAcross, col = chunk % From::kAcross * 8;
      uint32_t pairs[4][kParts<float>];
      TUNDRA_UNROLL
      for (int j = 0; j < 4; ++j) {
        SplitPair<float>(chunks.v[i][2 * j], chunks.v[i][2 * j + 1], pairs[j]);
      }
      TUNDRA_UNROLL
      for (int part = 0; part < kParts<float>; ++part) {
        Store4(At(part, row, col),
               {std::bit_cast<float>(pairs[0][part]), std::bit_cast<float>(pairs[1][part]),
                std::bit_cast<float>(pairs[2][part]), std::bit_cast<float>(pairs[3][part])});
      }
    }
  }

  // One part of 16 x 16 numbers from (row, col) on: four matrices of 8 x 8, row by row with
  // kAcrossFirst, column by column without.
  template <bool kAcrossFirst, bool kTranspose>
  TUNDRA_DEVICE void Load(int part, int row, int col, uint32_t (&r)[4]) const {
    const int lane = Lane();
    const int down = kAcrossFirst ? lane / 16 * 8 + lane % 8 : lane % 16;
    const int across = kAcrossFirst ? lane / 8 % 2 * 8 : lane / 16 * 8;
    const Pointer<float> p = At(part, row + down, col + across);
    if constexpr (kTranspose) {
      LoadMatrix4Transposed(r, p);
    } else {
      LoadMatrix4(r, p);
    }
  }
};

// The tiles of both operands, which in memory are a [m, k], b [k, n], or turned.
template <int TN, int TK, bool a_turned, bool b_turned>
struct Tiles {
  static constexpr int kARows = a_turned ? TK : kTileM, kACols = a_turned ? kTileM : TK;
  static constexpr int kBRows = b_turned ? TN : TK, kBCols = b_turned ? TK : TN;
  using A = PartsTile<kARows, kACols>;
  using B = PartsTile<kBRows, kBCols>;
  static constexpr size_t kBytes = (A::kFloats + B::kFloats) * sizeof(float);
  static_assert(kBytes <= 48 << 10);

  Chunks<kARows, kACols> next_a;
  Chunks<kBRows, kBCols> next_b;
  A a{SharedArray<float>(0, A::kFloats)};
  B b{SharedArray<float>(A::kFloats * sizeof(float), B::kFloats)};

  // Starts to read the tiles of terms [k0, k0 + TK), of which those from k_end on are zeros.
  TUNDRA_DEVICE void Read(const Operands& p, int64_t m0, int64_t n0, int64_t k0, int64_t k_end) {
    if constexpr (a_turned) {
      next_a.Read(p.a, p.a_wide, k0, k_end, m0, p.m);
    } else {
      next_a.Read(p.a, p.a_wide, m0, p.m, k0, k_end);
    }
    if constexpr (b_turned) {
      next_b.Read(p.b, p.b_wide, n0, p.n, k0, k_end);
    } else {
      next_b.Read(p.b, p.b_wide, k0, k_end, n0, p.n);
    }
  }

  TUNDRA_DEVICE void Write() const {
    a.Write(next_a);
    b.Write(next_b);
  }

  // sum += rows [row, row + 16) of a · b.
  TUNDRA_DEVICE void MultiplyAddTo(int row, Accumulators<1, TN>& sum) const {
    // Not unrolled: factors of several steps at once would take too many registers.
    TUNDRA_UNROLL_BY(1)
    for (int k = 0; k < TK; k += 16) {
      FragmentA<float> fa;
      TUNDRA_UNROLL
      for (int part = 0; part < kParts<float>; ++part) {
        a.template Load<a_turned, a_turned>(part, a_turned ? k : row, a_turned ? row : k,
                                            fa.part[part]);
      }
      TUNDRA_UNROLL
      for (int n = 0; n < TN; n += 16) {
        FragmentB<float> fb[2];
        TUNDRA_UNROLL
        for (int part = 0; part < kParts<float>; ++part) {
          uint32_t r[4];
          b.template Load<b_turned, !b_turned>(part, b_turned ? n : k, b_turned ? k : n, r);
          fb[0].part[part][0] = r[0], fb[0].part[part][1] = r[1];
          fb[1].part[part][0] = r[2], fb[1].part[part][1] = r[3];
        }
        MultiplyAdd(fa, fb[0], sum.v[0][n / 8]);
        MultiplyAdd(fa, fb[1], sum.v[0][n / 8 + 1]);
      }
    }
  }
};

// c (=|+=) scale · the sums, of 16 rows from row0 and TN columns from n0 on.
template <int TN>
TUNDRA_DEVICE void StoreSums(const Operands& p, Accumulators<1, TN>& sum, int64_t row0,
                             int64_t n0) {
  // Neighbours swap halves, so that a thread has four columns of one row.
  const bool odd = Lane() % 2 != 0;
  TUNDRA_UNROLL
  for (int n = 0; n < TN / 8; ++n) {
    float(&v)[4] = sum.v[0][n];
    const float got0 = ShuffleXor(odd ? v[0] : v[2], 1), got1 = ShuffleXor(odd ? v[1] : v[3], 1);
    const float four[4] = {odd ? got0 : v[0], odd ? got1 : v[1], odd ? v[2] : got0,
                           odd ? v[3] : got1};
    for (int e = 0; e < 4; ++e) v[e] = p.scale * four[e];
  }
  const int64_t row = row0 + Lane() / 4 + (odd ? 8 : 0), col = n0 + Lane() % 4 / 2 * 4;
  if (row >= p.m) return;
  const Pointer<float> to = p.c.row(int64_t{blockIdx.z} * p.m + row) + col;
  const int left = static_cast<int>(p.n - col < TN ? p.n - col : TN);
  // All loads before the first store, which they would have to wait for.
  TUNDRA_UNROLL
  for (int n = 0; n < TN / 8; ++n) {
    float(&v)[4] = sum.v[0][n];
    if (!p.add) break;
    Float4 old{};
    if (p.c_wide) {
      if (8 * n < left) old = Load4(to + 8 * n);
    } else {
      if (8 * n < left) old.x = to[8 * n];
      if (8 * n + 1 < left) old.y = to[8 * n + 1];
      if (8 * n + 2 < left) old.z = to[8 * n + 2];
      if (8 * n + 3 < left) old.w = to[8 * n + 3];
    }
    v[0] += old.x, v[1] += old.y, v[2] += old.z, v[3] += old.w;
  }
  TUNDRA_UNROLL
  for (int n = 0; n < TN / 8; ++n) {
    const float(&v)[4] = sum.v[0][n];
    if (p.c_wide) {
      if (8 * n < left) Store4(to + 8 * n, {v[0], v[1], v[2], v[3]});
    } else {
      TUNDRA_UNROLL
      for (int e = 0; e < 4; ++e) {
        if (8 * n + e < left) to[8 * n + e] = v[e];
      }
    }
  }
}

template <int TN, int TK, bool a_turned, bool b_turned>
__global__ void __launch_bounds__(kThreads) GemmKernel(Operands p) {
  Tiles<TN, TK, a_turned, b_turned> tiles;
  const int64_t m0 = int64_t{blockIdx.x} * kTileM, n0 = int64_t{blockIdx.y} * TN;
  const int64_t k_begin = int64_t{blockIdx.z} * p.piece;
  const int64_t k_end = k_begin + p.piece < p.k ? k_begin + p.piece : p.k;
  Accumulators<1, TN> sum;
  tiles.Read(p, m0, n0, k_begin, k_end);
  for (int64_t k0 = k_begin; k0 < k_end; k0 += TK) {
    SyncThreads();
    tiles.Write();
    SyncThreads();
    // The next tiles are on their way while these are multiplied.
    if (k0 + TK < k_end) tiles.Read(p, m0, n0, k0 + TK, k_end);
    tiles.MultiplyAddTo(Warp() * 16, sum);
  }
  StoreSums<TN>(p, sum, m0 + Warp() * 16, n0);
}

// c (=|+=) scale · Σ of the pieces, which lie below each other in `partial`, in order. c may
// lie turned.
__global__ void AddPiecesKernel(Matrix<const float> partial, int64_t m, int64_t pieces, float scale,
                                bool add, bool turned, Matrix<float> c) {
  ForEach(m, partial.cols, [&](int64_t r, int64_t n) {
    float sum = partial(r, n);
    for (int64_t i = 1; i < pieces; ++i) sum += partial(i * m + r, n);
    float& to = turned ? c(n, r) : c(r, n);
    const float v = scale * sum;
    to = add ? to + v : v;
  });
}

template <int TN, int TK, bool a_turned, bool b_turned>
absl::Status LaunchTile(const Queue& queue, const Operands& p) {
  const dim3 grid(static_cast<unsigned>((p.m + kTileM - 1) / kTileM),
                  static_cast<unsigned>((p.n + TN - 1) / TN),
                  static_cast<unsigned>((p.k + p.piece - 1) / p.piece));
  return Launch<GemmKernel<TN, TK, a_turned, b_turned>>(
      grid, kThreads, Tiles<TN, TK, a_turned, b_turned>::kBytes, queue.stream, p);
}

// The narrowest tile that covers n, which wastes the fewest products of a small rank.
template <bool a_turned, bool b_turned>
absl::Status LaunchLong(const Queue& queue, const Operands& p) {
  if (p.n <= 16) return LaunchTile<16, kLongTileK, a_turned, b_turned>(queue, p);
  if (p.n <= 32) return LaunchTile<32, kLongTileK, a_turned, b_turned>(queue, p);
  if (p.n <= 48) return LaunchTile<48, kLongTileK, a_turned, b_turned>(queue, p);
  return LaunchTile<64, kLongTileK, a_turned, b_turned>(queue, p);
}

absl::Status LaunchPieces(const Queue& queue, const Gemm& gemm, const Operands& p) {
  if (gemm.a_turned) return LaunchLong<true, false>(queue, p);
  return gemm.b_turned ? LaunchLong<false, true>(queue, p) : LaunchLong<false, false>(queue, p);
}

template <typename VoidPtr>
bool IsWide(const BasicView<VoidPtr>& view) {
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.stride % 4 == 0;
}

Operands OperandsOf(const Gemm& gemm) {
  Operands p;
  p.m = gemm.a_turned ? gemm.a.cols : gemm.a.rows;
  p.k = gemm.a_turned ? gemm.a.rows : gemm.a.cols;
  p.n = gemm.b_turned ? gemm.b.rows : gemm.b.cols;
  p.a = Input<float>(gemm.a);
  p.b = Input<float>(gemm.b);
  p.a_wide = IsWide(gemm.a);
  p.b_wide = IsWide(gemm.b);
  return p;
}

// Rows [begin, begin + count) of c, pieces of k in groups that are added one after another.
absl::Status GemmRows(const Queue& queue, const Gemm& gemm, int64_t begin, int64_t count,
                      const View& partial) {
  const int64_t k = gemm.a_turned ? gemm.a.rows : gemm.a.cols;
  const int64_t group = kPiecesAtOnce * kTokenChunk;
  for (int64_t from = 0; from < k; from += group) {
    const int64_t terms = std::min(group, k - from);
    Gemm part = gemm;
    part.a = gemm.a_turned ? gemm.a.Rows(from, terms).Cols(begin, count)
                           : gemm.a.Rows(begin, count).Cols(from, terms);
    part.b = gemm.b_turned ? gemm.b.Cols(from, terms) : gemm.b.Rows(from, terms);
    Operands p = OperandsOf(part);
    const int64_t pieces = (terms + kTokenChunk - 1) / kTokenChunk;
    p.piece = kTokenChunk;
    const View sums = View::Matrix(partial.data, DType::kF32, pieces * count, p.n);
    p.c = Output<float>(sums);
    p.c_wide = IsWide(sums) && p.n % 4 == 0;
    RETURN_IF_ERROR(LaunchPieces(queue, part, p));
    const View c = gemm.c_turned ? gemm.c.Cols(begin, count) : gemm.c.Rows(begin, count);
    RETURN_IF_ERROR(Launch<AddPiecesKernel>(
        ElementGrid(count, p.n), kElementThreads, 0, queue.stream, Input<float>(sums), count,
        pieces, gemm.scale, gemm.add || from > 0, gemm.c_turned, Output<float>(c)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status GemmDirect(const Queue& queue, const Gemm& gemm) {
  Operands p = OperandsOf(gemm);
  p.piece = std::max<int64_t>(p.k, 1);
  p.scale = gemm.scale;
  p.add = gemm.add;
  p.c = Output<float>(gemm.c);
  p.c_wide = IsWide(gemm.c) && p.n % 4 == 0;
  if (p.k == 0) return absl::InvalidArgumentError("a product over no terms");
  if (gemm.a_turned) return absl::InvalidArgumentError("a short sum whose a is turned");
  return gemm.b_turned ? LaunchTile<64, kShortTileK, false, true>(queue, p)
                       : LaunchTile<64, kShortTileK, false, false>(queue, p);
}

absl::Status GemmInPieces(Ctx ctx, const Queue& queue, const Gemm& gemm, size_t room_bytes) {
  const Operands p = OperandsOf(gemm);
  if (gemm.a_turned && gemm.b_turned) {
    return absl::InvalidArgumentError("a product whose operands are both turned");
  }
  if (p.m == 0 || p.n == 0) return absl::OkStatus();
  if (p.k == 0) {
    return absl::InvalidArgumentError("a product over no terms");
  }
  const int64_t pieces = std::min(kPiecesAtOnce, (p.k + kTokenChunk - 1) / kTokenChunk);
  const int64_t row_bytes = pieces * p.n * static_cast<int64_t>(sizeof(float));
  const int64_t fit = static_cast<int64_t>(room_bytes) / row_bytes / kTileM * kTileM;
  if (fit == 0) {
    return absl::ResourceExhaustedError(absl::StrCat("a product of ", p.n,
                                                     " columns is too wide for ", room_bytes,
                                                     " bytes of partial sums; use a smaller rank"));
  }
  const int64_t rows = std::min(p.m, fit);
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const View partial, ctx.scratch->Allocate(DType::kF32, pieces * rows, p.n));
  for (int64_t begin = 0; begin < p.m; begin += rows) {
    RETURN_IF_ERROR(GemmRows(queue, gemm, begin, std::min(rows, p.m - begin), partial));
  }
  return absl::OkStatus();
}

}  // namespace tundra::cuda
