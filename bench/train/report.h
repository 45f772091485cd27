// A bench's result as tables for people and as JSON for scripts.
#pragma once

#include <string>

#include "bench/train/train_bench.h"
#include "nlohmann/json.hpp"

namespace tundra::bench {

std::string ReportText(const TrainBenchResult& result);

// Times in seconds, rates in 1/s, sizes in bytes; the keys name their units. docs/performance.md
// says what each figure means.
nlohmann::json ReportJson(const TrainBenchResult& result);

// "f32", "bf16".
std::string_view PrecisionName(Precision precision);

}  // namespace tundra::bench
