// Learning rate schedules, exactly as Transformers' get_*_schedule_with_warmup.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace tundra {

enum class ScheduleKind { kConstant, kConstantWithWarmup, kLinear, kCosine };

// "constant", "constant_with_warmup", "linear", "cosine".
// Errors: kInvalidArgument, naming those.
absl::StatusOr<ScheduleKind> ParseScheduleKind(std::string_view name);

// ceil(ratio × steps), as TrainingArguments.get_warmup_steps. 0 <= ratio <= 1.
int64_t WarmupSteps(double ratio, int64_t total_steps);

// The factor on the learning rate for optimizer step `step` (from 0). With
// warm-up the first is 0. kConstant has no warm-up, whatever warmup_steps says.
double ScheduleFactor(ScheduleKind kind, int64_t step, int64_t warmup_steps, int64_t total_steps);

}  // namespace tundra
