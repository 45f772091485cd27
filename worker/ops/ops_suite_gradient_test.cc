// Maxima, exact sums, norms and AdamW.
#include <cmath>
#include <limits>

#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

TEST_P(OpsSuite, AbsMaxAndCountNonFiniteSeeEveryElement) {
  Bed bed(GetParam(), 2);
  for (const int64_t at : {0, 5, 16, 776}) {
    Mat x = Random(1, 7, 111);
    const View largest = bed.New(DType::kF32, 1, 1), count = bed.New(DType::kI64, 1, 1);
    const auto run = [&](double value) {
      x.v[static_cast<size_t>(at)] = value;
      const View view = bed.Put(x, DType::kF32, 2);
      EXPECT_TRUE(bed.ops().AbsMax(bed.ctx(), view, Write::kSet, largest).ok());
      EXPECT_TRUE(bed.ops().CountNonFinite(bed.ctx(), view, count).ok());
      return std::pair(bed.Get(largest).v[0], bed.Get(count).v[0]);
    };
    EXPECT_EQ(run(-77.5), std::pair(77.5, 0.0));
    EXPECT_EQ(run(-std::numeric_limits<double>::infinity()),
              std::pair(std::numeric_limits<double>::infinity(), 1.0));
    const auto [max, found] = run(std::nan(""));
    EXPECT_TRUE(std::isnan(max));
    EXPECT_EQ(found, 1);
  }
  const View largest = bed.New(DType::kF32, 1, 1);
  ASSERT_OK(bed.ops().AbsMax(bed.ctx(), bed.Put(Mat(1, 3)), Write::kSet, largest));
  EXPECT_EQ(bed.Get(largest).v[0], 0);
}

TEST_P(OpsSuite, AMaximumOverSeveralTensorsIsThatOfTheirUnion) {
  Bed bed(GetParam(), 2);
  const double inf = std::numeric_limits<double>::infinity();
  const View largest = bed.New(DType::kF32, 1, 1);
  const auto add = [&](std::vector<double> values, Write write) {
    Mat x(1, static_cast<int64_t>(values.size()));
    x.v = std::move(values);
    EXPECT_TRUE(bed.ops().AbsMax(bed.ctx(), bed.Put(x), write, largest).ok());
    return bed.Get(largest).v[0];
  };
  EXPECT_EQ(add({1, -3}, Write::kSet), 3);
  EXPECT_EQ(add({2, -2}, Write::kAdd), 3);
  EXPECT_EQ(add({-5}, Write::kAdd), 5);
  EXPECT_EQ(add({-inf}, Write::kAdd), inf);
  EXPECT_EQ(add({1}, Write::kAdd), inf);
  EXPECT_TRUE(std::isnan(add({std::nan("")}, Write::kAdd)));
  EXPECT_TRUE(std::isnan(add({inf}, Write::kAdd))) << "NaN stays";
  EXPECT_EQ(add({1}, Write::kSet), 1);
}

// What training relies on: a tensor in one row, cut at any place, and scalars of any step.
TEST_P(OpsSuite, AnElementsUpdateDoesNotDependOnItsNeighbours) {
  Bed bed(GetParam(), 3);
  const int64_t n = 70'001;  // over the grain of a thread
  const Mat g = Random(1, 1, n), w = Random(2, 1, n), m = Random(3, 1, n, DType::kF32, 0.1);
  Mat v = Random(4, 1, n);
  for (double& x : v.v) x = std::abs(x);
  const AdamWParams params{.learning_rate = 3e-4, .weight_decay = 0.01, .step = 7};
  const View w1 = bed.Put(w), m1 = bed.Put(m), v1 = bed.Put(v), grad = bed.Put(g);
  const View w2 = bed.Put(w), m2 = bed.Put(m), v2 = bed.Put(v);
  ASSERT_OK(bed.ops().AdamW(bed.ctx(), params, grad, w1, m1, v1));
  for (int64_t at = 0, size = 1; at < n; at += size, size = size % 977 * 3 + 1) {
    const int64_t count = std::min(size, n - at);
    ASSERT_OK(bed.ops().AdamW(bed.ctx(), params, grad.Cols(at, count), w2.Cols(at, count),
                              m2.Cols(at, count), v2.Cols(at, count)));
  }
  EXPECT_TRUE(bed.Bytes(w1) == bed.Bytes(w2));
  EXPECT_TRUE(bed.Bytes(m1) == bed.Bytes(m2));
  EXPECT_TRUE(bed.Bytes(v1) == bed.Bytes(v2));
}

TEST_P(OpsSuite, ARateOfZeroMovesMomentsAndNotWeights) {
  Bed bed(GetParam(), 1);
  const Mat w = Random(1, 1, 20);
  const View weight = bed.Put(w), m = bed.Put(Mat(1, 20)), v = bed.Put(Mat(1, 20));
  ASSERT_OK(
      bed.ops().AdamW(bed.ctx(), {.weight_decay = 0.1}, bed.Put(Random(2, 1, 20)), weight, m, v));
  EXPECT_EQ(bed.Get(weight).v, w.v);
  EXPECT_NE(bed.Get(m).v[0], 0);
  EXPECT_NE(bed.Get(v).v[19], 0);
}

TEST_P(OpsSuite, QuantisedSumsAreExactAndComeBack) {
  Bed bed(GetParam(), 2);
  const double scale = std::ldexp(1.0, 40);
  const Mat g1 = Random(1, 30, 70, DType::kF32, 1e-3), g2 = Random(2, 30, 70, DType::kF32, 1e3);
  Mat want(30, 70);
  for (size_t i = 0; i < want.v.size(); ++i) {
    // llrint rounds to nearest even; the sums stay below 2^53, so they are exact here.
    want.v[i] = static_cast<double>(std::llrint(g1.v[i] * scale) + std::llrint(g2.v[i] * scale));
  }
  const View sum = bed.Put(Mat(30, 70), DType::kI64, 1);
  ASSERT_OK(bed.ops().QuantiseAccumulate(bed.ctx(), bed.Put(g1), scale, sum));
  ASSERT_OK(bed.ops().QuantiseAccumulate(bed.ctx(), bed.Put(g2), scale, sum));
  EXPECT_EQ(bed.Get(sum).v, want.v);
  const View grad = bed.New(DType::kF32, 30, 70);
  ASSERT_OK(bed.ops().Dequantise(bed.ctx(), sum, scale, 7.0, grad));
  const Mat got = bed.Get(grad);
  for (size_t i = 0; i < got.v.size(); ++i) {
    ASSERT_EQ(got.v[i], static_cast<float>(want.v[i] / scale / 7.0));
  }
  EXPECT_FALSE(bed.ops().Dequantise(bed.ctx(), sum, scale, 0, grad).ok());
}

TEST_P(OpsSuite, QuantisingTiesSaturatesAndZeroesNaN) {
  Bed bed(GetParam(), 1);
  Mat g(1, 8);
  g.v = {0.5, 1.5, -0.5, -2.5, 1e30, -1e30, std::nan(""), std::numeric_limits<double>::infinity()};
  const View sum = bed.Put(Mat(1, 8), DType::kI64);
  ASSERT_OK(bed.ops().QuantiseAccumulate(bed.ctx(), bed.Put(g), 1.0, sum));
  const double limit = std::ldexp(1.0, 62);
  EXPECT_EQ(bed.Get(sum).v, (std::vector<double>{0, 2, 0, -2, limit, -limit, 0, limit}));
}

TEST_P(OpsSuite, SquaredNormIsADoubleSumInFixedBlocks) {
  Bed bed(GetParam(), 2);
  for (const int64_t n : {1, 7, 4096, 4097, 50000}) {
    const Mat x = Random(1, 1, n);
    double want = 0;
    for (const double v : x.v) want += v * v;
    const View norm2 = bed.New(DType::kF64, 1, 1);
    ASSERT_OK(bed.ops().SquaredNorm(bed.ctx(), bed.Put(x), norm2));
    EXPECT_NEAR(bed.Get(norm2).v[0], want, 1e-13 * want);
  }
  EXPECT_FALSE(bed.ops()
                   .SquaredNorm(bed.ctx(), bed.Put(Random(1, 3, 5), DType::kF32, 1),
                                bed.New(DType::kF64, 1, 1))
                   .ok());
}

TEST_P(OpsSuite, AdamWFollowsItsFormulaOverSteps) {
  Bed bed(GetParam(), 2);
  AdamWParams params{.learning_rate = 1e-2, .weight_decay = 0.1};
  Mat w = Random(1, 3, 50), m(3, 50), v(3, 50);
  const View w_view = bed.Put(w), m_view = bed.Put(m), v_view = bed.Put(v);
  for (params.step = 1; params.step <= 5; ++params.step) {
    const Mat g = Random(10 + static_cast<uint32_t>(params.step), 3, 50, DType::kF32, 0.1);
    ASSERT_OK(bed.ops().AdamW(bed.ctx(), params, bed.Put(g), w_view, m_view, v_view));
    const auto t = static_cast<double>(params.step);
    for (size_t i = 0; i < w.v.size(); ++i) {
      m.v[i] = params.beta1 * m.v[i] + (1 - params.beta1) * g.v[i];
      v.v[i] = params.beta2 * v.v[i] + (1 - params.beta2) * g.v[i] * g.v[i];
      const double m_hat = m.v[i] / (1 - std::pow(params.beta1, t));
      const double v_hat = v.v[i] / (1 - std::pow(params.beta2, t));
      w.v[i] -= params.learning_rate * params.weight_decay * w.v[i];
      w.v[i] -= params.learning_rate * m_hat / (std::sqrt(v_hat) + params.epsilon);
    }
    ExpectNear(bed.Get(w_view), w, 1e-6, "weight");
    ExpectNear(bed.Get(m_view), m, 1e-6, "first moment");
    ExpectNear(bed.Get(v_view), v, 1e-6, "second moment");
  }
  params.step = 0;
  EXPECT_FALSE(bed.ops().AdamW(bed.ctx(), params, w_view, w_view, m_view, v_view).ok());
}

}  // namespace
}  // namespace tundra::suite
