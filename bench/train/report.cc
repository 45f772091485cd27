#include "bench/train/report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace tundra::bench {
namespace {

using nlohmann::json;

double Millis(double seconds) { return seconds * 1e3; }
double Giga(double value) { return value / 1e9; }
double Mega(uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }
double Millions(int64_t count) { return static_cast<double>(count) / 1e6; }
double Rate(double flops, double seconds) { return seconds > 0 ? flops / seconds : 0; }

double Fastest(const TrainBenchResult& r) {
  return *std::min_element(r.step_seconds.begin(), r.step_seconds.end());
}
double Slowest(const TrainBenchResult& r) {
  return *std::max_element(r.step_seconds.begin(), r.step_seconds.end());
}

std::string Head(const TrainBenchResult& r) {
  const TrainBenchOptions& o = r.options;
  std::string out;
  absl::StrAppendFormat(&out, "base        %s%s, %.1f M parameters\n", o.model,
                        r.random_weights ? " with random weights" : "",
                        Millions(r.base_parameters));
  absl::StrAppendFormat(&out, "adapter     rank %d on %s, %.2f M parameters\n", o.rank,
                        absl::StrJoin(o.target_modules, ","), Millions(r.adapter_parameters));
  absl::StrAppendFormat(&out, "step        %d tokens in rows of %d, micro-batches of %d, %s%s\n",
                        o.tokens, o.row_tokens, o.micro_batch_tokens,
                        std::string(PrecisionName(o.precision)),
                        o.precision == Precision::kBF16 && !r.native_bf16
                            ? " (computed in f32: the device has no bf16 products)"
                            : "");
  absl::StrAppendFormat(&out, "device      %s\n", r.device_name);
  absl::StrAppendFormat(&out, "numerics    %s\n", r.numerics_class);
  absl::StrAppendFormat(&out, "loss        %.4f at step 1, %.4f at the last measured step\n\n",
                        r.first_loss, r.last_loss);
  return out;
}

std::string Summary(const TrainBenchResult& r) {
  std::string out;
  absl::StrAppendFormat(&out, "tokens/s    %.1f\n", r.TokensPerSecond());
  absl::StrAppendFormat(
      &out, "step        %.1f ms, the median of %d (fastest %.1f, slowest %.1f)%s\n",
      Millis(r.MedianStepSeconds()), r.step_seconds.size(), Millis(Fastest(r)), Millis(Slowest(r)),
      r.redone > 0 ? absl::StrCat("; ", r.redone, " passes were run again") : "");
  absl::StrAppendFormat(&out, "products    %.2f GFLOP a step, %.1f GFLOP/s\n", Giga(r.Flops()),
                        Giga(Rate(r.Flops(), r.MedianStepSeconds())));
  if (r.BestFrozenRate() > 0) {
    absl::StrAppendFormat(&out,
                          "efficiency  %.1f %%: at the best rate of each shape they take %.1f ms\n",
                          100 * r.Efficiency(), Millis(r.BestProductsSeconds()));
    absl::StrAppendFormat(
        &out, "            %.1f %% of the rate of the fastest frozen product, %.1f GFLOP/s\n",
        100 * r.OfBestFrozenRate(), Giga(r.BestFrozenRate()));
  }
  const MemoryResult& m = r.memory;
  absl::StrAppendFormat(
      &out,
      "memory      process %.0f MB at most; base %.0f MB; device %.0f MB at most, "
      "of which laid-out weights %.0f MB\n",
      Mega(m.process_peak_bytes), Mega(m.base_bytes), Mega(m.device_peak_bytes),
      Mega(m.prepared_bytes));
  absl::StrAppendFormat(&out, "start       %.1f ms to lay out the weights, once\n\n",
                        Millis(r.prepare_seconds));
  return out;
}

std::string Phases(const TrainBenchResult& r) {
  std::string out = absl::StrFormat("%-34s %10s %8s\n", "phase", "ms", "share");
  for (int i = 0; i < kPhases; ++i) {
    const double seconds = r.phase_seconds[static_cast<size_t>(i)];
    absl::StrAppendFormat(&out, "%-34s %10.2f %6.1f %%\n",
                          std::string(PhaseText(static_cast<Phase>(i))), Millis(seconds),
                          100 * seconds / r.profiled_step_seconds);
  }
  absl::StrAppendFormat(&out, "%-34s %10.2f\n\n", "a profiled step",
                        Millis(r.profiled_step_seconds));
  return out;
}

// A figure, or a dash where it was not measured.
std::string OrDash(double value) { return value > 0 ? absl::StrFormat("%.1f", value) : "-"; }

std::string Products(const TrainBenchResult& r) {
  std::string out = absl::StrFormat("%-22s %6s %7s %7s %7s %9s %9s %9s\n", "product", "T", "N", "K",
                                    "a step", "ms each", "GFLOP/s", "at best");
  for (const ProductResult& p : r.products) {
    absl::StrAppendFormat(
        &out, "%-22s %6d %7d %7d %7.0f %9s %9s %9s\n", std::string(ProductKey(p.shape.kind)),
        p.shape.t, p.shape.n, p.shape.k, p.calls_per_step,
        p.step_seconds > 0 ? absl::StrFormat("%.3f", Millis(p.step_seconds)) : "-",
        OrDash(Giga(Rate(p.shape.flops(), p.step_seconds))),
        OrDash(Giga(Rate(p.shape.flops(), p.best_seconds))));
  }
  return out;
}

json ModelJson(const TrainBenchResult& r) {
  return {{"name", r.options.model},
          {"random_weights", r.random_weights},
          {"parameters", r.base_parameters},
          {"vocab", r.config.vocab},
          {"hidden", r.config.hidden},
          {"intermediate", r.config.intermediate},
          {"layers", r.config.layers},
          {"heads", r.config.heads},
          {"kv_heads", r.config.kv_heads},
          {"head_dim", r.config.head_dim},
          {"tied", r.config.tied}};
}

json OptionsJson(const TrainBenchResult& r) {
  const TrainBenchOptions& o = r.options;
  return {{"precision", std::string(PrecisionName(o.precision))},
          {"tokens", o.tokens},
          {"row_tokens", o.row_tokens},
          {"micro_batch_tokens", o.micro_batch_tokens},
          {"rank", o.rank},
          {"target_modules", o.target_modules},
          {"threads", o.threads},
          {"warm_up", o.warm_up},
          {"steps", o.steps},
          {"profiled_steps", o.profiled_steps},
          {"seed", o.seed}};
}

json ProductsJson(const TrainBenchResult& r) {
  json products = json::array();
  for (const ProductResult& p : r.products) {
    products.push_back({{"kind", std::string(ProductKey(p.shape.kind))},
                        {"t", p.shape.t},
                        {"n", p.shape.n},
                        {"k", p.shape.k},
                        {"attention_pairs", p.shape.pairs},
                        {"calls_per_step", p.calls_per_step},
                        {"flops", p.shape.flops()},
                        {"step_seconds", p.step_seconds},
                        {"best_seconds", p.best_seconds}});
  }
  return products;
}

}  // namespace

std::string_view PrecisionName(Precision precision) {
  return precision == Precision::kBF16 ? "bf16" : "f32";
}

std::string ReportText(const TrainBenchResult& result) {
  return absl::StrCat(Head(result), Summary(result), Phases(result), Products(result));
}

json ReportJson(const TrainBenchResult& r) {
  json phases = json::object();
  for (int i = 0; i < kPhases; ++i) {
    phases[std::string(PhaseKey(static_cast<Phase>(i)))] = r.phase_seconds[static_cast<size_t>(i)];
  }
  return {{"model", ModelJson(r)},
          {"options", OptionsJson(r)},
          {"device",
           {{"name", r.device_name},
            {"numerics_class", r.numerics_class},
            {"native_bf16", r.native_bf16}}},
          {"adapter_parameters", r.adapter_parameters},
          {"recompute", r.recompute == Recompute::kFull ? "full" : "none"},
          {"target_tokens", r.target_tokens},
          {"first_loss", r.first_loss},
          {"last_loss", r.last_loss},
          {"redone_passes", r.redone},
          {"tokens_per_second", r.TokensPerSecond()},
          {"step_seconds",
           {{"median", r.MedianStepSeconds()},
            {"fastest", Fastest(r)},
            {"slowest", Slowest(r)},
            {"all", r.step_seconds}}},
          {"flops_per_step", r.Flops()},
          {"best_products_seconds", r.BestProductsSeconds()},
          {"efficiency", r.Efficiency()},
          {"best_frozen_flops_per_second", r.BestFrozenRate()},
          {"of_best_frozen_rate", r.OfBestFrozenRate()},
          {"prepare_seconds", r.prepare_seconds},
          {"allreduce_bytes", r.allreduce_bytes},
          {"memory",
           {{"base_bytes", r.memory.base_bytes},
            {"prepared_bytes", r.memory.prepared_bytes},
            {"device_peak_bytes", r.memory.device_peak_bytes},
            {"process_peak_bytes", r.memory.process_peak_bytes}}},
          {"profiled_step_seconds", r.profiled_step_seconds},
          {"phase_seconds", phases},
          {"products", ProductsJson(r)}};
}

}  // namespace tundra::bench
