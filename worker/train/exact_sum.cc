#include "worker/train/exact_sum.h"

#include <algorithm>
#include <bit>
#include <cstddef>

#include "common/check.h"

namespace tundra {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kSumBits = 62;
constexpr double kLossScale = static_cast<double>(int64_t{1} << kLossFractionBits);

// The scalars' places after the tensors in integers_.
enum Scalar : int64_t { kLoss, kTargetTokens, kTokens, kRows, kScalars };

int64_t Add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// Below this many elements threads cost more than they bring.
constexpr int64_t kParallelElements = 1 << 15;

int ThreadsFor(int64_t elements, int threads) {
  return elements < kParallelElements ? 1 : std::max(1, threads);
}

// Compares as unsigned integers: |x| of floats is ordered by its bits, infinity is
// above all numbers and every NaN above infinity. So one integer maximum finds the
// largest and lets NaN win, whatever the order.
uint32_t AbsBits(float x) { return std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu; }

float FromAbsBits(uint32_t bits) {
  const float x = std::bit_cast<float>(bits);
  return x == x ? x : kNan;
}

}  // namespace

int CeilLog2(int64_t n) {
  TUNDRA_CHECK(n >= 1) << "CeilLog2 of " << n;
  return static_cast<int>(std::bit_width(static_cast<uint64_t>(n) - 1));
}

int CeilLog2(float x) {
  TUNDRA_CHECK(x > 0 && std::isfinite(x)) << "CeilLog2 of " << x;
  int exponent = 0;
  const float fraction = std::frexp(x, &exponent);  // in [0.5, 1)
  return fraction == 0.5f ? exponent - 1 : exponent;
}

int32_t ExponentFor(float max) { return CeilLog2(max) + kExponentHeadroom; }

double QuantizeScale(int32_t exponent, int64_t micro_batches) {
  TUNDRA_CHECK(exponent >= -1000 && exponent <= 1000) << "exponent " << exponent;
  return std::ldexp(1.0, kSumBits - CeilLog2(micro_batches) - exponent);
}

float AccumulateQuantized(std::span<const float> g, double scale, std::span<int64_t> sum,
                          int threads) {
  TUNDRA_CHECK(g.size() == sum.size()) << g.size() << " gradients, " << sum.size() << " sums";
  const auto n = static_cast<int64_t>(g.size());
  const float* in = g.data();
  int64_t* out = sum.data();
  uint32_t largest = 0;
#pragma omp parallel for num_threads(ThreadsFor(n, threads)) schedule(static) reduction(max \
                                                                                        : largest)
  for (int64_t i = 0; i < n; ++i) {
    out[i] = Add(out[i], Quantize(in[i], scale));
    largest = std::max(largest, AbsBits(in[i]));
  }
  return FromAbsBits(largest);
}

float MaxAbs(std::span<const float> g, int threads) {
  const auto n = static_cast<int64_t>(g.size());
  const float* in = g.data();
  uint32_t largest = 0;
#pragma omp parallel for num_threads(ThreadsFor(n, threads)) schedule(static) reduction(max \
                                                                                        : largest)
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, AbsBits(in[i]));
  return FromAbsBits(largest);
}

void Dequantize(std::span<const int64_t> sum, double scale, double divisor, std::span<float> mean,
                int threads) {
  TUNDRA_CHECK(sum.size() == mean.size()) << sum.size() << " sums, " << mean.size() << " means";
  TUNDRA_CHECK(divisor > 0) << "divisor " << divisor;
  const auto n = static_cast<int64_t>(sum.size());
  const double inverse = 1.0 / scale;  // exact: a power of two
  const int64_t* in = sum.data();
  float* out = mean.data();
#pragma omp parallel for num_threads(ThreadsFor(n, threads)) schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>(static_cast<double>(in[i]) * inverse / divisor);
  }
}

ExactGradientSum::ExactGradientSum(std::vector<int64_t> tensor_sizes, int threads)
    : threads_(threads) {
  offsets_.push_back(0);
  for (const int64_t size : tensor_sizes) {
    TUNDRA_CHECK(size >= 0) << "a tensor of " << size << " elements";
    offsets_.push_back(offsets_.back() + size);
  }
  used_.assign(tensor_sizes.size(), kUnsetExponent);
  exponents_ = used_;
  maxima_.assign(tensor_sizes.size() + 1, 0.0f);
  integers_.assign(static_cast<size_t>(offsets_.back() + kScalars), 0);
}

void ExactGradientSum::Begin(int64_t micro_batches, std::span<const int32_t> exponents) {
  TUNDRA_CHECK(micro_batches >= 1 && micro_batches <= kMaxMicroBatches)
      << micro_batches << " micro-batches";
  TUNDRA_CHECK(exponents.size() == used_.size())
      << exponents.size() << " exponents for " << used_.size() << " tensors";
  micro_batches_ = micro_batches;
  std::vector<int32_t> kept(exponents.begin(), exponents.end());  // may be exponents_ itself
  used_ = kept;
  exponents_ = std::move(kept);
  std::fill(maxima_.begin(), maxima_.end(), 0.0f);
  std::fill(integers_.begin(), integers_.end(), 0);
}

void ExactGradientSum::AddGradient(int tensor, std::span<const float> g) {
  TUNDRA_CHECK(tensor >= 0 && tensor < tensors()) << "tensor " << tensor;
  const auto t = static_cast<size_t>(tensor);
  const int64_t size = offsets_[t + 1] - offsets_[t];
  TUNDRA_CHECK(static_cast<int64_t>(g.size()) == size)
      << "tensor " << tensor << " has " << size << " elements, its gradient " << g.size();
  // Without an exponent there is only a maximum to find; the step is redone unless
  // that is zero.
  const float largest =
      used_[t] == kUnsetExponent
          ? MaxAbs(g, threads_)
          : AccumulateQuantized(g, QuantizeScale(used_[t], micro_batches_),
                                std::span(integers_).subspan(static_cast<size_t>(offsets_[t]),
                                                             static_cast<size_t>(size)),
                                threads_);
  maxima_[t] = FromAbsBits(std::max(AbsBits(maxima_[t]), AbsBits(largest)));
}

void ExactGradientSum::AddScalars(const StepScalars& scalars) {
  const double limit = std::ldexp(1.0, kSumBits - CeilLog2(micro_batches_) - kLossFractionBits);
  float& flag = maxima_.back();
  int64_t* sums = integers_.data() + offsets_.back();
  if (std::fabs(scalars.loss_sum) <= limit) {
    sums[kLoss] = Add(sums[kLoss], std::llrint(scalars.loss_sum * kLossScale));
    flag = FromAbsBits(
        std::max(AbsBits(flag), AbsBits(static_cast<float>(std::fabs(scalars.loss_sum)))));
  } else {
    flag = kNan;
  }
  sums[kTargetTokens] = Add(sums[kTargetTokens], scalars.target_tokens);
  sums[kTokens] = Add(sums[kTokens], scalars.tokens);
  sums[kRows] = Add(sums[kRows], scalars.rows);
}

SumDecision ExactGradientSum::Decide() {
  for (const float max : maxima_) {
    if (!std::isfinite(max)) return SumDecision::kNonFinite;
  }
  bool redo = false;
  for (size_t t = 0; t < used_.size(); ++t) {
    const float max = maxima_[t];
    if (max == 0) continue;  // zeros are exact under any exponent
    const int32_t e = used_[t];
    // max > 2^e  <=>  ⌈log2 max⌉ > e.  max < 2^(e−24) is compared in double, which
    // holds both exactly.
    redo = redo || e == kUnsetExponent || CeilLog2(max) > e ||
           static_cast<double>(max) < std::ldexp(1.0, e - kExponentWindow);
    exponents_[t] = ExponentFor(max);
  }
  return redo ? SumDecision::kRedo : SumDecision::kAccept;
}

StepScalars ExactGradientSum::scalars() const {
  const int64_t* sums = integers_.data() + offsets_.back();
  return {.loss_sum = static_cast<double>(sums[kLoss]) / kLossScale,
          .target_tokens = sums[kTargetTokens],
          .tokens = sums[kTokens],
          .rows = sums[kRows]};
}

void ExactGradientSum::MeanGradient(int tensor, double divisor, std::span<float> mean) const {
  TUNDRA_CHECK(tensor >= 0 && tensor < tensors()) << "tensor " << tensor;
  const auto t = static_cast<size_t>(tensor);
  if (used_[t] == kUnsetExponent) {  // nothing but zeros
    std::fill(mean.begin(), mean.end(), 0.0f);
    return;
  }
  Dequantize(std::span(integers_).subspan(static_cast<size_t>(offsets_[t]),
                                          static_cast<size_t>(offsets_[t + 1] - offsets_[t])),
             QuantizeScale(used_[t], micro_batches_), divisor, mean, threads_);
}

}  // namespace tundra
