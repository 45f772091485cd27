// The golden values come from PyTorch and Transformers, by
// tests/parity/make_optimizer_golden.py.
#include "worker/train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "common/status_test_util.h"
#include "worker/train/schedule.h"

namespace tundra {
namespace {

nlohmann::json Golden() {
  const char* root = std::getenv("TUNDRA_SOURCE_DIR");
  const std::string path =
      std::string(root != nullptr ? root : ".") + "/worker/train/testdata/optimizer_golden.json";
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << "no " << path << "; run from the repository or through ctest";
  return file.good() ? nlohmann::json::parse(file) : nlohmann::json::object();
}

void ExpectClose(const std::vector<float>& ours, const std::vector<float>& theirs, float relative) {
  ASSERT_EQ(ours.size(), theirs.size());
  float largest = 0;
  for (const float x : theirs) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_NEAR(ours[i], theirs[i], relative * largest) << i;
  }
}

TEST(AdamWTest, FollowsPyTorchWithClippingAndSchedule) {
  const nlohmann::json golden = Golden();
  for (const auto& test : golden.at("adamw")) {
    const auto grads = test.at("grads").get<std::vector<std::vector<std::vector<float>>>>();
    auto weights = test.at("start").get<std::vector<std::vector<float>>>();
    std::vector<std::vector<float>> m, v;
    for (const auto& w : weights) {
      m.emplace_back(w.size());
      v.emplace_back(w.size());
    }
    const AdamWOptions options{.weight_decay = test.at("weight_decay").get<double>()};
    TUNDRA_ASSERT_OK_AND_ASSIGN(const ScheduleKind kind,
                                ParseScheduleKind(test.at("scheduler").get<std::string>()));
    for (size_t step = 0; step < grads.size(); ++step) {
      std::vector<std::vector<float>> g = grads[step];
      const std::vector<std::span<const float>> views(g.begin(), g.end());
      const double norm = GlobalNorm(views);
      EXPECT_NEAR(norm, test.at("norms")[step].get<double>(), 1e-6 * norm);
      const double coefficient = ClipCoefficient(norm, test.at("max_norm").get<double>());
      const double rate =
          test.at("lr").get<double>() * ScheduleFactor(kind, static_cast<int64_t>(step),
                                                       test.at("warmup").get<int64_t>(),
                                                       test.at("steps").get<int64_t>());
      EXPECT_DOUBLE_EQ(rate, test.at("rates")[step].get<double>());
      for (size_t t = 0; t < weights.size(); ++t) {
        ScaleGradient(g[t], coefficient);
        AdamWUpdate(options, rate, static_cast<int64_t>(step) + 1, g[t], weights[t], m[t], v[t]);
      }
    }
    for (size_t t = 0; t < weights.size(); ++t) {
      ExpectClose(weights[t], test.at("end")[t].get<std::vector<float>>(), 1e-6f);
      ExpectClose(m[t], test.at("exp_avg")[t].get<std::vector<float>>(), 1e-6f);
      ExpectClose(v[t], test.at("exp_avg_sq")[t].get<std::vector<float>>(), 2e-6f);
    }
  }
}

TEST(AdamWTest, ARateOfZeroMovesMomentsAndNotWeights) {
  std::vector<float> w = {1, -2}, g = {0.5f, 0.25f}, m(2), v(2);
  AdamWUpdate({.weight_decay = 0.1}, 0.0, 1, g, w, m, v);
  EXPECT_EQ(w, (std::vector<float>{1, -2}));
  EXPECT_NE(m[0], 0);
  EXPECT_NE(v[1], 0);
}

TEST(AdamWTest, SameBitsForAnyNumberOfThreads) {
  const size_t n = 100'001;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> g(n), w(n), m(n), v(n);
  for (size_t i = 0; i < n; ++i) {
    g[i] = normal(random);
    w[i] = normal(random);
    m[i] = normal(random) * 0.1f;
    v[i] = std::fabs(normal(random));
  }
  auto run = [&](int threads) {
    std::vector<float> w1 = w, m1 = m, v1 = v, g1 = g;
    ScaleGradient(g1, 0.37, threads);
    AdamWUpdate({.weight_decay = 0.01}, 3e-4, 7, g1, w1, m1, v1, threads);
    w1.insert(w1.end(), m1.begin(), m1.end());
    w1.insert(w1.end(), v1.begin(), v1.end());
    return w1;
  };
  const std::vector<float> reference = run(1);
  const double sum = SumOfSquares(g, 1);
  for (const int threads : {2, 3, 4, 8, 16}) {
    EXPECT_EQ(run(threads), reference);
    EXPECT_EQ(SumOfSquares(g, threads), sum);
  }
}

TEST(AdamWTest, AnElementsUpdateDoesNotDependOnItsNeighbours) {
  // Vector lanes and remainders must compute alike: update 1 … 40 elements, and each
  // alone.
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (size_t n = 1; n <= 40; ++n) {
    std::vector<float> g(n), w(n), m(n), v(n, 0.5f);
    for (size_t i = 0; i < n; ++i) {
      g[i] = normal(random);
      w[i] = normal(random);
    }
    std::vector<float> w1 = w, m1 = m, v1 = v;
    AdamWUpdate({}, 1e-3, 2, g, w1, m1, v1);
    for (size_t i = 0; i < n; ++i) {
      std::vector<float> wi = {w[i]}, mi = {m[i]}, vi = {v[i]};
      AdamWUpdate({}, 1e-3, 2, std::span(g).subspan(i, 1), wi, mi, vi);
      ASSERT_EQ(wi[0], w1[i]) << n << " " << i;
    }
  }
}

TEST(NormTest, AgreesWithLongDouble) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const size_t n : {0, 1, 7, 8, 9, 4095, 4096, 4097, 50'000}) {
    std::vector<float> g(n);
    long double sum = 0;
    for (float& x : g) {
      x = normal(random);
      sum += static_cast<long double>(x) * x;
    }
    EXPECT_NEAR(SumOfSquares(g), static_cast<double>(sum), 1e-13 * static_cast<double>(sum));
  }
}

TEST(ClipTest, NeverScalesUpAndCanBeOff) {
  EXPECT_EQ(ClipCoefficient(0.5, 1.0), 1.0);
  EXPECT_EQ(ClipCoefficient(0.0, 1.0), 1.0);
  EXPECT_EQ(ClipCoefficient(100.0, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(ClipCoefficient(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_TRUE(std::isnan(ClipCoefficient(std::numeric_limits<double>::quiet_NaN(), 1.0)));
}

}  // namespace
}  // namespace tundra
