// Maxima, exact sums, norms and AdamW.
#include <cmath>
#include <limits>

#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

// Tensors end to end, with what AddGradients and MeanGradients need of them.
struct Set {
  Set(Bed& bed, std::vector<int64_t> sizes, const std::vector<double>& scale, int64_t base = 0) {
    std::vector<int64_t> offsets = {base};
    for (const int64_t size : sizes) offsets.push_back(offsets.back() + size);
    elements = offsets.back() - base;
    tensors = {bed.PutLongs(offsets), static_cast<int>(sizes.size())};
    Mat values(1, static_cast<int64_t>(scale.size()));
    values.v = scale;
    scales = bed.Put(values, DType::kF64);
    largest = bed.Put(Mat(1, tensors.count));
    norm2 = bed.New(DType::kF64, 1, tensors.count);
    sum = bed.Put(Mat(1, elements), DType::kI64);
    mean = bed.New(DType::kF32, 1, elements);
  }
  Tensors tensors;
  int64_t elements = 0;
  View scales, largest, norm2, sum, mean;
};

TEST_P(OpsSuite, TheLargestGradientOfEachTensorIsFoundWhereverItIs) {
  Bed bed(GetParam(), 2);
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<int64_t> sizes = {1, 0, 300, 9000};
  for (const int64_t at : {0, 1, 300, 301, 4396, 4397, 9300}) {
    Set set(bed, sizes, {0, 0, 0, 0}, 17);
    const size_t tensor = at < 1 ? 0 : at < 301 ? 2 : 3;
    const auto run = [&](double value) {
      Mat x(1, set.elements);
      std::fill(x.v.begin(), x.v.end(), 0.25);
      x.v[static_cast<size_t>(at)] = value;
      EXPECT_TRUE(
          bed.ops()
              .AddGradients(bed.ctx(), set.tensors, bed.Put(x), set.scales, set.largest, set.sum)
              .ok());
      const Mat got = bed.Get(set.largest);
      for (size_t s = 0; s < 4; ++s) {
        if (s == tensor) continue;
        EXPECT_EQ(got.v[s], s == 1 ? 0 : 0.25) << at;
      }
      return got.v[tensor];
    };
    // Each is the largest so far: they stay.
    EXPECT_EQ(run(-77.5), 77.5);
    EXPECT_EQ(run(3), 77.5);
    EXPECT_EQ(run(-inf), inf);
    EXPECT_TRUE(std::isnan(run(std::nan(""))));
    EXPECT_TRUE(std::isnan(run(inf))) << "NaN stays";
    for (const double q : bed.Get(set.sum).v) ASSERT_EQ(q, 0) << "without an exponent";
  }
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
  const std::vector<int64_t> sizes = {5000, 1, 12288, 0, 4096, 333};
  const std::vector<double> scale = {std::ldexp(1.0, 40), std::ldexp(1.0, 20), 0, 1.0,
                                     std::ldexp(1.0, 35), std::ldexp(1.0, 41)};
  Set set(bed, sizes, scale);
  const Mat g1 = Random(1, 1, set.elements, DType::kF32, 1e-3);
  const Mat g2 = Random(2, 1, set.elements, DType::kF32, 1e2);
  ASSERT_OK(bed.ops().AddGradients(bed.ctx(), set.tensors, bed.Put(g1), set.scales, set.largest,
                                   set.sum));
  ASSERT_OK(bed.ops().AddGradients(bed.ctx(), set.tensors, bed.Put(g2), set.scales, set.largest,
                                   set.sum));
  ASSERT_OK(bed.ops().MeanGradients(bed.ctx(), set.tensors, set.sum, set.scales, 7.0, set.mean,
                                    set.norm2));
  const Mat sum = bed.Get(set.sum), mean = bed.Get(set.mean), norm2 = bed.Get(set.norm2);
  size_t i = 0;
  for (size_t s = 0; s < sizes.size(); ++s) {
    double squares = 0;
    for (int64_t k = 0; k < sizes[s]; ++k, ++i) {
      // llrint rounds to nearest even; the sums stay below 2^53, so they are exact here.
      const auto want =
          static_cast<double>(std::llrint(g1.v[i] * scale[s]) + std::llrint(g2.v[i] * scale[s]));
      ASSERT_EQ(sum.v[i], want) << i;
      ASSERT_EQ(mean.v[i], scale[s] > 0 ? static_cast<float>(want / scale[s] / 7.0) : 0) << i;
      squares += mean.v[i] * mean.v[i];
    }
    EXPECT_NEAR(norm2.v[s], squares, 1e-13 * squares) << s;
  }
  EXPECT_FALSE(
      bed.ops()
          .MeanGradients(bed.ctx(), set.tensors, set.sum, set.scales, 0, set.mean, set.norm2)
          .ok());
}

TEST_P(OpsSuite, QuantisingTiesSaturatesAndZeroesNaN) {
  Bed bed(GetParam(), 1);
  Mat g(1, 8);
  g.v = {0.5, 1.5, -0.5, -2.5, 1e30, -1e30, std::nan(""), std::numeric_limits<double>::infinity()};
  Set set(bed, {8}, {1.0});
  ASSERT_OK(
      bed.ops().AddGradients(bed.ctx(), set.tensors, bed.Put(g), set.scales, set.largest, set.sum));
  const double limit = std::ldexp(1.0, 62);
  EXPECT_EQ(bed.Get(set.sum).v, (std::vector<double>{0, 2, 0, -2, limit, -limit, 0, limit}));
}

// A tensor's results depend on its own elements alone, not on what lies beside it.
TEST_P(OpsSuite, ATensorsNormDoesNotDependOnItsNeighbours) {
  Bed bed(GetParam(), 3);
  const int64_t n = 10'001;
  const Mat g = Random(5, 1, n);
  Mat wide(1, n + 7'777);
  std::copy(g.v.begin(), g.v.end(), wide.v.begin() + 7'000);
  Set alone(bed, {n}, {std::ldexp(1.0, 40)});
  Set among(bed, {6'999, 1, n, 777}, std::vector<double>(4, std::ldexp(1.0, 40)), 123);
  for (Set* set : {&alone, &among}) {
    ASSERT_OK(bed.ops().AddGradients(bed.ctx(), set->tensors, bed.Put(set == &alone ? g : wide),
                                     set->scales, set->largest, set->sum));
    ASSERT_OK(bed.ops().MeanGradients(bed.ctx(), set->tensors, set->sum, set->scales, 3.0,
                                      set->mean, set->norm2));
  }
  EXPECT_EQ(bed.Get(alone.norm2).v[0], bed.Get(among.norm2).v[2]);
}

TEST_P(OpsSuite, TensorsOutsideOfTheArrayAreRefusedAndNothingElseIsTouched) {
  Bed bed(GetParam(), 1);
  const Mat g = Random(1, 1, 100);
  for (const std::vector<int64_t>& offsets :
       {std::vector<int64_t>{0, 60, 50}, {0, 50, 101}, {0, -5, 100}, {0, 1'000'000, 100}}) {
    Set set(bed, {50, 50}, {1.0, 1.0});
    set.tensors.offsets = bed.PutLongs(offsets);
    EXPECT_EQ(bed.Finished(bed.ops().AddGradients(bed.ctx(), set.tensors, bed.Put(g), set.scales,
                                                  set.largest, set.sum))
                  .code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(bed.Finished(bed.ops().MeanGradients(bed.ctx(), set.tensors, set.sum, set.scales, 1.0,
                                                   set.mean, set.norm2))
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
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
