// The adapter's products where the suite's sizes don't reach: several groups of pieces,
// partial sums that don't fit at once, every width of a tile, operands at any place, numbers
// that need all bits of f32 or aren't finite.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <string>
#include <utility>

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
  for (const int64_t n : {7, 17, 33, 70}) {
    const Mat a = Random(1, m, k), b = Random(2, k, n);
    for (int turns = 0; turns < 8; ++turns) {
      cuda::Gemm gemm;
      gemm.a_turned = (turns & 1) != 0, gemm.b_turned = (turns & 2) != 0;
      gemm.c_turned = (turns & 4) != 0;
      gemm.a = bed.Put(gemm.a_turned ? Transposed(a) : a, DType::kF32, 1);
      gemm.b = bed.Put(gemm.b_turned ? Transposed(b) : b, DType::kF32, 2);
      const int64_t rows = gemm.c_turned ? n : m, cols = gemm.c_turned ? m : n;
      gemm.c = bed.New(DType::kF32, rows, cols, 3);
      if (gemm.a_turned && gemm.b_turned) {
        EXPECT_EQ(cuda::GemmInPieces(bed.ctx(), *queue, gemm).code(),
                  absl::StatusCode::kInvalidArgument);
        continue;
      }
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

// Rows at 16-byte boundaries are read and written four numbers at a time; others are not.
TEST_P(OpsSuite, WhereOperandsLieChangesNoBits) {
  Bed bed(GetParam(), 1);
  const int64_t t = 70, k = 100, n = 132, r = 20;
  const Mat x = Random(1, t, k), a = Random(2, r, k), b = Random(3, n, r), y0 = Random(4, t, n);
  std::string first;
  for (const int64_t gap : {0, 4, 1, 2, 3}) {
    const View x_view = bed.Put(x, DType::kF32, gap), a_view = bed.Put(a, DType::kF32, gap);
    const View b_view = bed.Put(b, DType::kF32, gap), y = bed.Put(y0, DType::kF32, gap);
    const View h = bed.New(DType::kF32, t, r, gap), dh = bed.New(DType::kF32, t, r, gap);
    const View da = bed.Put(Mat(r, k), DType::kF32, gap), db = bed.Put(Mat(n, r), DType::kF32, gap);
    const View dx = bed.Put(x, DType::kF32, gap);
    ASSERT_OK(bed.ops().LoraDown(bed.ctx(), x_view, a_view, h));
    ASSERT_OK(bed.ops().LoraUp(bed.ctx(), h, b_view, 0.5f, y));
    ASSERT_OK(bed.ops().LoraUpBackward(bed.ctx(), y, h, b_view, 0.5f, dh, db));
    ASSERT_OK(bed.ops().LoraDownBackward(bed.ctx(), dh, x_view, a_view, da, dx));
    std::string bytes;
    for (const View& view : {h, y, dh, db, da, dx}) bytes += bed.Bytes(view);
    if (gap == 0) first = bytes;
    EXPECT_TRUE(bytes == first) << gap;
    // A view that begins between two boundaries.
    ASSERT_OK(bed.ops().LoraDown(bed.ctx(), x_view.Cols(1, k - 1), a_view.Cols(1, k - 1), h));
    Mat x1(t, k - 1), a1(r, k - 1);
    for (int64_t c = 1; c < k; ++c) {
      for (int64_t i = 0; i < t; ++i) x1(i, c - 1) = x(i, c);
      for (int64_t i = 0; i < r; ++i) a1(i, c - 1) = a(i, c);
    }
    ExpectNear(bed.Get(h), Times(x1, Transposed(a1)), 2e-6, "h of columns from 1 on");
  }
}

// A token's results are those it has alone.
TEST_P(OpsSuite, AdapterRowsDoNotDependOnTheirNumber) {
  Bed bed(GetParam(), 1);
  const int64_t t = 130, k = 600, n = 70, r = 24;
  const View x = bed.Put(Random(1, t, k)), a = bed.Put(Random(2, r, k));
  const View b = bed.Put(Random(3, n, r)), y = bed.Put(Random(4, t, n));
  const View h = bed.New(DType::kF32, t, r), y1 = bed.Put(Random(4, t, n));
  const View h1 = bed.New(DType::kF32, t, r);
  ASSERT_OK(bed.ops().LoraDown(bed.ctx(), x, a, h));
  ASSERT_OK(bed.ops().LoraUp(bed.ctx(), h, b, 2.0f, y));
  for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 1}, {1, 17}, {18, 112}}) {
    ASSERT_OK(bed.ops().LoraDown(bed.ctx(), x.Rows(begin, count), a, h1.Rows(begin, count)));
    ASSERT_OK(bed.ops().LoraUp(bed.ctx(), h1.Rows(begin, count), b, 2.0f, y1.Rows(begin, count)));
  }
  EXPECT_TRUE(bed.Bytes(h1) == bed.Bytes(h));
  EXPECT_TRUE(bed.Bytes(y1) == bed.Bytes(y));
}

// Numbers next to 1 whose terms cancel, so that the lower parts of both factors are what is
// left: without any one of the six products of parts the error is ten times as large.
TEST_P(OpsSuite, AdapterProductsHaveAllBitsOfTheirFactors) {
  Bed bed(GetParam(), 1);
  const int64_t t = 40, k = 64, r = 16;
  Mat x(t, k), a(r, k);
  const Mat fine = Random(1, t, k), other = Random(2, r, k);
  for (int64_t c = 0; c < k; ++c) {
    const float sign = c % 2 == 0 ? 1.0f : -1.0f;
    for (int64_t i = 0; i < t; ++i)
      x(i, c) = sign * (1.0f + 3e-3f * static_cast<float>(fine(i, c)));
    for (int64_t i = 0; i < r; ++i) a(i, c) = 1.0f + 3e-3f * static_cast<float>(other(i, c));
  }
  const View h = bed.New(DType::kF32, t, r);
  ASSERT_OK(bed.ops().LoraDown(bed.ctx(), bed.Put(x), bed.Put(a), h));
  const Mat want = Times(x, Transposed(a)), got = bed.Get(h);
  double worst = 0;
  for (size_t i = 0; i < want.v.size(); ++i) {
    worst = std::max(worst, std::abs(got.v[i] - want.v[i]));
  }
  // The terms' absolute values add up to k.
  std::cout << "largest error: " << worst / static_cast<double>(k) << " of the terms' sum\n";
  EXPECT_LT(worst, 1.2e-7 * static_cast<double>(k));
}

// Every result that something not finite takes part in is not finite, every other one is:
// zeros that fill up a tile must not meet another row's infinity.
TEST_P(OpsSuite, WhatIsNotFiniteStaysInItsRow) {
  Bed bed(GetParam(), 1);
  const double infinity = std::numeric_limits<double>::infinity();
  const double largest = std::numeric_limits<float>::max();
  Mat x = Random(1, 70, 33), a = Random(2, 5, 33);
  x(69, 32) = infinity;
  x(3, 0) = std::nan("");
  x(20, 31) = -infinity;
  x(40, 1) = -largest;  // has no bf16; see gemm.h
  a(4, 7) = infinity;
  const View x_view = bed.Put(x), a_view = bed.Put(a), h = bed.New(DType::kF32, 70, 5);
  ASSERT_OK(bed.ops().LoraDown(bed.ctx(), x_view, a_view, h));
  const auto bad = [](int64_t t) { return t == 69 || t == 3 || t == 20 || t == 40; };
  const Mat h_got = bed.Get(h);
  for (int64_t t = 0; t < 70; ++t) {
    for (int64_t r = 0; r < 5; ++r) {
      EXPECT_EQ(std::isfinite(h_got(t, r)), !bad(t) && r != 4) << t << ", " << r;
    }
  }
  // The same of a sum over tokens and of a short sum.
  const View dh = bed.Put(Random(3, 70, 5)), da = bed.Put(Mat(5, 33)), dx = bed.Put(Mat(70, 33));
  ASSERT_OK(bed.ops().LoraDownBackward(bed.ctx(), dh, x_view, a_view, da, dx));
  const Mat da_got = bed.Get(da), dx_got = bed.Get(dx);
  for (int64_t k = 0; k < 33; ++k) {
    for (int64_t r = 0; r < 5; ++r) {
      EXPECT_EQ(std::isfinite(da_got(r, k)), k != 32 && k != 0 && k != 31 && k != 1)
          << r << ", " << k;
    }
    for (int64_t t = 0; t < 70; ++t)
      EXPECT_EQ(std::isfinite(dx_got(t, k)), k != 7) << t << ", " << k;
  }
}

}  // namespace
}  // namespace tundra::suite
