// The adapter's products where the suite's sizes don't reach: several groups of pieces,
// partial sums that don't fit at once, every width of a tile, numbers that aren't finite.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "worker/cuda/gemm.h"
#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

TEST_P(OpsSuite, LongSumsAreAddedInGroupsOfPieces) {
  Bed bed(GetParam(), 3);
  // 65 pieces of 512: a second group of one.
  const int64_t n = 5, k = 64 * 512 + 100, r = 2;
  const Mat x = Random(1, 3, k), a = Random(2, r, k), h = Random(3, k, r), dy = Random(4, k, n);
  const View down = bed.New(DType::kF32, 3, r, 1);
  ASSERT_OK(bed.ops().LoraDown(bed.ctx(), bed.Put(x), bed.Put(a), down));
  ExpectNear(bed.Get(down), Times(x, Transposed(a)), 1e-5, "h");
  // The same length over tokens.
  const Mat db0 = Random(5, n, r);
  const View db = bed.Put(db0), dh = bed.New(DType::kF32, k, r);
  ASSERT_OK(bed.ops().LoraUpBackward(bed.ctx(), bed.Put(dy), bed.Put(h), bed.Put(Random(6, n, r)),
                                     0.5f, dh, db));
  ExpectNear(bed.Get(db), Plus(db0, Times(Transposed(dy), h), 0.5), 1e-5, "db");
}

// All widths of tiles, both ways of lying of each operand and of the result.
TEST_P(OpsSuite, PiecesGiveTheSameBitsInAnyRoom) {
  Bed bed(GetParam(), 2);
  const auto& device = static_cast<const cuda::CudaDevice&>(bed.device());
  auto queue = cuda::QueueOf(device, bed.ctx());
  ASSERT_TRUE(queue.ok()) << queue.status();
  const int64_t m = 150, k = 1030;
  for (const int64_t n : {7, 16, 17, 33, 70}) {
    const Mat a = Random(1, m, k), b = Random(2, k, n);
    for (int turns = 0; turns < 8; ++turns) {
      cuda::Gemm gemm;
      gemm.a_turned = (turns & 1) != 0, gemm.b_turned = (turns & 2) != 0;
      gemm.c_turned = (turns & 4) != 0;
      gemm.a = bed.Put(gemm.a_turned ? Transposed(a) : a, DType::kF32, 1);
      gemm.b = bed.Put(gemm.b_turned ? Transposed(b) : b, DType::kF32, 2);
      const int64_t rows = gemm.c_turned ? n : m, cols = gemm.c_turned ? m : n;
      gemm.c = bed.New(DType::kF32, rows, cols, 3);
      // 3 pieces: at first everything at once, then 64 rows at a time, then too little.
      ASSERT_OK(cuda::GemmInPieces(bed.ctx(), *queue, gemm));
      const Mat want = gemm.c_turned ? Transposed(Times(a, b)) : Times(a, b);
      ExpectNear(bed.Get(gemm.c), want, 2e-6, "n " + std::to_string(n));
      const std::string bytes = bed.Bytes(gemm.c);
      gemm.c = bed.New(DType::kF32, rows, cols, 3);
      const auto room = static_cast<size_t>(64 * 3 * n * 4);
      bed.scratch().ResetPeak();
      ASSERT_OK(cuda::GemmInPieces(bed.ctx(), *queue, gemm, room));
      EXPECT_EQ(bed.scratch().peak(), room);
      EXPECT_TRUE(bed.Bytes(gemm.c) == bytes) << n << ", turns " << turns;
      EXPECT_EQ(cuda::GemmInPieces(bed.ctx(), *queue, gemm, room - 1).code(),
                absl::StatusCode::kResourceExhausted);
    }
  }
}

// Zeros that fill up a tile must not meet another row's infinity.
TEST_P(OpsSuite, AnInfinityStaysInItsRow) {
  Bed bed(GetParam(), 1);
  Mat x = Random(1, 70, 33);
  x(69, 32) = std::numeric_limits<double>::infinity();
  x(3, 0) = std::nan("");
  const View h = bed.New(DType::kF32, 70, 3);
  ASSERT_OK(bed.ops().LoraDown(bed.ctx(), bed.Put(x), bed.Put(Random(2, 3, 33)), h));
  const Mat got = bed.Get(h);
  for (int64_t t = 0; t < 70; ++t) {
    for (int64_t r = 0; r < 3; ++r) {
      EXPECT_EQ(std::isfinite(got(t, r)), t != 69 && t != 3) << t << ", " << r;
    }
  }
}

}  // namespace
}  // namespace tundra::suite
