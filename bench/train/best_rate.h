// How fast each of a step's matrix products can go: one call of its shape, on the same
// backend and with the same weight, repeated by itself.
#pragma once

#include <functional>
#include <map>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/train/profiled_ops.h"

namespace tundra::bench {

struct BestRateOptions {
  // A shape is repeated for about this long, at least thrice.
  absl::Duration each = absl::Milliseconds(150);
  // Told the number of shapes done and of all.
  std::function<void(size_t done, size_t all)> progress = [](size_t, size_t) {};
};

// Seconds of the fastest call of each shape, over its repetitions here and its calls in the
// profile. The profile's weights must still be there; other operands are random.
// Errors: kResourceExhausted when operands don't fit, those of the operations.
absl::StatusOr<std::map<ProductShape, double>> MeasureBestSeconds(Ops* ops, const Profile& profile,
                                                                  const BestRateOptions& options);

}  // namespace tundra::bench
