#include "worker/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "common/check.h"

namespace tundra {
namespace {

constexpr int64_t kBlock = 4096;
constexpr int kLanes = 8;
// Below this many elements threads cost more than they bring.
constexpr int64_t kParallelElements = 1 << 15;

int ThreadsFor(int64_t elements, int threads) {
  return elements < kParallelElements ? 1 : std::max(1, threads);
}

double BlockSumOfSquares(const float* x, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = x[i + lane];
      lanes[lane] += value * value;
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) {
    const double value = x[i];
    lanes[lane] += value * value;
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

void AdamWUpdate(const AdamWOptions& options, double learning_rate, int64_t step,
                 std::span<const float> grad, std::span<float> weight, std::span<float> moment1,
                 std::span<float> moment2, int threads) {
  TUNDRA_CHECK(step >= 1) << "AdamW counts steps from 1, got " << step;
  TUNDRA_CHECK(weight.size() == grad.size() && moment1.size() == grad.size() &&
               moment2.size() == grad.size())
      << "AdamW on " << grad.size() << " gradients, " << weight.size() << " weights, "
      << moment1.size() << " and " << moment2.size() << " moments";
  const double t = static_cast<double>(step);
  const double correction1 = 1.0 - std::pow(options.beta1, t);
  const double correction2 = 1.0 - std::pow(options.beta2, t);
  const auto keep = static_cast<float>(1.0 - learning_rate * options.weight_decay);
  const auto new1 = static_cast<float>(1.0 - options.beta1);
  const auto old2 = static_cast<float>(options.beta2);
  const auto new2 = static_cast<float>(1.0 - options.beta2);
  const auto root2 = static_cast<float>(std::sqrt(correction2));
  const auto epsilon = static_cast<float>(options.epsilon);
  const auto rate = static_cast<float>(learning_rate / correction1);
  const auto n = static_cast<int64_t>(grad.size());
  const float* g = grad.data();
  float* w = weight.data();
  float* m = moment1.data();
  float* v = moment2.data();
#pragma omp parallel for simd num_threads(ThreadsFor(n, threads)) schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    m[i] = m[i] + new1 * (g[i] - m[i]);
    v[i] = old2 * v[i] + new2 * g[i] * g[i];
    const float denominator = std::sqrt(v[i]) / root2 + epsilon;
    w[i] = w[i] * keep - rate * m[i] / denominator;
  }
}

double SumOfSquares(std::span<const float> grad, int threads) {
  const auto n = static_cast<int64_t>(grad.size());
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> sums(static_cast<size_t>(blocks));
  const float* x = grad.data();
  double* out = sums.data();
#pragma omp parallel for num_threads(ThreadsFor(n, threads)) schedule(static)
  for (int64_t b = 0; b < blocks; ++b) {
    out[b] = BlockSumOfSquares(x + b * kBlock, std::min(kBlock, n - b * kBlock));
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

double GlobalNorm(std::span<const std::span<const float>> grads, int threads) {
  double total = 0;
  for (const std::span<const float> grad : grads) total += SumOfSquares(grad, threads);
  return std::sqrt(total);
}

double ClipCoefficient(double norm, double max_norm) {
  if (max_norm <= 0) return 1.0;
  const double coefficient = max_norm / (norm + 1e-6);
  return coefficient > 1.0 ? 1.0 : coefficient;
}

void ScaleGradient(std::span<float> grad, double coefficient, int threads) {
  if (coefficient == 1.0) return;
  const auto factor = static_cast<float>(coefficient);
  const auto n = static_cast<int64_t>(grad.size());
  float* g = grad.data();
#pragma omp parallel for simd num_threads(ThreadsFor(n, threads)) schedule(static)
  for (int64_t i = 0; i < n; ++i) g[i] *= factor;
}

}  // namespace tundra
