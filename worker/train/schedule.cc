// reference: transformers/optimization.py (get_constant_schedule,
// get_constant_schedule_with_warmup, get_linear_schedule_with_warmup,
// get_cosine_schedule_with_warmup with num_cycles = 0.5).
#include "worker/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace tundra {

absl::StatusOr<ScheduleKind> ParseScheduleKind(std::string_view name) {
  if (name == "constant") return ScheduleKind::kConstant;
  if (name == "constant_with_warmup") return ScheduleKind::kConstantWithWarmup;
  if (name == "linear") return ScheduleKind::kLinear;
  if (name == "cosine") return ScheduleKind::kCosine;
  return absl::InvalidArgumentError(
      absl::StrCat("lr_scheduler: \"", absl::string_view(name.data(), name.size()),
                   "\" is not one of constant, constant_with_warmup, linear, cosine"));
}

int64_t WarmupSteps(double ratio, int64_t total_steps) {
  TUNDRA_CHECK(ratio >= 0 && ratio <= 1) << "warmup_ratio " << ratio;
  return static_cast<int64_t>(std::ceil(static_cast<double>(total_steps) * ratio));
}

double ScheduleFactor(ScheduleKind kind, int64_t step, int64_t warmup_steps, int64_t total_steps) {
  TUNDRA_CHECK(step >= 0 && warmup_steps >= 0) << "step " << step << ", warm-up " << warmup_steps;
  if (kind == ScheduleKind::kConstant) return 1.0;
  if (step < warmup_steps) {
    return static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup_steps));
  }
  const auto decay_steps = static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
  switch (kind) {
    case ScheduleKind::kConstant:
    case ScheduleKind::kConstantWithWarmup:
      return 1.0;
    case ScheduleKind::kLinear:
      return std::max(0.0, static_cast<double>(total_steps - step) / decay_steps);
    case ScheduleKind::kCosine: {
      const double progress = static_cast<double>(step - warmup_steps) / decay_steps;
      return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * 0.5 * 2.0 * progress)));
    }
  }
  TUNDRA_CHECK(false) << "schedule " << static_cast<int>(kind);
  return 0.0;
}

}  // namespace tundra
