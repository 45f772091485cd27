// Products: with frozen weights, plain and prepared, and the adapter's.
#include <algorithm>

#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

// Sums of K products of numbers near 1, in fp32; in bf16 the factors are rounded first.
constexpr double kF32Tolerance = 2e-6;
constexpr double kBF16Tolerance = 1e-2;

struct Shape {
  int64_t t, n, k;
};
// Panel and row-group remainders, single rows and columns, several blocks of K.
const Shape kShapes[] = {{1, 1, 1},    {5, 7, 3},       {1, 64, 600},  {6, 16, 16},
                         {37, 33, 70}, {128, 100, 300}, {100, 8, 513}, {13, 300, 20}};

void CheckFrozen(const Backend& backend, Precision precision) {
  Bed bed(backend, 2);
  const bool rounds = precision == Precision::kBF16 && bed.device().native_bf16();
  const double tolerance = rounds ? kBF16Tolerance : kF32Tolerance;
  for (const Shape& s : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t gap : {int64_t{0}, int64_t{5}}) {
        const std::string what = testing::PrintToString(std::vector<int64_t>{s.t, s.n, s.k});
        const Mat x = Random(1, s.t, s.k), w = Random(2, s.n, s.k, dtype);
        const Mat dy = Random(3, s.t, s.n), y0 = Random(4, s.t, s.n), dx0 = Random(5, s.t, s.k);
        const View w_view = bed.Put(w, dtype, gap);
        const View x_view = bed.Put(x, DType::kF32, gap), dy_view = bed.Put(dy, DType::kF32, gap);
        for (const bool prepare : {false, true}) {
          FrozenWeight forward = FrozenWeight::Plain(w_view), backward = forward;
          if (prepare) {
            for (FrozenWeight* one : {&forward, &backward}) {
              const Direction direction =
                  one == &forward ? Direction::kForward : Direction::kBackward;
              const size_t bytes = bed.ops().PreparedBytes(s.n, s.k, dtype, direction, precision);
              if (bytes == 0) continue;
              if (direction == Direction::kBackward && bed.ops().prepared_serves_both()) {
                backward = forward;
                backward.direction = direction;
                continue;
              }
              const View storage = bed.New(DType::kBF16, 1, static_cast<int64_t>(bytes + 1) / 2);
              bed.scratch().ResetPeak();
              auto prepared = bed.ops().PrepareWeight(bed.ctx(), w_view, direction, precision,
                                                      storage.data, bytes);
              ASSERT_TRUE(prepared.ok()) << prepared.status();
              EXPECT_LE(bed.scratch().peak(),
                        bed.ops().PrepareScratchBytes(s.n, s.k, dtype, precision));
              *one = *prepared;
            }
          }
          const View y = bed.Put(y0, DType::kF32, gap), dx = bed.Put(dx0, DType::kF32, gap);
          bed.scratch().ResetPeak();
          ASSERT_OK(bed.ops().FrozenMatmul(bed.ctx(), x_view, forward, precision, Write::kAdd, y));
          EXPECT_LE(bed.scratch().peak(), bed.ops().MatmulScratchBytes(s.t, forward, precision));
          ExpectNear(bed.Get(y), Plus(y0, Times(x, Transposed(w))), tolerance, what + " y +=");
          ASSERT_OK(bed.ops().FrozenMatmul(bed.ctx(), x_view, forward, precision, Write::kSet, y));
          ExpectNear(bed.Get(y), Times(x, Transposed(w)), tolerance, what + " y =");
          ASSERT_OK(bed.ops().FrozenMatmulBackward(bed.ctx(), dy_view, backward, precision,
                                                   Write::kAdd, dx));
          ExpectNear(bed.Get(dx), Plus(dx0, Times(dy, w)), tolerance, what + " dx +=");
          ASSERT_OK(bed.ops().FrozenMatmulBackward(bed.ctx(), dy_view, backward, precision,
                                                   Write::kSet, dx));
          ExpectNear(bed.Get(dx), Times(dy, w), tolerance, what + " dx =");
        }
      }
    }
  }
}

TEST_P(OpsSuite, FrozenProductsMatchTheReferenceInF32) { CheckFrozen(GetParam(), Precision::kF32); }

// Where the device has no bf16 products this is f32 from bf16 weights, held to f32's
// tolerance.
TEST_P(OpsSuite, FrozenProductsMatchTheReferenceInBF16) {
  CheckFrozen(GetParam(), Precision::kBF16);
}

TEST_P(OpsSuite, AProductDoesNotReadTheOldResult) {
  Bed bed(GetParam(), 1);
  Mat y0(3, 20);
  std::fill(y0.v.begin(), y0.v.end(), std::nan(""));
  const Mat x = Random(1, 3, 300), w = Random(2, 20, 300);
  const View y = bed.Put(y0);
  ASSERT_OK(bed.ops().FrozenMatmul(bed.ctx(), bed.Put(x), FrozenWeight::Plain(bed.Put(w)),
                                   Precision::kF32, Write::kSet, y));
  ExpectNear(bed.Get(y), Times(x, Transposed(w)), kF32Tolerance, "y");
}

TEST_P(OpsSuite, ProductsRefuseShapesThatDoNotAgree) {
  Bed bed(GetParam(), 1);
  const View x = bed.Put(Random(1, 3, 8)), w = bed.Put(Random(2, 4, 9)), y = bed.Put(Mat(3, 4));
  EXPECT_EQ(bed.ops()
                .FrozenMatmul(bed.ctx(), x, FrozenWeight::Plain(w), Precision::kF32, Write::kSet, y)
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bed.ops().LoraDown(bed.ctx(), x, w, y).code(), absl::StatusCode::kInvalidArgument);
  const View w8 = bed.Put(Random(2, 4, 8));
  const size_t bytes =
      bed.ops().PreparedBytes(4, 8, DType::kF32, Direction::kBackward, Precision::kF32);
  if (bytes > 0) {
    const View storage = bed.New(DType::kF32, 1, static_cast<int64_t>(bytes));
    auto prepared = bed.ops().PrepareWeight(bed.ctx(), w8, Direction::kBackward, Precision::kF32,
                                            storage.data, bytes);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    EXPECT_EQ(
        bed.ops().FrozenMatmul(bed.ctx(), x, *prepared, Precision::kF32, Write::kSet, y).code(),
        absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(bed.ops()
                  .PrepareWeight(bed.ctx(), w8, Direction::kBackward, Precision::kF32, storage.data,
                                 bytes - 1)
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(OpsSuite, ASmallScratchArenaIsAnErrorNotACrash) {
  Bed bed(GetParam(), 1, 64);
  const View x = bed.Put(Random(1, 3, 8)), y = bed.Put(Mat(3, 4));
  const FrozenWeight w = FrozenWeight::Plain(bed.Put(Random(2, 4, 8)));
  if (bed.ops().MatmulScratchBytes(3, w, Precision::kF32) <= 64) {
    GTEST_SKIP() << "this backend needs no scratch here";
  }
  EXPECT_EQ(bed.ops().FrozenMatmul(bed.ctx(), x, w, Precision::kF32, Write::kSet, y).code(),
            absl::StatusCode::kResourceExhausted);
}

struct LoraShape {
  int64_t t, n, k, r;
};
const LoraShape kLoraShapes[] = {
    {1, 5, 3, 1}, {40, 33, 50, 4}, {700, 48, 96, 8}, {1100, 20, 30, 24}};

TEST_P(OpsSuite, LoraMatchesTheReferenceForwardAndBackward) {
  Bed bed(GetParam(), 2);
  for (const LoraShape& s : kLoraShapes) {
    const std::string what = testing::PrintToString(std::vector<int64_t>{s.t, s.n, s.k, s.r});
    const double scale = 1.75;
    const Mat x = Random(1, s.t, s.k), a = Random(2, s.r, s.k), b = Random(3, s.n, s.r);
    const Mat y0 = Random(4, s.t, s.n), dy = Random(5, s.t, s.n), dx0 = Random(6, s.t, s.k);
    const Mat da0 = Random(7, s.r, s.k), db0 = Random(8, s.n, s.r);
    const View x_view = bed.Put(x, DType::kF32, 3), a_view = bed.Put(a), b_view = bed.Put(b);
    const View dy_view = bed.Put(dy, DType::kF32, 1);
    const View h = bed.New(DType::kF32, s.t, s.r, 2), dh = bed.New(DType::kF32, s.t, s.r, 2);
    const View y = bed.Put(y0, DType::kF32, 2), dx = bed.Put(dx0, DType::kF32, 2);
    const View da = bed.Put(da0), db = bed.Put(db0);

    bed.scratch().ResetPeak();
    ASSERT_OK(bed.ops().LoraDown(bed.ctx(), x_view, a_view, h));
    EXPECT_LE(bed.scratch().peak(), bed.ops().workspace_bytes());
    const Mat h_want = Times(x, Transposed(a));
    ExpectNear(bed.Get(h), h_want, kF32Tolerance, what + " h");
    ASSERT_OK(bed.ops().LoraUp(bed.ctx(), h, b_view, scale, y));
    ExpectNear(bed.Get(y), Plus(y0, Times(h_want, Transposed(b)), scale), kF32Tolerance, what);

    ASSERT_OK(bed.ops().LoraUpBackward(bed.ctx(), dy_view, h, b_view, scale, dh, db));
    Mat dh_want = Times(dy, b);
    for (double& v : dh_want.v) v *= scale;
    ExpectNear(bed.Get(dh), dh_want, kF32Tolerance, what + " dh");
    ExpectNear(bed.Get(db), Plus(db0, Times(Transposed(dy), h_want), scale), 4 * kF32Tolerance,
               what + " db");
    ASSERT_OK(bed.ops().LoraDownBackward(bed.ctx(), dh, x_view, a_view, da, dx));
    ExpectNear(bed.Get(da), Plus(da0, Times(Transposed(dh_want), x)), 4 * kF32Tolerance,
               what + " da");
    ExpectNear(bed.Get(dx), Plus(dx0, Times(dh_want, a)), kF32Tolerance, what + " dx");
    const View da_only = bed.Put(da0);
    ASSERT_OK(bed.ops().LoraDownBackward(bed.ctx(), dh, x_view, a_view, da_only, View::None()));
    EXPECT_EQ(bed.Bytes(da_only), bed.Bytes(da)) << what;
  }
}

TEST_P(OpsSuite, LoraGradientsAreThoseOfTheForward) {
  Bed bed(GetParam(), 1);
  const double scale = 0.5;
  const Mat x = Random(1, 6, 5), a = Random(2, 3, 5), b = Random(3, 4, 3), g = Random(4, 6, 4);
  // f = Σ g · (s · x Aᵀ Bᵀ)
  const auto f = [&](const Mat& x, const Mat& a, const Mat& b) {
    const Mat y = Times(Times(x, Transposed(a)), Transposed(b));
    double sum = 0;
    for (size_t i = 0; i < y.v.size(); ++i) sum += g.v[i] * scale * y.v[i];
    return sum;
  };
  const View x_view = bed.Put(x), a_view = bed.Put(a), b_view = bed.Put(b), dy = bed.Put(g);
  const View h = bed.New(DType::kF32, 6, 3), dh = bed.New(DType::kF32, 6, 3);
  const View da = bed.Put(Mat(3, 5)), db = bed.Put(Mat(4, 3)), dx = bed.Put(Mat(6, 5));
  ASSERT_OK(bed.ops().LoraDown(bed.ctx(), x_view, a_view, h));
  ASSERT_OK(bed.ops().LoraUpBackward(bed.ctx(), dy, h, b_view, scale, dh, db));
  ASSERT_OK(bed.ops().LoraDownBackward(bed.ctx(), dh, x_view, a_view, da, dx));
  ExpectGradient([&](const Mat& m) { return f(m, a, b); }, x, bed.Get(dx), 1e-5, "dx");
  ExpectGradient([&](const Mat& m) { return f(x, m, b); }, a, bed.Get(da), 1e-5, "da");
  ExpectGradient([&](const Mat& m) { return f(x, a, m); }, b, bed.Get(db), 1e-5, "db");
}

}  // namespace
}  // namespace tundra::suite
