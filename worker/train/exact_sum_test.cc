#include "worker/train/exact_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "common/status_test_util.h"
#include "worker/ops/quantise.h"

namespace tundra {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The nearest integer to x, ties to even, out of long double (64-bit mantissa),
// so by another way than the code under test.
__int128 RoundHalfEven(long double x) {
  const long double floor = std::floor(x);
  const long double rest = x - floor;
  auto n = static_cast<__int128>(floor);
  if (rest > 0.5L || (rest == 0.5L && (n & 1) != 0)) ++n;
  return n;
}

TEST(CeilLog2Test, OfIntegers) {
  EXPECT_EQ(CeilLog2(int64_t{1}), 0);
  EXPECT_EQ(CeilLog2(int64_t{2}), 1);
  EXPECT_EQ(CeilLog2(int64_t{3}), 2);
  for (int k = 2; k < 62; ++k) {
    EXPECT_EQ(CeilLog2(int64_t{1} << k), k);
    EXPECT_EQ(CeilLog2((int64_t{1} << k) - 1), k);
    EXPECT_EQ(CeilLog2((int64_t{1} << k) + 1), k + 1);
  }
}

TEST(CeilLog2Test, OfFloatsAtAndAroundEveryPowerOfTwo) {
  for (int k = -149; k <= 127; ++k) {
    const float x = std::ldexp(1.0f, k);
    EXPECT_EQ(CeilLog2(x), k) << k;
    if (k < 127) {
      EXPECT_EQ(CeilLog2(std::nextafter(x, kInf)), k + 1) << k;
    }
  }
  EXPECT_EQ(CeilLog2(std::numeric_limits<float>::max()), 128);
  EXPECT_EQ(ExponentFor(std::numeric_limits<float>::denorm_min()), -137);
  EXPECT_EQ(ExponentFor(std::numeric_limits<float>::max()), 140);
}

TEST(QuantizeTest, RoundsToNearestEvenOverTheWholeRange) {
  std::mt19937 random(1);
  std::uniform_int_distribution<uint32_t> bits;
  int checked = 0;
  while (checked < 200'000) {
    const auto g = std::bit_cast<float>(bits(random));
    if (!std::isfinite(g)) continue;
    const int64_t micro_batches = 1 + bits(random) % 5000;
    // An exponent for which |g| <= 2^e, as an accepted step has it.
    const int32_t exponent =
        (g == 0 ? 0 : CeilLog2(std::fabs(g))) + static_cast<int>(bits(random) % 80);
    const double scale = QuantizeScale(exponent, micro_batches);
    const __int128 expected =
        RoundHalfEven(static_cast<long double>(g) * static_cast<long double>(scale));
    ASSERT_EQ(static_cast<__int128>(Quantize(g, scale)), expected) << g << " " << scale;
    ++checked;
  }
}

TEST(QuantizeTest, TiesGoToEven) {
  EXPECT_EQ(Quantize(0.5f, 1.0), 0);
  EXPECT_EQ(Quantize(1.5f, 1.0), 2);
  EXPECT_EQ(Quantize(2.5f, 1.0), 2);
  EXPECT_EQ(Quantize(-0.5f, 1.0), 0);
  EXPECT_EQ(Quantize(-1.5f, 1.0), -2);
}

TEST(QuantizeTest, WhatCannotBeSummedIsSaturatedOrZero) {
  const int64_t limit = int64_t{1} << 62;
  EXPECT_EQ(Quantize(kInf, 1.0), limit);
  EXPECT_EQ(Quantize(-kInf, 1.0), -limit);
  EXPECT_EQ(Quantize(3e38f, 0x1p100), limit);
  EXPECT_EQ(Quantize(kNan, 1.0), 0);
}

// The proof of the header, at its worst case: M gradients of exactly 2^e.
TEST(ExactSumTest, TheLargestSumDoesNotOverflow) {
  for (const int64_t micro_batches :
       {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{1000}, int64_t{65'537}, kMaxMicroBatches}) {
    for (const int32_t exponent : {-137, 0, 100}) {
      const double scale = QuantizeScale(exponent, micro_batches);
      const auto g = std::ldexp(1.0f, exponent);
      const __int128 sum = static_cast<__int128>(Quantize(g, scale)) * micro_batches;
      EXPECT_LE(sum, static_cast<__int128>(int64_t{1} << 62));
      EXPECT_GE(sum, static_cast<__int128>(int64_t{1} << 61) - micro_batches);
    }
  }
}

// --- whole steps ------------------------------------------------------------------

// A sum with a device of its own. The CPU works on host memory as it lies.
class Sum {
 public:
  explicit Sum(std::vector<int64_t> sizes, int threads = 2)
      : device_(*CreateCpuDevice({.threads = threads, .max_isa = ""})),
        ops_(*CreateCpuOps(device_.get())),
        stream_(*device_->CreateStream()),
        scratch_(std::make_unique<Arena>(*Arena::Create(device_.get(), 1 << 16))),
        sum_(*ExactGradientSum::Create(ops_.get(), std::move(sizes))) {}

  void Begin(int64_t micro_batches, std::span<const int32_t> exponents) {
    TUNDRA_EXPECT_OK(sum_->Begin(ctx(), micro_batches, exponents));
  }
  void AddGradient(int tensor, const std::vector<float>& g) {
    TUNDRA_EXPECT_OK(sum_->AddGradients(
        ctx(), tensor, 1,
        ConstView::Vector(g.data(), DType::kF32, static_cast<int64_t>(g.size()))));
  }
  void AddScalars(const StepScalars& scalars) { sum_->AddScalars(scalars); }
  std::span<float> Maxima() { return *sum_->Maxima(ctx()); }
  std::span<int64_t> Integers() { return *sum_->Integers(ctx()); }
  void Reduced() { TUNDRA_EXPECT_OK(sum_->Reduced(ctx())); }
  // Of one rank alone.
  SumDecision Decide() {
    Maxima();
    return sum_->Decide();
  }
  // Of all tensors, end to end.
  void MeanGradients(double divisor, std::vector<float>& mean) {
    TUNDRA_EXPECT_OK(sum_->MeanGradients(
        ctx(), divisor, View::Vector(mean.data(), DType::kF32, static_cast<int64_t>(mean.size()))));
  }
  ExactGradientSum* operator->() { return sum_.get(); }

 private:
  Ctx ctx() { return {stream_.get(), scratch_.get()}; }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Arena> scratch_;
  std::unique_ptr<ExactGradientSum> sum_;
};

// Gradients of one step: [micro_batch][tensor][element].
using StepGradients = std::vector<std::vector<std::vector<float>>>;

StepGradients RandomStep(std::mt19937& random, int micro_batches,
                         const std::vector<int64_t>& sizes) {
  StepGradients step;
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> power(-30, 5);
  for (int m = 0; m < micro_batches; ++m) {
    auto& tensors = step.emplace_back();
    for (size_t t = 0; t < sizes.size(); ++t) {
      auto& g = tensors.emplace_back(static_cast<size_t>(sizes[t]));
      for (float& x : g) x = t == 2 ? 0.0f : std::ldexp(normal(random), power(random));
    }
  }
  return step;
}

StepScalars ScalarsOf(int micro_batch) {
  return {.loss_sum = 3.7 * micro_batch + 0.1,
          .target_tokens = 11 + micro_batch,
          .tokens = 100 + micro_batch,
          .rows = 1 + micro_batch % 3};
}

struct StepResult {
  std::vector<int64_t> integers;
  std::vector<int32_t> exponents;
  std::vector<float> means;
  double loss = 0;
  int redone = 0;
};

// Runs a step over `ranks` ranks, whose collective is plain loops here. order[i] is
// the micro-batch that is computed i-th; rank r has every ranks-th of them.
StepResult RunStep(const StepGradients& step, const std::vector<int64_t>& sizes,
                   const std::vector<int>& order, int ranks, std::vector<int32_t> exponents) {
  StepResult result;
  std::vector<Sum> sums;
  for (int r = 0; r < ranks; ++r) sums.emplace_back(sizes, 1 + r % 3);
  while (true) {
    for (size_t r = 0; r < sums.size(); ++r) {
      sums[r].Begin(static_cast<int64_t>(step.size()), exponents);
      for (size_t i = r; i < order.size(); i += sums.size()) {
        const auto m = static_cast<size_t>(order[i]);
        for (size_t t = 0; t < sizes.size(); ++t) {
          sums[r].AddGradient(static_cast<int>(t), step[m][t]);
        }
        sums[r].AddScalars(ScalarsOf(order[i]));
      }
    }
    std::vector<float> maxima(sizes.size() + 1, 0.0f);
    for (Sum& sum : sums) {
      const std::span<const float> own = sum.Maxima();
      for (size_t i = 0; i < maxima.size(); ++i) maxima[i] = std::max(maxima[i], own[i]);
    }
    for (Sum& sum : sums) std::copy(maxima.begin(), maxima.end(), sum.Maxima().begin());
    const SumDecision decision = sums[0]->Decide();
    for (size_t r = 1; r < sums.size(); ++r) EXPECT_EQ(sums[r]->Decide(), decision);
    exponents = sums[0]->exponents();
    if (decision == SumDecision::kAccept) break;
    EXPECT_EQ(decision, SumDecision::kRedo);
    EXPECT_LT(++result.redone, 2) << "a redone step must be accepted";
  }
  const std::span<int64_t> total = sums[0].Integers();
  for (size_t r = 1; r < sums.size(); ++r) {
    const std::span<const int64_t> own = sums[r].Integers();
    for (size_t i = 0; i < total.size(); ++i) total[i] += own[i];
  }
  sums[0].Reduced();
  result.integers.assign(total.begin(), total.end());
  result.exponents = exponents;
  const StepScalars scalars = sums[0]->scalars();
  result.loss = scalars.loss_sum;
  result.means.resize(static_cast<size_t>(std::accumulate(sizes.begin(), sizes.end(), 0)));
  sums[0].MeanGradients(static_cast<double>(scalars.target_tokens), result.means);
  return result;
}

TEST(ExactGradientSumTest, OrderAndRanksChangeNoBit) {
  std::mt19937 random(3);
  const std::vector<int64_t> sizes = {40, 1, 7, 0};  // the third is all zeros
  for (int trial = 0; trial < 20; ++trial) {
    const int micro_batches = 1 + trial;
    const StepGradients step = RandomStep(random, micro_batches, sizes);
    std::vector<int> order(static_cast<size_t>(micro_batches));
    std::iota(order.begin(), order.end(), 0);
    const std::vector<int32_t> unset(sizes.size(), kUnsetExponent);
    const StepResult reference = RunStep(step, sizes, order, 1, unset);
    EXPECT_EQ(reference.redone, 1);  // the first step of a job has no exponents yet
    EXPECT_EQ(reference.exponents[2], kUnsetExponent);
    EXPECT_EQ(reference.exponents[3], kUnsetExponent);
    for (int ranks = 1; ranks <= 8; ++ranks) {
      std::shuffle(order.begin(), order.end(), random);
      const StepResult other = RunStep(step, sizes, order, ranks, unset);
      EXPECT_EQ(other.integers, reference.integers);
      EXPECT_EQ(other.exponents, reference.exponents);
      EXPECT_EQ(other.means, reference.means);
      EXPECT_EQ(other.loss, reference.loss);
    }
    // With the exponents it left, the same step is accepted at once.
    EXPECT_EQ(RunStep(step, sizes, order, 3, reference.exponents).redone, 0);
  }
}

TEST(ExactGradientSumTest, MeansAreTheTrueMeansToFloatPrecision) {
  std::mt19937 random(4);
  const std::vector<int64_t> sizes = {300, 50, 3, 2};
  const int micro_batches = 13;
  const StepGradients step = RandomStep(random, micro_batches, sizes);
  std::vector<int> order(micro_batches);
  std::iota(order.begin(), order.end(), 0);
  const StepResult result =
      RunStep(step, sizes, order, 2, std::vector<int32_t>(sizes.size(), kUnsetExponent));
  double loss = 0;
  int64_t tokens = 0;
  for (int m = 0; m < micro_batches; ++m) {
    loss += ScalarsOf(m).loss_sum;
    tokens += ScalarsOf(m).target_tokens;
  }
  EXPECT_NEAR(result.loss, loss, micro_batches * 0x1p-25);
  size_t at = 0;
  for (size_t t = 0; t < sizes.size(); ++t) {
    long double largest = 0;
    for (const auto& tensors : step) {
      for (const float x : tensors[t]) largest = std::max<long double>(largest, std::fabs(x));
    }
    for (size_t i = 0; i < static_cast<size_t>(sizes[t]); ++i, ++at) {
      long double sum = 0;
      for (const auto& tensors : step) sum += tensors[t][i];
      const long double mean = sum / tokens;
      // 2^-46 of the largest: 62 bits, less 12 of headroom and 4 of ⌈log2 13⌉; half
      // an integer off for each micro-batch, and the float's own rounding.
      const long double tolerance =
          std::fabs(mean) * 0x1p-23L + largest * 0x1p-46L * micro_batches / tokens;
      EXPECT_NEAR(static_cast<double>(result.means[at]), static_cast<double>(mean),
                  static_cast<double>(tolerance));
    }
  }
}

// One tensor of one element with a given exponent: what does the step decide?
SumDecision DecideFor(float g, int32_t exponent, int32_t* next = nullptr) {
  Sum sum({1});
  sum.Begin(1, std::vector<int32_t>{exponent});
  sum.AddGradient(0, std::vector<float>{g});
  const SumDecision decision = sum.Decide();
  if (next != nullptr) *next = sum->exponents()[0];
  return decision;
}

TEST(ExactGradientSumTest, RedoesOutsideTheWindowOnly) {
  const int32_t e = 5;
  EXPECT_EQ(DecideFor(0x1p5f, e), SumDecision::kAccept);
  EXPECT_EQ(DecideFor(std::nextafter(0x1p5f, kInf), e), SumDecision::kRedo);
  EXPECT_EQ(DecideFor(-0x1p6f, e), SumDecision::kRedo);
  EXPECT_EQ(DecideFor(0x1p-19f, e), SumDecision::kAccept);
  EXPECT_EQ(DecideFor(std::nextafter(0x1p-19f, 0.0f), e), SumDecision::kRedo);
}

TEST(ExactGradientSumTest, TheNextExponentFollowsFromTheMaximumAlone) {
  int32_t accepted = 0, redone = 0;
  EXPECT_EQ(DecideFor(3.0f, 10, &accepted), SumDecision::kAccept);
  EXPECT_EQ(DecideFor(3.0f, 60, &redone), SumDecision::kRedo);
  EXPECT_EQ(accepted, 2 + kExponentHeadroom);
  EXPECT_EQ(redone, accepted);
}

TEST(ExactGradientSumTest, ZerosKeepTheExponentAndCauseNoRedo) {
  int32_t next = 0;
  EXPECT_EQ(DecideFor(0.0f, kUnsetExponent, &next), SumDecision::kAccept);
  EXPECT_EQ(next, kUnsetExponent);
  EXPECT_EQ(DecideFor(-0.0f, 9, &next), SumDecision::kAccept);
  EXPECT_EQ(next, 9);
}

TEST(ExactGradientSumTest, ExtremeFloatsHaveExponents) {
  for (const float g : {std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min(),
                        std::numeric_limits<float>::min()}) {
    int32_t exponent = 0;
    ASSERT_EQ(DecideFor(g, kUnsetExponent, &exponent), SumDecision::kRedo);
    Sum sum({1});
    sum.Begin(1, std::vector<int32_t>{exponent});
    sum.AddGradient(0, std::vector<float>{g});
    ASSERT_EQ(sum.Decide(), SumDecision::kAccept);
    std::vector<float> mean(1);
    sum.MeanGradients(1.0, mean);
    EXPECT_EQ(mean[0], g);
  }
}

TEST(ExactGradientSumTest, OnePoisonedElementPoisonsTheStepAndChangesNoExponent) {
  for (const float poison : {kNan, -kNan, kInf, -kInf}) {
    Sum sum({3, 2});
    sum.Begin(2, std::vector<int32_t>{4, kUnsetExponent});
    sum.AddGradient(0, std::vector<float>{1, poison, 2});
    sum.AddGradient(0, std::vector<float>{1, 1, 1});  // clean ones don't hide it
    sum.AddGradient(1, std::vector<float>{1, 1});
    EXPECT_EQ(sum.Decide(), SumDecision::kNonFinite);
    EXPECT_EQ(sum->exponents(), (std::vector<int32_t>{4, kUnsetExponent}));
  }
}

TEST(ExactGradientSumTest, ALossThatIsNotFiniteOrFarTooLargePoisonsTheStep) {
  for (const double loss : {std::numeric_limits<double>::quiet_NaN(),
                            std::numeric_limits<double>::infinity(), -1e30, 0x1p38 + 1}) {
    Sum sum({1});
    sum.Begin(1, std::vector<int32_t>{0});
    sum.AddScalars({.loss_sum = loss, .target_tokens = 1});
    EXPECT_EQ(sum.Decide(), SumDecision::kNonFinite) << loss;
  }
  Sum sum({1});
  sum.Begin(1, std::vector<int32_t>{0});
  sum.AddScalars({.loss_sum = 0x1p38, .target_tokens = 1});
  EXPECT_EQ(sum.Decide(), SumDecision::kAccept);
  sum.Integers();
  EXPECT_EQ(sum->scalars().loss_sum, 0x1p38);
}

TEST(ExactGradientSumTest, BeginForgetsTheLastPass) {
  Sum sum({2});
  sum.Begin(1, std::vector<int32_t>{3});
  sum.AddGradient(0, std::vector<float>{5, kNan});
  sum.AddScalars({.loss_sum = 5, .target_tokens = 3, .tokens = 2, .rows = 1});
  sum.Begin(1, sum->exponents());
  EXPECT_EQ(sum.Decide(), SumDecision::kAccept);
  EXPECT_THAT(sum.Integers(), ::testing::Each(0));
}

}  // namespace
}  // namespace tundra
