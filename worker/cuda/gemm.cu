#include "absl/strings/str_cat.h"
#include "worker/cuda/gemm.h"

namespace tundra::cuda {
namespace {

// A block computes a tile of kTileM x TN results, 4 x 4 a thread, kTileK terms at a time.
constexpr int kTileM = 64;
constexpr int kTileK = 32;
// Rows of a tile in shared memory are longer by this, which keeps 16-byte alignment and
// spreads the transposed stores over the banks.
constexpr int kPad = 4;
constexpr int64_t kPiecesAtOnce = 64;

struct Operands {
  Matrix<const float> a, b;
  int64_t m = 0, n = 0, k = 0;
  int64_t piece = 0;  // terms of one piece; block z computes piece z
  float scale = 1;
  bool add = false;
  Matrix<float> c;  // block z's results start at row z · m
};

// tile[k][i] = (k0 + k, i0 + i) of an operand, zeros beyond its ends. `turned`: it lies in
// memory with k as its columns. Neighbouring threads read neighbouring addresses.
template <int kWidth, bool turned>
TUNDRA_DEVICE void LoadTile(const Matrix<const float>& from, int64_t k0, int64_t k_end, int64_t i0,
                            int64_t i_end, int threads, Pointer<float> tile) {
  const int k_left = static_cast<int>(k_end - k0 < kTileK ? k_end - k0 : kTileK);
  const int i_left = static_cast<int>(i_end - i0 < kWidth ? i_end - i0 : kWidth);
  TUNDRA_UNROLL_BY(8)
  for (int at = static_cast<int>(threadIdx.x); at < kTileK * kWidth; at += threads) {
    const int k = turned ? at % kTileK : at / kWidth;
    const int i = turned ? at / kTileK : at % kWidth;
    const bool inside = k < k_left && i < i_left;
    float v = 0;
    if (inside) v = turned ? from(i0 + i, k0 + k) : from(k0 + k, i0 + i);
    tile[k * (kWidth + kPad) + i] = v;
  }
}

template <int TN>
constexpr int GemmThreads() {
  return kTileM / 4 * (TN / 4);
}
template <int TN>
constexpr size_t GemmSharedBytes() {
  return static_cast<size_t>(kTileK) * (kTileM + TN + 2 * kPad) * sizeof(float);
}

// a_turned and b_turned are those of LoadTile: k is the operand's columns.
template <int TN, bool a_turned, bool b_turned>
__global__ void __launch_bounds__(GemmThreads<TN>()) GemmKernel(Operands p) {
  constexpr int kThreads = GemmThreads<TN>();
  const Pointer<float> a_tile = SharedArray<float>(0, kTileK * (kTileM + kPad));
  const Pointer<float> b_tile =
      SharedArray<float>(kTileK * (kTileM + kPad) * sizeof(float), kTileK * (TN + kPad));
  const int64_t m0 = int64_t{blockIdx.x} * kTileM, n0 = int64_t{blockIdx.y} * TN;
  const int row = static_cast<int>(threadIdx.x) / (TN / 4) * 4;
  const int col = static_cast<int>(threadIdx.x) % (TN / 4) * 4;
  const int64_t k_begin = int64_t{blockIdx.z} * p.piece;
  const int64_t k_end = k_begin + p.piece < p.k ? k_begin + p.piece : p.k;
  float sum[4][4] = {};
  for (int64_t k0 = k_begin; k0 < k_end; k0 += kTileK) {
    SyncThreads();
    LoadTile<kTileM, a_turned>(p.a, k0, k_end, m0, p.m, kThreads, a_tile);
    LoadTile<TN, b_turned>(p.b, k0, k_end, n0, p.n, kThreads, b_tile);
    SyncThreads();
    TUNDRA_UNROLL_BY(8)
    for (int k = 0; k < kTileK; ++k) {
      const Float4 a4 = Load4(a_tile + (k * (kTileM + kPad) + row));
      const Float4 b4 = Load4(b_tile + (k * (TN + kPad) + col));
      const float a[4] = {a4.x, a4.y, a4.z, a4.w}, b[4] = {b4.x, b4.y, b4.z, b4.w};
      TUNDRA_UNROLL
      for (int i = 0; i < 4; ++i) {
        TUNDRA_UNROLL
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
      }
    }
  }
  const int64_t first = int64_t{blockIdx.z} * p.m;
  TUNDRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    TUNDRA_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t r = m0 + row + i, c = n0 + col + j;
      if (r >= p.m || c >= p.n) continue;
      const float v = p.scale * sum[i][j];
      p.c(first + r, c) = p.add ? p.c(first + r, c) + v : v;
    }
  }
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

template <int TN, bool a_turned, bool b_turned>
absl::Status LaunchTile(const Queue& queue, const Operands& p) {
  const dim3 grid(static_cast<unsigned>((p.m + kTileM - 1) / kTileM),
                  static_cast<unsigned>((p.n + TN - 1) / TN),
                  static_cast<unsigned>((p.k + p.piece - 1) / p.piece));
  return Launch<GemmKernel<TN, a_turned, b_turned>>(grid, GemmThreads<TN>(), GemmSharedBytes<TN>(),
                                                    queue.stream, p);
}

// The narrowest tile that covers n, which wastes the fewest products of a small rank.
template <bool a_turned, bool b_turned>
absl::Status LaunchWidth(const Queue& queue, const Operands& p) {
  if (p.n <= 16) return LaunchTile<16, a_turned, b_turned>(queue, p);
  if (p.n <= 32) return LaunchTile<32, a_turned, b_turned>(queue, p);
  return LaunchTile<64, a_turned, b_turned>(queue, p);
}

absl::Status LaunchGemm(const Queue& queue, const Gemm& gemm, const Operands& p) {
  // In memory a is [m, k], so that k is its columns, unless it is turned; b is [k, n].
  if (gemm.a_turned) {
    return gemm.b_turned ? LaunchWidth<false, true>(queue, p) : LaunchWidth<false, false>(queue, p);
  }
  return gemm.b_turned ? LaunchWidth<true, true>(queue, p) : LaunchWidth<true, false>(queue, p);
}

Operands OperandsOf(const Gemm& gemm) {
  Operands p;
  p.m = gemm.a_turned ? gemm.a.cols : gemm.a.rows;
  p.k = gemm.a_turned ? gemm.a.rows : gemm.a.cols;
  p.n = gemm.b_turned ? gemm.b.rows : gemm.b.cols;
  p.a = Input<float>(gemm.a);
  p.b = Input<float>(gemm.b);
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
    RETURN_IF_ERROR(LaunchGemm(queue, part, p));
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
  if (p.k == 0) return absl::InvalidArgumentError("a product over no terms");
  return LaunchGemm(queue, gemm, p);
}

absl::Status GemmInPieces(Ctx ctx, const Queue& queue, const Gemm& gemm, size_t room_bytes) {
  const Operands p = OperandsOf(gemm);
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
