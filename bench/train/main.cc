// tundra-bench-train: how fast this machine trains, and where the time goes.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "absl/strings/str_format.h"
#include "bench/train/bench_base.h"
#include "bench/train/model_shapes.h"
#include "bench/train/report.h"
#include "bench/train/train_bench.h"
#include "common/status.h"

namespace tundra::bench {
namespace {

constexpr char kHelp[] =
    R"(tundra-bench-train trains a LoRA adapter for some steps on made-up data and tells how fast.

  tundra-bench-train smollm2-135m                              f32, 512 tokens a step
  tundra-bench-train smollm2-135m --precision bf16 --tokens 2048 --threads 2
  tundra-bench-train path/to/base --target-modules q_proj,v_proj --rank 16
  tundra-bench-train llama3-8b --precision bf16 -o json > result.json

MODEL is a base folder in Hugging Face layout, or one of the shapes below, whose weights are
then drawn at random: speed does not depend on them.

The report says
  tokens/s    of the median step
  efficiency  the time that all matrix products of a step would take, each at the best rate
              measured for its shape in this run, divided by the time of a step
  memory      the most the process, and the device, had at once
  phases      where the time of a step goes
  products    each shape: its rate within the step, and its best)";

std::string ShapesText() {
  std::string text = "Shapes:\n";
  for (const ModelShape& shape : ModelShapes()) {
    const auto config = ParseModelConfig(ConfigJson(shape), shape.name);
    const double millions = config.ok() ? static_cast<double>(BaseParameters(*config)) / 1e6 : 0;
    absl::StrAppendFormat(&text, "  %-16s %9.1f M parameters   %s\n", std::string(shape.name),
                          millions, std::string(shape.published_as));
  }
  return text;
}

struct Flags {
  TrainBenchOptions bench;
  std::string precision = "f32";
  std::string output = "text";
  std::string rows_file;
  std::string target_modules = "all-linear";
  int64_t best_rate_ms = 150;
  bool print_config = false;
};

void AddFlags(CLI::App& app, Flags& flags) {
  TrainBenchOptions& bench = flags.bench;
  const auto count = CLI::Range(int64_t{1}, int64_t{1} << 26);
  app.add_option("MODEL", bench.model, "a shape's name, or a base folder")->required();
  app.add_option("--device", bench.device, "what computes: cpu, cuda or cuda:N")
      ->capture_default_str();
  app.add_option("--threads", bench.threads, "threads of a CPU")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--precision", flags.precision, "of products with the base's weights")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  app.add_option("--tokens", bench.tokens, "tokens of a step")->check(count)->capture_default_str();
  app.add_option("--row-tokens", bench.row_tokens,
                 "tokens of a row of the data set (default: a row fills the micro-batch)")
      ->check(count);
  app.add_option("--micro-batch-tokens", bench.micro_batch_tokens,
                 "tokens of a micro-batch at most (default: the whole step)")
      ->check(count);
  app.add_option("--rows", flags.rows_file,
                 "a file with the rows of a step: a JSON array of token ids on each line; instead "
                 "of --tokens and --row-tokens");
  app.add_option("--rank", bench.rank, "of the adapter")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--target-modules", flags.target_modules,
                 "what is adapted: all-linear, or names with commas between")
      ->capture_default_str();
  app.add_option("--steps", bench.steps, "measured steps")->check(count)->capture_default_str();
  app.add_option("--warm-up", bench.warm_up, "steps before them")
      ->check(count)
      ->capture_default_str();
  app.add_option("--profiled-steps", bench.profiled_steps,
                 "steps after them in which each operation is timed")
      ->check(count)
      ->capture_default_str();
  app.add_option("--best-rate-ms", flags.best_rate_ms,
                 "how long each shape of product is repeated for its best rate; 0: no efficiency")
      ->check(CLI::Range(0, 60000))
      ->capture_default_str();
  app.add_option("--seed", bench.seed, "of weights, rows and adapter")->capture_default_str();
  app.add_option("-o,--output", flags.output, "text, or json on standard output")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_flag("--print-config", flags.print_config,
               "print the shape's config.json instead, for comparisons with other programs");
}

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> ReadRows(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, uint64_t{1} << 30));
  std::vector<std::vector<int32_t>> rows;
  std::stringstream stream(text);
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    const nlohmann::json ids = nlohmann::json::parse(line, nullptr, false);
    const bool good = ids.is_array() && ids.size() >= 2 &&
                      std::all_of(ids.begin(), ids.end(), [](const nlohmann::json& id) {
                        return id.is_number_unsigned() && id.get<uint64_t>() < (1 << 30);
                      });
    if (!good) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": a row is a JSON array of at least two token ids"));
    }
    rows.push_back(ids.get<std::vector<int32_t>>());
  }
  if (rows.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no rows"));
  return rows;
}

absl::Status Run(Flags& flags) {
  if (flags.print_config) {
    ASSIGN_OR_RETURN(const ModelShape* shape, FindModelShape(flags.bench.model));
    std::printf("%s\n", ConfigJson(*shape).dump(2).c_str());
    return absl::OkStatus();
  }
  flags.bench.precision = flags.precision == "bf16" ? Precision::kBF16 : Precision::kF32;
  flags.bench.target_modules = SplitAtCommas(flags.target_modules);
  flags.bench.best_rate_time = absl::Milliseconds(flags.best_rate_ms);
  if (!flags.rows_file.empty()) {
    ASSIGN_OR_RETURN(flags.bench.rows, ReadRows(flags.rows_file));
  }
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  if (terminal) {
    flags.bench.progress = [](const std::string& what) {
      std::fprintf(stderr, "\r\x1b[2K%s", what.c_str());
    };
  }
  const absl::StatusOr<TrainBenchResult> result = RunTrainBench(flags.bench);
  if (terminal) std::fprintf(stderr, "\r\x1b[2K");
  RETURN_IF_ERROR(result.status());
  const std::string text =
      flags.output == "json" ? ReportJson(*result).dump(2) + "\n" : ReportText(*result);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return absl::OkStatus();
}

// OpenMP reads its environment when it is loaded. A supervisor gives a rank this one, and a
// bench must wait as a rank does; so the program starts itself again with it.
void RunAsARankDoes(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
  ::setenv("OMP_DYNAMIC", "false", 1);
  ::execv("/proc/self/exe", argv);  // on failure: measured with what there is
}

int Main(int argc, char** argv) {
  RunAsARankDoes(argv);
  CLI::App app{kHelp, "tundra-bench-train"};
  app.footer(ShapesText());
  Flags flags;
  flags.bench.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  AddFlags(app, flags);
  if (argc == 1) {
    std::printf("%s\n", app.help().c_str());
    return 2;
  }
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "tundra-bench-train: %s\n", std::string(status.message()).c_str());
  return 2;
}

}  // namespace
}  // namespace tundra::bench

int main(int argc, char** argv) { return tundra::bench::Main(argc, argv); }
