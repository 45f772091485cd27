// Operations that work token by token: norm, rotary embedding, gated activations, embedding,
// casts,
// dropout.
#include <cmath>
#include <limits>

#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

constexpr double kTolerance = 2e-6;

Mat NormReference(const Mat& x, const Mat& w, double epsilon, double offset) {
  Mat y(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    double squares = 0;
    for (int64_t d = 0; d < x.cols; ++d) squares += x(t, d) * x(t, d);
    const double inv = 1 / std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
    for (int64_t d = 0; d < x.cols; ++d) y(t, d) = x(t, d) * inv * (offset + w(0, d));
  }
  return y;
}

double Dot(const Mat& a, const Mat& b) {
  double sum = 0;
  for (size_t i = 0; i < a.v.size(); ++i) sum += a.v[i] * b.v[i];
  return sum;
}

TEST_P(OpsSuite, RmsNormMatchesTheReferenceAndItsGradient) {
  Bed bed(GetParam(), 2);
  for (const int64_t cols : {1, 5, 16, 33, 192, 576}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const RmsNormParams params{1e-5f, dtype == DType::kF32 ? 0.0f : 1.0f};
      const Mat x = Random(1, 9, cols), w = Random(2, 1, cols, dtype), g = Random(3, 9, cols);
      const Mat dx0 = Random(4, 9, cols);
      const View x_view = bed.Put(x, DType::kF32, 3), w_view = bed.Put(w, dtype);
      const View y = bed.New(DType::kF32, 9, cols, 1), inv = bed.New(DType::kF32, 1, 9);
      ASSERT_OK(bed.ops().RmsNorm(bed.ctx(), x_view, w_view, params, y, inv));
      ExpectNear(bed.Get(y), NormReference(x, w, params.epsilon, params.weight_offset), kTolerance,
                 "y");
      const View dx = bed.New(DType::kF32, 9, cols), dx_added = bed.Put(dx0);
      const View dy = bed.Put(g);
      ASSERT_OK(
          bed.ops().RmsNormBackward(bed.ctx(), dy, x_view, w_view, inv, params, Write::kSet, dx));
      const auto f = [&](const Mat& m) {
        return Dot(g, NormReference(m, w, params.epsilon, params.weight_offset));
      };
      // One column: y hardly depends on x, and what is left of dx is cancellation.
      if (cols > 1) ExpectGradient(f, x, bed.Get(dx), 1e-4, "dx");
      ASSERT_OK(bed.ops().RmsNormBackward(bed.ctx(), dy, x_view, w_view, inv, params, Write::kAdd,
                                          dx_added));
      ExpectNear(bed.Get(dx_added), Plus(dx0, bed.Get(dx)), kTolerance, "dx +=");
      // In place.
      ASSERT_OK(
          bed.ops().RmsNormBackward(bed.ctx(), dy, x_view, w_view, inv, params, Write::kSet, dy));
      EXPECT_EQ(bed.Bytes(dy), bed.Bytes(dx));
    }
  }
}

TEST_P(OpsSuite, AddRmsNormIsTheSumAndItsNorm) {
  Bed bed(GetParam(), 2);
  for (const int64_t cols : {1, 33, 576}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const RmsNormParams params{1e-5f, dtype == DType::kF32 ? 0.0f : 1.0f};
      const Mat x = Random(1, 9, cols), r = Random(2, 9, cols), w = Random(3, 1, cols, dtype);
      const View sum = bed.Put(x, DType::kF32, 3), residual = bed.Put(r, DType::kF32, 1);
      const View w_view = bed.Put(w, dtype);
      const View y = bed.New(DType::kF32, 9, cols, 2), inv = bed.New(DType::kF32, 1, 9);
      ASSERT_OK(bed.ops().AddRmsNorm(bed.ctx(), residual, sum, w_view, params, y, inv));
      ExpectNear(bed.Get(sum), Plus(x, r), 1e-7, "sum");
      const View alone = bed.New(DType::kF32, 9, cols, 2), inv_alone = bed.New(DType::kF32, 1, 9);
      ASSERT_OK(bed.ops().RmsNorm(bed.ctx(), sum, w_view, params, alone, inv_alone));
      EXPECT_EQ(bed.Bytes(y), bed.Bytes(alone));
      EXPECT_EQ(bed.Bytes(inv), bed.Bytes(inv_alone));
    }
  }
  const View x = bed.Put(Mat(2, 4)), narrow = bed.Put(Mat(2, 3)), inv = bed.New(DType::kF32, 1, 2);
  EXPECT_FALSE(bed.ops().AddRmsNorm(bed.ctx(), narrow, x, bed.Put(Mat(1, 4)), {}, x, inv).ok());
}

TEST_P(OpsSuite, RopeRotatesAndItsBackwardRotatesBack) {
  Bed bed(GetParam(), 2);
  const int heads = 3;
  for (const int dim : {2, 8, 20, 64}) {
    for (const int64_t r : {dim / 2, std::max(1, dim / 4)}) {
      Mat cos(50, r), sin(50, r);
      for (int64_t p = 0; p < 50; ++p) {
        for (int64_t i = 0; i < r; ++i) {
          const double angle = static_cast<double>(p) *
                               std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(r));
          cos(p, i) = static_cast<float>(std::cos(angle));
          sin(p, i) = static_cast<float>(std::sin(angle));
        }
      }
      const std::vector<int32_t> positions = {0, 1, 2, 49, 7, 0, 1};
      const Mat x = Random(1, 7, heads * dim);
      Mat want = x;
      for (int64_t t = 0; t < 7; ++t) {
        for (int h = 0; h < heads; ++h) {
          for (int64_t i = 0; i < r; ++i) {
            const int64_t p = positions[static_cast<size_t>(t)], at = h * dim + i;
            want(t, at) = x(t, at) * cos(p, i) - x(t, at + r) * sin(p, i);
            want(t, at + r) = x(t, at + r) * cos(p, i) + x(t, at) * sin(p, i);
          }
        }
      }
      const View view = bed.Put(x, DType::kF32, 3), ids = bed.PutInts(positions);
      const View c = bed.Put(cos), s = bed.Put(sin);
      ASSERT_OK(bed.ops().Rope(bed.ctx(), Direction::kForward, ids, c, s, heads, dim, view));
      ExpectNear(bed.Get(view), want, kTolerance, "rotated");
      // The transposed rotation is the inverse one, up to cos² + sin² = 1 in f32.
      ASSERT_OK(bed.ops().Rope(bed.ctx(), Direction::kBackward, ids, c, s, heads, dim, view));
      ExpectNear(bed.Get(view), x, kTolerance, "back");
    }
  }
  const View c = bed.Put(Mat(4, 1)), x = bed.Put(Mat(1, 2));
  EXPECT_FALSE(
      bed.Finished(bed.ops().Rope(bed.ctx(), Direction::kForward, bed.PutInts({4}), c, c, 1, 2, x))
          .ok());
}

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGeluTanh};

Mat GluReference(Activation activation, const Mat& gate, const Mat& up) {
  Mat act(gate.rows, gate.cols);
  for (size_t i = 0; i < act.v.size(); ++i) {
    const double z = gate.v[i];
    const double u = std::sqrt(2 / std::acos(-1.0)) * (z + 0.044715 * z * z * z);
    act.v[i] =
        (activation == Activation::kSilu ? z / (1 + std::exp(-z)) : 0.5 * z * (1 + std::tanh(u))) *
        up.v[i];
  }
  return act;
}

TEST_P(OpsSuite, GatedActivationsMatchTheReferenceAndItsGradient) {
  Bed bed(GetParam(), 2);
  for (const Activation f : kActivations) {
    for (const int64_t cols : {1, 7, 64, 333}) {
      Mat gate = Random(1, 5, cols, DType::kF32, 3.0);
      const Mat up = Random(2, 5, cols), g = Random(3, 5, cols);
      gate.v[0] = 20;  // nearly the identity, nearly zero
      gate.v[1] = -20;
      const View gate_view = bed.Put(gate, DType::kF32, 2), up_view = bed.Put(up);
      const View act = bed.New(DType::kF32, 5, cols), dact = bed.Put(g);
      const View dgate = bed.New(DType::kF32, 5, cols, 1), dup = bed.New(DType::kF32, 5, cols);
      ASSERT_OK(bed.ops().Glu(bed.ctx(), f, gate_view, up_view, act));
      ExpectNear(bed.Get(act), GluReference(f, gate, up), kTolerance, "act");
      ASSERT_OK(bed.ops().GluBackward(bed.ctx(), f, dact, gate_view, up_view, dgate, dup));
      ExpectGradient([&](const Mat& m) { return Dot(g, GluReference(f, m, up)); }, gate,
                     bed.Get(dgate), 1e-5, "dgate");
      ExpectGradient([&](const Mat& m) { return Dot(g, GluReference(f, gate, m)); }, up,
                     bed.Get(dup), 1e-5, "dup");
      // In place over its inputs.
      ASSERT_OK(bed.ops().GluBackward(bed.ctx(), f, dact, gate_view, up_view, gate_view, up_view));
      EXPECT_EQ(bed.Bytes(gate_view), bed.Bytes(dgate));
      EXPECT_EQ(bed.Bytes(up_view), bed.Bytes(dup));
    }
  }
}

TEST_P(OpsSuite, GatesThatAreHugeOrNotFiniteAreAsInTorch) {
  Bed bed(GetParam(), 1);
  Mat gate(1, 5), up(1, 5);
  gate.v = {1e30, -1e30, -200, std::nan(""), std::numeric_limits<double>::infinity()};
  std::fill(up.v.begin(), up.v.end(), 1.0);
  const View ones = bed.Put(up), gate_view = bed.Put(gate);
  for (const Activation f : kActivations) {
    const View act = bed.New(DType::kF32, 1, 5), dgate = bed.New(DType::kF32, 1, 5);
    ASSERT_OK(bed.ops().Glu(bed.ctx(), f, gate_view, ones, act));
    const Mat got = bed.Get(act);
    EXPECT_FLOAT_EQ(static_cast<float>(got.v[0]), 1e30f);
    EXPECT_EQ(got.v[1], 0);
    EXPECT_EQ(got.v[2], 0);
    EXPECT_TRUE(std::isnan(got.v[3]));
    EXPECT_TRUE(std::isinf(got.v[4]));
    // The slopes of large gates are 1 and 0; that of a NaN is one.
    ASSERT_OK(bed.ops().GluBackward(bed.ctx(), f, ones, gate_view, ones, dgate, act));
    const Mat slopes = bed.Get(dgate);
    EXPECT_EQ(slopes.v[0], 1);
    EXPECT_EQ(slopes.v[2], 0);
    EXPECT_TRUE(std::isnan(slopes.v[3]));
  }
}

TEST_P(OpsSuite, EmbeddingAndGatherPickRows) {
  Bed bed(GetParam(), 2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Mat table = Random(1, 11, 37, dtype);
    const View table_view = bed.Put(table, dtype, 3), out = bed.New(DType::kF32, 4, 37, 1);
    ASSERT_OK(bed.ops().EmbeddingLookup(bed.ctx(), bed.PutInts({10, 0, 3, 3}), table_view, out));
    const Mat got = bed.Get(out);
    for (int64_t d = 0; d < 37; ++d) {
      EXPECT_EQ(got(0, d), table(10, d));
      EXPECT_EQ(got(1, d), table(0, d));
      EXPECT_EQ(got(2, d), table(3, d));
      EXPECT_EQ(got(3, d), table(3, d));
    }
    if (dtype != DType::kF32) continue;
    ASSERT_OK(bed.ops().GatherRows(bed.ctx(), table_view, bed.PutInts({10, 0, 3, 3}), out));
    EXPECT_EQ(bed.Get(out).v, got.v);
    EXPECT_FALSE(
        bed.Finished(bed.ops().GatherRows(bed.ctx(), table_view, bed.PutInts({0, 0, 0, 11}), out))
            .ok());
    EXPECT_FALSE(bed.Finished(bed.ops().EmbeddingLookup(bed.ctx(), bed.PutInts({0, 0, 0, -1}),
                                                        table_view, out))
                     .ok());
  }
}

TEST_P(OpsSuite, AddAndScaleAreElementwise) {
  Bed bed(GetParam(), 2);
  const Mat x = Random(1, 7, 45), y = Random(2, 7, 45);
  const View x_view = bed.Put(x, DType::kF32, 1), y_view = bed.Put(y, DType::kF32, 2);
  ASSERT_OK(bed.ops().Add(bed.ctx(), x_view, y_view));
  ExpectNear(bed.Get(y_view), Plus(y, x), 1e-7, "sum");
  ASSERT_OK(bed.ops().Scale(bed.ctx(), 0.25f, x_view));
  ExpectNear(bed.Get(x_view), Plus(Mat(7, 45), x, 0.25), 0, "scaled");
}

TEST_P(OpsSuite, CastRoundsToTheNearestEvenBF16) {
  Bed bed(GetParam(), 1);
  const float inf = std::numeric_limits<float>::infinity();
  Mat x(1, 19);
  x.v = {0,       -0.0,      1,    1.00390625,   1.01171875, 1.0039063692, -1.00390625, 3.4e38,
         -3.4e38, inf,       -inf, std::nan(""), 1e-40,      9.2e-41,      65504,       0.1,
         1.0 / 3, 123456789, 2};
  const View view = bed.Put(x), narrow = bed.New(DType::kBF16, 1, 19);
  ASSERT_OK(bed.ops().Cast(bed.ctx(), view, narrow));
  const Mat got = bed.Get(narrow);
  for (size_t i = 0; i < x.v.size(); ++i) {
    const float want = ToFloat(ToBF16(static_cast<float>(x.v[i])));
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got.v[i]));
    } else {
      EXPECT_EQ(got.v[i], want) << x.v[i];
    }
  }
  EXPECT_EQ(got.v[3], 1.0);        // 1 + 2^-8 ties to even 1
  EXPECT_EQ(got.v[4], 1.015625);   // 1 + 3·2^-8 ties to even 1 + 2^-6
  EXPECT_EQ(got.v[5], 1.0078125);  // just above the tie
  EXPECT_EQ(got.v[7], inf);
  const View wide = bed.New(DType::kF32, 1, 19);
  ASSERT_OK(bed.ops().Cast(bed.ctx(), narrow, wide));
  EXPECT_EQ(bed.Get(wide).v[16], got.v[16]);
}

TEST_P(OpsSuite, DropoutKeepsTheRightShareAndBelongsToTheToken) {
  Bed bed(GetParam(), 2);
  const int64_t k = 1003;
  Mat ones(6, k);
  std::fill(ones.v.begin(), ones.v.end(), 1.0);
  DropoutKey key{.seed = 17, .step = 3, .epoch = 1, .layer = 2, .module = 5, .probability = 0.25f};
  const View x = bed.Put(ones), out = bed.New(DType::kF32, 6, k);
  const View rows = bed.PutInts({4, 4, 4, 9, 9, 9}), at = bed.PutInts({0, 1, 2, 0, 1, 2});
  ASSERT_OK(bed.ops().Dropout(bed.ctx(), x, key, rows, at, Write::kSet, out));
  const Mat mask = bed.Get(out);
  int64_t dropped = 0;
  for (const double v : mask.v) {
    ASSERT_TRUE(v == 0 || std::abs(v - 4.0 / 3) < 1e-6) << v;
    dropped += v == 0 ? 1 : 0;
  }
  // 6018 draws at 1/4: five standard deviations are 168.
  EXPECT_NEAR(static_cast<double>(dropped), 1504.5, 168);

  // The same tokens in another order, packed with others: the same masks.
  const View out2 = bed.New(DType::kF32, 6, k);
  ASSERT_OK(bed.ops().Dropout(bed.ctx(), x, key, bed.PutInts({9, 1, 4, 4, 2, 9}),
                              bed.PutInts({2, 0, 0, 2, 0, 1}), Write::kSet, out2));
  const Mat moved = bed.Get(out2);
  for (int64_t c = 0; c < k; ++c) {
    ASSERT_EQ(moved(0, c), mask(5, c));
    ASSERT_EQ(moved(2, c), mask(0, c));
    ASSERT_EQ(moved(3, c), mask(2, c));
    ASSERT_EQ(moved(5, c), mask(4, c));
  }
  // Every part of the key matters.
  for (int part = 0; part < 5; ++part) {
    DropoutKey other = key;
    if (part == 0) ++other.seed;
    if (part == 1) ++other.step;
    if (part == 2) ++other.epoch;
    if (part == 3) ++other.layer;
    if (part == 4) ++other.module;
    ASSERT_OK(bed.ops().Dropout(bed.ctx(), x, other, rows, at, Write::kSet, out2));
    EXPECT_NE(bed.Bytes(out2), bed.Bytes(out)) << "part " << part;
  }
  // Adding, and no dropout at all.
  ASSERT_OK(bed.ops().Dropout(bed.ctx(), x, key, rows, at, Write::kAdd, out));
  ExpectNear(bed.Get(out), Plus(mask, mask), 0, "added");
  key.probability = 0;
  ASSERT_OK(bed.ops().Dropout(bed.ctx(), x, key, rows, at, Write::kSet, out));
  EXPECT_EQ(bed.Bytes(out), bed.Bytes(x));
  key.probability = 1;
  EXPECT_FALSE(bed.ops().Dropout(bed.ctx(), x, key, rows, at, Write::kSet, out).ok());
}

}  // namespace
}  // namespace tundra::suite
