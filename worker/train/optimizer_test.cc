// Norm, clipping, schedule and AdamW together, as a training step runs them, against golden
// values from PyTorch and Transformers by tests/parity/make_optimizer_golden.py. Each
// operation by itself is the op suite's.
#include "worker/train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/status_test_util.h"
#include "worker/ops/ops.h"
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

View Vector(std::vector<float>& values) {  // memory that the CPU device works on
  return View::Vector(values.data(), DType::kF32, static_cast<int64_t>(values.size()));
}

TEST(AdamWTest, FollowsPyTorchWithClippingAndSchedule) {
  const nlohmann::json golden = Golden();
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto device, CreateCpuDevice({.threads = 2, .max_isa = ""}));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto ops, CreateCpuOps(device.get()));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto stream, device->CreateStream());
  TUNDRA_ASSERT_OK_AND_ASSIGN(Arena scratch, Arena::Create(device.get(), 1 << 16));
  const Ctx ctx{stream.get(), &scratch};
  for (const auto& test : golden.at("adamw")) {
    const auto grads = test.at("grads").get<std::vector<std::vector<std::vector<float>>>>();
    auto weights = test.at("start").get<std::vector<std::vector<float>>>();
    std::vector<std::vector<float>> m, v;
    for (const auto& w : weights) {
      m.emplace_back(w.size());
      v.emplace_back(w.size());
    }
    AdamWParams params{.weight_decay = test.at("weight_decay").get<double>()};
    TUNDRA_ASSERT_OK_AND_ASSIGN(const ScheduleKind kind,
                                ParseScheduleKind(test.at("scheduler").get<std::string>()));
    for (size_t step = 0; step < grads.size(); ++step) {
      std::vector<std::vector<float>> g = grads[step];
      double norm = 0;
      for (const std::vector<float>& tensor : g) {
        for (const float x : tensor) norm += static_cast<double>(x) * static_cast<double>(x);
      }
      norm = std::sqrt(norm);
      EXPECT_NEAR(norm, test.at("norms")[step].get<double>(), 1e-6 * norm);
      const double coefficient = ClipCoefficient(norm, test.at("max_norm").get<double>());
      const double rate =
          test.at("lr").get<double>() * ScheduleFactor(kind, static_cast<int64_t>(step),
                                                       test.at("warmup").get<int64_t>(),
                                                       test.at("steps").get<int64_t>());
      EXPECT_DOUBLE_EQ(rate, test.at("rates")[step].get<double>());
      for (size_t t = 0; t < weights.size(); ++t) {
        TUNDRA_ASSERT_OK(ops->Scale(ctx, static_cast<float>(coefficient), Vector(g[t])));
        params.learning_rate = rate;
        params.step = static_cast<int64_t>(step) + 1;
        TUNDRA_ASSERT_OK(
            ops->AdamW(ctx, params, Vector(g[t]), Vector(weights[t]), Vector(m[t]), Vector(v[t])));
      }
    }
    for (size_t t = 0; t < weights.size(); ++t) {
      ExpectClose(weights[t], test.at("end")[t].get<std::vector<float>>(), 1e-6f);
      ExpectClose(m[t], test.at("exp_avg")[t].get<std::vector<float>>(), 1e-6f);
      ExpectClose(v[t], test.at("exp_avg_sq")[t].get<std::vector<float>>(), 2e-6f);
    }
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
