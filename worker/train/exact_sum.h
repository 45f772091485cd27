// Sums of gradients that do not depend on their order: the reason why an
// adapter's bytes are the same for any number of ranks.
//
// Each gradient of a micro-batch becomes an integer before anything is added:
//
//   q = round_to_nearest_even(g · 2^(62 − ⌈log2 M⌉ − e))        (Quantize)
//
// where M is the number of micro-batches in the step over all ranks and e the
// tensor's exponent. |g| <= 2^e gives |q| <= 2^(62 − ⌈log2 M⌉), so a sum of M of
// them is at most 2^62 in size and cannot overflow, in whatever order and over
// however many ranks it is taken. g is a float and the factor a power of two, so
// the product is exact in double, and rounding it is the only rounding there is.
//
// A step goes so (all ranks alike):
//
//   sum.Begin(M, exponents)
//   for each own micro-batch: sum.AddGradients(tensors, g) … ; sum.AddScalars(…)
//   collective.AllReduceMax(sum.Maxima())
//   sum.Decide():  kNonFinite  skip the step, count it
//                  kRedo       exponents are set anew: Begin again, same step
//                  kAccept     collective.AllReduceSum(sum.Integers()), sum.Reduced(),
//                              sum.MeanGradients(…)
//
// The work on elements is done by the device (Ops::AddGradients, MeanGradients), for many
// tensors in one call; here are the exponents, the scalars and the decision.
//
// The exponent after a step is ⌈log2 max⌉ + 12 of that step's largest |g| over all
// ranks. A maximum over 2^e or under 2^(e−24) is redone with the new exponent; a
// tensor of zeros keeps its exponent, or its want of one, and is never redone.
// So exponents are a function of the data alone. They belong to the job's state.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/mirror.h"
#include "worker/ops/ops.h"

namespace tundra {

// A tensor whose gradient has been nothing but zeros so far.
inline constexpr int32_t kUnsetExponent = std::numeric_limits<int32_t>::min();
inline constexpr int kExponentHeadroom = 12;
inline constexpr int kExponentWindow = 24;
// Micro-batches in a step, at most.
inline constexpr int64_t kMaxMicroBatches = int64_t{1} << 30;
// Fraction bits of the loss sum: steps of 2^-24 nats, at most 2^38 nats a step.
inline constexpr int kLossFractionBits = 24;

// ⌈log2 n⌉ for n >= 1.
int CeilLog2(int64_t n);
// ⌈log2 x⌉ for finite x > 0, exactly, subnormals included.
int CeilLog2(float x);

// The exponent that a step with largest |g| = max leaves; max finite and > 0.
// In [-137, 140].
int32_t ExponentFor(float max);

// 2^(62 − ⌈log2 M⌉ − e), a power of two well inside double's range.
double QuantizeScale(int32_t exponent, int64_t micro_batches);

enum class SumDecision { kAccept, kRedo, kNonFinite };

// What is summed beside gradients, over the micro-batches of a step.
struct StepScalars {
  double loss_sum = 0;        // nats, summed over target tokens
  int64_t target_tokens = 0;  // tokens that have a loss
  int64_t tokens = 0;         // tokens of rows, padding left out
  int64_t rows = 0;
};

// The sums of one step of one job. Used by one thread; the device's threads work inside a
// call. Errors of all calls with a Ctx: those of the device.
class ExactGradientSum {
 public:
  // tensor_sizes: elements of each adapter tensor, in the adapter's order. `ops` outlives
  // the sum. Errors: kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<ExactGradientSum>> Create(
      Ops* ops, std::vector<int64_t> tensor_sizes);
  ExactGradientSum(const ExactGradientSum&) = delete;
  ExactGradientSum& operator=(const ExactGradientSum&) = delete;

  // Zeroes everything. exponents: one a tensor, or kUnsetExponent; kept (copied).
  // 1 <= micro_batches <= kMaxMicroBatches, counted over all ranks.
  absl::Status Begin(Ctx ctx, int64_t micro_batches, std::span<const int32_t> exponents);

  // Adds one micro-batch's gradients of its summed loss: those of tensors [first, first + count),
  // a vector, f32. Each tensor at most once a micro-batch.
  absl::Status AddGradients(Ctx ctx, int first, int count, ConstView g);
  // Adds one micro-batch's loss and counts. A loss that is not finite, or over
  // 2^(38 − ⌈log2 M⌉) nats, makes the step non-finite.
  void AddScalars(const StepScalars& scalars);

  // To be max-reduced first: largest |g| of each tensor, then one for the loss
  // (NaN when it is not finite).
  absl::StatusOr<std::span<float>> Maxima(Ctx ctx);
  // After the maxima were reduced: decides, and sets exponents() for the redo
  // (kRedo) or for the next step (kAccept). kNonFinite leaves them.
  SumDecision Decide();
  const std::vector<int32_t>& exponents() const { return exponents_; }

  // To be sum-reduced once the step is accepted: every tensor's integers, flat,
  // then loss, target tokens, tokens, rows. Reduced() takes them back to the device.
  absl::StatusOr<std::span<int64_t>> Integers(Ctx ctx);
  absl::Status Reduced(Ctx ctx) { return integers_mirror_.Push(ctx); }

  // The same for a collective that takes device memory: the span is the device's.
  absl::StatusOr<std::span<int64_t>> IntegersOnDevice(Ctx ctx);
  absl::Status ReducedOnDevice(Ctx ctx);

  // Instead of either, where there is one rank: the sums are what they are.
  void ReducedAlone();

  // After one of these.
  StepScalars scalars() const;
  // mean := Σg / divisor, f32, a vector of all tensors' elements, divisor > 0. Returns the
  // squared norm of each tensor of it. Scratch: MeanScratchBytes of all tensors.
  absl::StatusOr<std::span<const double>> MeanGradients(Ctx ctx, double divisor, View mean);

  int tensors() const { return static_cast<int>(offsets_.size()) - 1; }

 private:
  ExactGradientSum(Ops* ops, const std::vector<int64_t>& tensor_sizes);
  absl::Status Init();
  Tensors TensorsOf(int first, int count);

  Ops* const ops_;
  std::vector<int64_t> offsets_;  // of each tensor in integers_, and their end
  std::vector<double> scales_;    // of this pass, one a tensor; 0 without an exponent
  std::vector<double> norms_;
  int64_t micro_batches_ = 1;
  std::vector<int32_t> used_;       // exponents of this pass
  std::vector<int32_t> exponents_;  // after Decide: of the next pass
  float loss_flag_ = 0;
  std::array<int64_t, 4> scalar_sums_ = {};
  std::vector<float> maxima_;      // one a tensor, then the loss's
  std::vector<int64_t> integers_;  // every tensor's, then the scalars
  Mirror<int64_t> offsets_mirror_;
  Mirror<double> scales_mirror_, norms_mirror_;
  Mirror<float> maxima_mirror_;
  Mirror<int64_t> integers_mirror_;
};

}  // namespace tundra
