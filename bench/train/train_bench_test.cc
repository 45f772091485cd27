#include "bench/train/train_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>

#include "bench/train/bench_base.h"
#include "bench/train/counting_device.h"
#include "bench/train/model_shapes.h"
#include "bench/train/report.h"
#include "common/check.h"
#include "worker/collective/collective_local.h"
#include "worker/model/weights.h"
#include "worker/train/trainer.h"

namespace tundra::bench {
namespace {

using ::testing::HasSubstr;

template <typename T>
T Value(absl::StatusOr<T> value) {
  TUNDRA_CHECK(value.ok()) << value.status();
  return *std::move(value);
}

// ---- shapes -------------------------------------------------------------------------

int64_t ParametersOf(std::string_view name) {
  return BaseParameters(Value(ParseModelConfig(ConfigJson(*Value(FindModelShape(name))), "shape")));
}

// The sizes that the models' publishers give.
TEST(ModelShapes, HaveThePublishedNumberOfParameters) {
  EXPECT_EQ(ParametersOf("smollm2-135m"), 134'515'008);
  EXPECT_EQ(ParametersOf("smollm2-360m"), 361'821'120);
  EXPECT_EQ(ParametersOf("tinyllama-1.1b"), 1'100'048'384);
  EXPECT_EQ(ParametersOf("llama3.2-1b"), 1'235'814'400);
  EXPECT_EQ(ParametersOf("smollm2-1.7b"), 1'711'376'384);
  EXPECT_EQ(ParametersOf("llama3.2-3b"), 3'212'749'824);
  EXPECT_EQ(ParametersOf("mistral-7b"), 7'248'023'552);
  EXPECT_EQ(ParametersOf("llama3-8b"), 8'030'261'248);
  EXPECT_EQ(ParametersOf("llama3.1-8b"), 8'030'261'248);
  EXPECT_EQ(ParametersOf("llama3-70b"), 70'553'706'496);
}

TEST(ModelShapes, TinyTalesIsTheShippedBase) {
  const char* source = std::getenv("TUNDRA_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  const ModelConfig shipped =
      Value(ReadModelConfig(std::string(source) + "/examples/bases/tiny-tales"));
  const ModelConfig ours =
      Value(ParseModelConfig(ConfigJson(*Value(FindModelShape("tiny-tales"))), "shape"));
  EXPECT_EQ(ours.vocab, shipped.vocab);
  EXPECT_EQ(ours.hidden, shipped.hidden);
  EXPECT_EQ(ours.intermediate, shipped.intermediate);
  EXPECT_EQ(ours.layers, shipped.layers);
  EXPECT_EQ(ours.heads, shipped.heads);
  EXPECT_EQ(ours.kv_heads, shipped.kv_heads);
  EXPECT_EQ(ours.head_dim, shipped.head_dim);
  EXPECT_EQ(ours.max_positions, shipped.max_positions);
  EXPECT_EQ(ours.tied, shipped.tied);
  EXPECT_EQ(RopeFrequencies(ours), RopeFrequencies(shipped));
}

TEST(ModelShapes, AMisspeltNameIsSuggested) {
  const absl::Status status = FindModelShape("smollm2-135").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("did you mean smollm2-135m"));
}

// ---- device -------------------------------------------------------------------------

TEST(CountingDevice, CountsWhatIsTakenAndGivenBack) {
  const std::unique_ptr<Device> cpu = Value(CreateCpuDevice({.threads = 1, .max_isa = ""}));
  CountingDevice device(cpu.get());
  Buffer first = Value(device.Allocate(1000));
  {
    const Buffer second = Value(device.Allocate(5000));
    EXPECT_EQ(device.allocated_bytes(), 6000U);
  }
  const Buffer none = Value(device.Allocate(0));
  EXPECT_EQ(device.allocated_bytes(), 1000U);
  first.Reset();
  EXPECT_EQ(device.allocated_bytes(), 0U);
  EXPECT_EQ(device.peak_bytes(), 6000U);
}

// ---- profile ------------------------------------------------------------------------

// Three steps on a random tiny base; the state's hash after them.
std::string TrainedState(bool profile) {
  const std::unique_ptr<BenchBase> base = Value(BenchBase::Open("tiny-tales", 1, 1));
  const std::unique_ptr<Device> device = Value(CreateCpuDevice({.threads = 2, .max_isa = ""}));
  const std::unique_ptr<Ops> cpu = Value(CreateCpuOps(device.get()));
  ProfiledOps profiled(cpu.get(), device.get());
  profiled.set_profiling(profile);
  WeightSourceOptions source;
  source.shard_fds = {base->shard_fd()};
  const std::unique_ptr<WeightSource> weights =
      Value(WeightSource::Create(base->plan(), cpu.get(), source));
  LocalGroup group(1);
  const auto bootstrap = Value(group.Bootstrap(0));
  const auto collective =
      Value(bootstrap->Connect({bootstrap->local_address()}, absl::Seconds(10)));
  TrainerOptions options;
  options.config = base->config();
  options.ops = profile ? static_cast<Ops*>(&profiled) : cpu.get();
  options.weights = weights.get();
  options.collective = collective.get();
  TrainSpec spec;
  spec.max_steps = 3;
  spec.lora.dropout = 0.1;
  std::vector<int32_t> ids(40);
  std::iota(ids.begin(), ids.end(), 7);
  const std::vector<uint8_t> trained(ids.size(), 1);
  const auto trainer = Value(Trainer::Create(options, spec, {{ids, trained, 0}}, {}));
  while (!trainer->done()) TUNDRA_CHECK(trainer->RunStep().ok());
  EXPECT_EQ(!profiled.profile().products.empty(), profile);
  return Value(trainer->StateHash());
}

TEST(ProfiledOps, ChangeNoBitOfTheResult) { EXPECT_EQ(TrainedState(true), TrainedState(false)); }

// ---- whole runs ---------------------------------------------------------------------

TrainBenchOptions TinyRun() {
  TrainBenchOptions options;
  options.model = "tiny-tales";
  options.threads = 2;
  options.tokens = 128;
  options.rank = 4;
  options.steps = 3;
  options.warm_up = 2;
  options.best_rate_time = absl::Milliseconds(1);
  return options;
}

// The figures of tiny-tales.
constexpr double kHidden = 192, kQ = 192, kKv = 64, kInner = 512, kVocab = 2048, kLayers = 4;

// A step's floating-point operations by hand: tokens after padding, targets, (query, key)
// pairs of a head, rank; every linear layer adapted.
double FlopsByHand(double t, double targets, double pairs, double r) {
  const double matrices = kHidden * (2 * kQ + 2 * kKv + 3 * kInner);
  // Inputs of the stacked A's (q k v | o | gate up | down) and outputs of the B's.
  const double down = r * (3 * kHidden + kQ + 2 * kHidden + kInner);
  const double up = r * (kQ + 2 * kKv + kHidden + 2 * kInner + kHidden);
  const double forward = 2 * t * (matrices + down + up) + 4 * pairs * kQ;
  // Frozen matrices have no gradient of their own; A and B have, beside their inputs'.
  const double backward = 2 * t * (matrices + 2 * down + 2 * up) + 10 * pairs * kQ;
  // Nothing below the lowest layer's q, k and v needs a gradient.
  const double not_needed = 2 * t * (kHidden * (kQ + 2 * kKv) + 3 * r * kHidden);
  return kLayers * (forward + backward) - not_needed + 4 * targets * kHidden * kVocab;
}

TEST(TrainBench, CountsTheFlopsOfTheFormula) {
  const TrainBenchResult result = Value(RunTrainBench(TinyRun()));
  EXPECT_DOUBLE_EQ(result.Flops(), FlopsByHand(128, 127, 128 * 129 / 2, 4));
  EXPECT_EQ(result.target_tokens, 127);
}

TEST(TrainBench, CountsPaddingAndKeepsAttentionInsideRows) {
  TrainBenchOptions options = TinyRun();
  options.tokens = 200;
  options.row_tokens = 100;
  options.best_rate_time = absl::ZeroDuration();
  const TrainBenchResult result = Value(RunTrainBench(options));
  EXPECT_DOUBLE_EQ(result.Flops(), FlopsByHand(256, 198, 2 * 100 * 101 / 2, 4));
  EXPECT_EQ(result.Efficiency(), 0);
}

// Work below the lowest adapted module is left out, and so it must not be counted.
TEST(TrainBench, CountsOnlyTheWorkOfTheTargetModules) {
  TrainBenchOptions options = TinyRun();
  options.target_modules = {"layers.3.mlp.down_proj"};
  options.best_rate_time = absl::ZeroDuration();
  const TrainBenchResult result = Value(RunTrainBench(options));
  const double t = 128, r = 4, pairs = 128 * 129 / 2;
  const double forward =
      kLayers * (2 * t * kHidden * (2 * kQ + 2 * kKv + 3 * kInner) + 4 * pairs * kQ) +
      2 * t * r * (kInner + kHidden);
  const double backward = 4 * t * r * kHidden + 2 * t * r * kInner;
  EXPECT_DOUBLE_EQ(result.Flops(), forward + backward + 4 * 127 * kHidden * kVocab);
}

TEST(TrainBench, MicroBatchesOfAStepAreCountedTogether) {
  TrainBenchOptions options = TinyRun();
  options.tokens = 512;
  options.row_tokens = 128;
  options.micro_batch_tokens = 128;
  options.best_rate_time = absl::ZeroDuration();
  const TrainBenchResult result = Value(RunTrainBench(options));
  EXPECT_DOUBLE_EQ(result.Flops(), 4 * FlopsByHand(128, 127, 128 * 129 / 2, 4));
}

TEST(TrainBench, TellsWhereTheTimeWent) {
  const TrainBenchResult result = Value(RunTrainBench(TinyRun()));
  ASSERT_EQ(result.step_seconds.size(), 3U);
  for (const double seconds : result.step_seconds) EXPECT_GT(seconds, 0);
  const auto& phases = result.phase_seconds;
  EXPECT_NEAR(std::accumulate(phases.begin(), phases.end(), 0.0), result.profiled_step_seconds,
              1e-9);
  for (int i = 0; i < kPhases; ++i) {
    const Phase phase = static_cast<Phase>(i);
    if (phase == Phase::kWeights) continue;  // nothing to wait for: laid out once
    EXPECT_GT(phases[static_cast<size_t>(i)], 0) << PhaseKey(phase);
  }
  EXPECT_GT(result.Efficiency(), 0);
  for (const ProductResult& product : result.products) {
    EXPECT_GT(product.best_seconds, 0) << ProductKey(product.shape.kind);
    // The best is over the step's own calls too.
    if (product.step_seconds == 0) continue;  // inside the loss
    EXPECT_LE(product.best_seconds, product.step_seconds);
  }
  EXPECT_GT(result.memory.process_peak_bytes, result.memory.base_bytes);
  EXPECT_GT(result.memory.device_peak_bytes, result.memory.prepared_bytes);
}

TEST(TrainBench, JsonHoldsWhatTheTableSays) {
  TrainBenchOptions options = TinyRun();
  options.precision = Precision::kBF16;
  const TrainBenchResult result = Value(RunTrainBench(options));
  const nlohmann::json json = ReportJson(result);
  EXPECT_EQ(json["model"]["name"], "tiny-tales");
  EXPECT_EQ(json["model"]["layers"], 4);
  EXPECT_EQ(json["options"]["precision"], "bf16");
  EXPECT_EQ(json["options"]["tokens"], 128);
  EXPECT_EQ(json["options"]["target_modules"], nlohmann::json({"all-linear"}));
  EXPECT_EQ(json["step_seconds"]["all"].size(), 3U);
  EXPECT_DOUBLE_EQ(json["tokens_per_second"].get<double>(),
                   128 / json["step_seconds"]["median"].get<double>());
  double flops = 0, best = 0;
  for (const nlohmann::json& product : json["products"]) {
    flops += product["calls_per_step"].get<double>() * product["flops"].get<double>();
    best += product["calls_per_step"].get<double>() * product["best_seconds"].get<double>();
  }
  EXPECT_DOUBLE_EQ(json["flops_per_step"].get<double>(), flops);
  EXPECT_DOUBLE_EQ(json["best_products_seconds"].get<double>(), best);
  EXPECT_DOUBLE_EQ(json["efficiency"].get<double>(),
                   best / json["step_seconds"]["median"].get<double>());
  EXPECT_EQ(json["phase_seconds"].size(), static_cast<size_t>(kPhases));
  for (const char* key :
       {"base_bytes", "prepared_bytes", "device_peak_bytes", "process_peak_bytes"}) {
    EXPECT_GT(json["memory"][key].get<uint64_t>(), 0U) << key;
  }
  const std::string text = ReportText(result);
  for (const char* word : {"tokens/s", "efficiency", "exact sums", "lora_up_backward", "bf16"}) {
    EXPECT_THAT(text, HasSubstr(word));
  }
}

TEST(TrainBench, OptionsThatDontFitAreToldWithARemedy) {
  const auto error = [](const std::function<void(TrainBenchOptions&)>& change) {
    TrainBenchOptions options = TinyRun();
    change(options);
    return std::string(RunTrainBench(options).status().message());
  };
  EXPECT_THAT(error([](auto& o) { o.row_tokens = 100; }), HasSubstr("no whole number of rows"));
  EXPECT_THAT(error([](auto& o) { o.tokens = o.row_tokens = 1024; }), HasSubstr("--row-tokens"));
  EXPECT_THAT(error([](auto& o) { o.micro_batch_tokens = 64, o.row_tokens = 128; }),
              HasSubstr("--micro-batch-tokens"));
  EXPECT_THAT(error([](auto& o) { o.device = "tpu"; }), HasSubstr("--device tpu"));
  EXPECT_THAT(error([](auto& o) { o.model = "no/such/folder"; }), HasSubstr("no/such/folder"));
  EXPECT_THAT(error([](auto& o) { o.target_modules = {"q_prj"}; }), HasSubstr("q_prj"));
}

}  // namespace
}  // namespace tundra::bench
