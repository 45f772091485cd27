#include "worker/train/exact_sum.h"

#include <algorithm>
#include <bit>
#include <cmath>
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

absl::StatusOr<std::unique_ptr<ExactGradientSum>> ExactGradientSum::Create(
    Ops* ops, std::vector<int64_t> tensor_sizes) {
  std::unique_ptr<ExactGradientSum> sum(new ExactGradientSum(ops, tensor_sizes));
  RETURN_IF_ERROR(sum->Init());
  return sum;
}

absl::Status ExactGradientSum::Init() {
  Device* device = ops_->device();
  ASSIGN_OR_RETURN(offsets_mirror_, Mirror<int64_t>::Create(device, &offsets_));
  ASSIGN_OR_RETURN(scales_mirror_, Mirror<double>::Create(device, &scales_));
  ASSIGN_OR_RETURN(norms_mirror_, Mirror<double>::Create(device, &norms_));
  ASSIGN_OR_RETURN(maxima_mirror_, Mirror<float>::Create(device, &maxima_));
  ASSIGN_OR_RETURN(integers_mirror_, Mirror<int64_t>::Create(device, &integers_));
  ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, device->CreateStream());
  return offsets_mirror_.Push({stream.get(), nullptr});
}

ExactGradientSum::ExactGradientSum(Ops* ops, const std::vector<int64_t>& tensor_sizes) : ops_(ops) {
  offsets_.push_back(0);
  for (const int64_t size : tensor_sizes) {
    TUNDRA_CHECK(size >= 0) << "a tensor of " << size << " elements";
    offsets_.push_back(offsets_.back() + size);
  }
  used_.assign(tensor_sizes.size(), kUnsetExponent);
  exponents_ = used_;
  scales_.assign(tensor_sizes.size(), 0.0);
  norms_.assign(tensor_sizes.size(), 0.0);
  maxima_.assign(tensor_sizes.size() + 1, 0.0f);
  integers_.assign(static_cast<size_t>(offsets_.back() + kScalars), 0);
}

Tensors ExactGradientSum::TensorsOf(int first, int count) {
  TUNDRA_CHECK(first >= 0 && count >= 0 && count <= tensors() - first)
      << "tensors " << first << " to " << first + count;
  return {offsets_mirror_.view(first, count + 1), count};
}

absl::Status ExactGradientSum::Begin(Ctx ctx, int64_t micro_batches,
                                     std::span<const int32_t> exponents) {
  TUNDRA_CHECK(micro_batches >= 1 && micro_batches <= kMaxMicroBatches)
      << micro_batches << " micro-batches";
  TUNDRA_CHECK(exponents.size() == used_.size())
      << exponents.size() << " exponents for " << used_.size() << " tensors";
  micro_batches_ = micro_batches;
  std::vector<int32_t> kept(exponents.begin(), exponents.end());  // may be exponents_ itself
  used_ = kept;
  exponents_ = std::move(kept);
  loss_flag_ = 0;
  scalar_sums_.fill(0);
  // Without an exponent there is only a maximum to find; the step is redone unless that is zero.
  for (size_t t = 0; t < used_.size(); ++t) {
    scales_[t] = used_[t] == kUnsetExponent ? 0.0 : QuantizeScale(used_[t], micro_batches);
  }
  RETURN_IF_ERROR(scales_mirror_.Push(ctx));
  const View maxima = maxima_mirror_.view(), integers = integers_mirror_.view();
  RETURN_IF_ERROR(ops_->device()->Zero(ctx, maxima.data, maxima.bytes()));
  return ops_->device()->Zero(ctx, integers.data, integers.bytes());
}

absl::Status ExactGradientSum::AddGradients(Ctx ctx, int first, int count, ConstView g) {
  const Tensors part = TensorsOf(first, count);
  const int64_t begin = offsets_[static_cast<size_t>(first)];
  const int64_t elements = offsets_[static_cast<size_t>(first + count)] - begin;
  TUNDRA_CHECK(g.size() == elements) << count << " tensors from " << first << " on have "
                                     << elements << " elements, not " << g.size();
  return ops_->AddGradients(ctx, part, g.Flat(), scales_mirror_.view(first, count),
                            maxima_mirror_.view(first, count),
                            integers_mirror_.view(begin, elements));
}

void ExactGradientSum::AddScalars(const StepScalars& scalars) {
  const double limit = std::ldexp(1.0, kSumBits - CeilLog2(micro_batches_) - kLossFractionBits);
  if (std::fabs(scalars.loss_sum) <= limit) {
    scalar_sums_[kLoss] = Add(scalar_sums_[kLoss], std::llrint(scalars.loss_sum * kLossScale));
    loss_flag_ = FromAbsBits(
        std::max(AbsBits(loss_flag_), AbsBits(static_cast<float>(std::fabs(scalars.loss_sum)))));
  } else {
    loss_flag_ = kNan;
  }
  scalar_sums_[kTargetTokens] = Add(scalar_sums_[kTargetTokens], scalars.target_tokens);
  scalar_sums_[kTokens] = Add(scalar_sums_[kTokens], scalars.tokens);
  scalar_sums_[kRows] = Add(scalar_sums_[kRows], scalars.rows);
}

absl::StatusOr<std::span<float>> ExactGradientSum::Maxima(Ctx ctx) {
  RETURN_IF_ERROR(maxima_mirror_.Pull(ctx));
  maxima_.back() = loss_flag_;
  return std::span<float>(maxima_);
}

absl::StatusOr<std::span<int64_t>> ExactGradientSum::Integers(Ctx ctx) {
  RETURN_IF_ERROR(integers_mirror_.Pull(ctx));
  std::copy(scalar_sums_.begin(), scalar_sums_.end(), integers_.end() - kScalars);
  return std::span<int64_t>(integers_);
}

absl::StatusOr<std::span<int64_t>> ExactGradientSum::IntegersOnDevice(Ctx ctx) {
  const View scalars = integers_mirror_.view(offsets_.back(), kScalars);
  RETURN_IF_ERROR(ops_->device()->CopyIn(ctx, scalars.data, scalar_sums_.data(), scalars.bytes()));
  return std::span<int64_t>(static_cast<int64_t*>(integers_mirror_.view().data), integers_.size());
}

absl::Status ExactGradientSum::ReducedOnDevice(Ctx ctx) {
  const View scalars = integers_mirror_.view(offsets_.back(), kScalars);
  RETURN_IF_ERROR(ops_->device()->CopyOut(ctx, integers_.data() + offsets_.back(), scalars.data,
                                          scalars.bytes()));
  return ops_->device()->Synchronize(ctx);
}

void ExactGradientSum::ReducedAlone() {
  std::copy(scalar_sums_.begin(), scalar_sums_.end(), integers_.end() - kScalars);
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

absl::StatusOr<std::span<const double>> ExactGradientSum::MeanGradients(Ctx ctx, double divisor,
                                                                        View mean) {
  TUNDRA_CHECK(divisor > 0 && mean.size() == offsets_.back()) << "divisor " << divisor;
  RETURN_IF_ERROR(
      ops_->MeanGradients(ctx, TensorsOf(0, tensors()), integers_mirror_.view(0, offsets_.back()),
                          scales_mirror_.view(), divisor, mean.Flat(), norms_mirror_.view()));
  RETURN_IF_ERROR(norms_mirror_.Pull(ctx));
  return std::span<const double>(norms_);
}

}  // namespace tundra
