// AdamW and gradient clipping as PyTorch defines them, in fp32 with a fixed
// order of operations, so that any number of threads gives the same bits.
//
// reference: torch.optim.AdamW (decoupled weight decay, eps outside the root of
// the corrected second moment), torch.nn.utils.clip_grad_norm_.
#pragma once

#include <cstdint>
#include <span>

namespace tundra {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

// One update of one tensor, all spans of one size:
//   w := w · (1 − lr · weight_decay)
//   m := m + (1 − β1) · (g − m)
//   v := β2 · v + (1 − β2) · g · g
//   w := w − lr / (1 − β1^t) · m / (√v / √(1 − β2^t) + ε)
// step is t >= 1, the number of updates including this one. Scalars are computed
// in double, rounded to fp32 once; elements in fp32.
void AdamWUpdate(const AdamWOptions& options, double learning_rate, int64_t step,
                 std::span<const float> grad, std::span<float> weight, std::span<float> moment1,
                 std::span<float> moment2, int threads = 1);

// Σ g² over one tensor in double: blocks of 4096 elements, each in 8 lanes, added
// in order.
double SumOfSquares(std::span<const float> grad, int threads = 1);

// √ Σ g² over all tensors, in the order given.
double GlobalNorm(std::span<const std::span<const float>> grads, int threads = 1);

// max_norm / (norm + 1e-6), at most 1; 1 when max_norm <= 0 (no clipping).
// NaN norm gives NaN.
double ClipCoefficient(double norm, double max_norm);

// g := g · float(coefficient); nothing when it is 1.
void ScaleGradient(std::span<float> grad, double coefficient, int threads = 1);

}  // namespace tundra
