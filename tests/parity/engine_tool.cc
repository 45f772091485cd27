// The engine on its own, for comparisons with the reference environment: trains an
// adapter, or prints the logits of a base with an adapter. check_adapter_loads.py
// runs it.
//
//   parity-engine train BASE ROWS.json STEPS OUT_DIR
//   parity-engine logits BASE ADAPTER ROWS.json OUT.safetensors
//
// ROWS.json is a golden.json (tests/parity/golden/README.md): its "rows" are used.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/status.h"
#include "worker/collective/collective_local.h"
#include "worker/model/model_test_util.h"
#include "worker/train/trainer.h"

namespace tundra {
namespace {

constexpr int64_t kMaxPositions = 128;

absl::Status Train(const std::string& base_dir, const std::string& rows_path, int64_t steps,
                   const std::string& out_dir) {
  const nlohmann::json golden = LoadJson(rows_path);
  const std::vector<OwnedRow> rows = GoldenRows(golden);
  ASSIGN_OR_RETURN(const auto base, TestBase::Open(base_dir, {}));
  LocalGroup group(1);
  ASSIGN_OR_RETURN(const auto bootstrap, group.Bootstrap(0));
  ASSIGN_OR_RETURN(const auto collective,
                   bootstrap->Connect({bootstrap->local_address()}, absl::Seconds(10)));
  TrainerOptions options;
  options.config = base->config;
  options.base_name = base_dir;
  options.ops = base->ops.get();
  options.weights = base->weights.get();
  options.collective = collective.get();
  TrainSpec spec;
  spec.max_steps = steps;
  spec.batch_size = 6;
  spec.micro_batch_tokens = 256;
  spec.max_seq_length = kMaxPositions;
  spec.learning_rate = 1e-2;
  spec.seed = 3;
  ASSIGN_OR_RETURN(const auto trainer, Trainer::Create(options, spec, ViewsOf(rows), {}));
  StepMetrics last;
  while (!trainer->done()) {
    ASSIGN_OR_RETURN(last, trainer->RunStep());
    if (last.step == 1) std::printf("loss %.6f\n", last.loss);
  }
  std::printf("loss %.6f after %lld steps\n", last.loss, static_cast<long long>(last.step));
  ASSIGN_OR_RETURN(const AdapterFiles adapter, trainer->Adapter());
  return WriteAdapter(out_dir, adapter);
}

absl::Status Logits(const std::string& base_dir, const std::string& adapter_dir,
                    const std::string& rows_path, const std::string& out) {
  const std::vector<OwnedRow> rows = GoldenRows(LoadJson(rows_path));
  ASSIGN_OR_RETURN(const auto base, TestBase::Open(base_dir, {}));
  ASSIGN_OR_RETURN(const auto model, base->NewModel(kMaxPositions));
  ASSIGN_OR_RETURN(const LoadedAdapter adapter, ReadAdapter(adapter_dir, base->config));
  ASSIGN_OR_RETURN(const Batch batch, BatchOf(rows, base->config.vocab));
  std::vector<int32_t> tokens(static_cast<size_t>(batch.tokens()));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  const AdapterView view{&adapter.layout, ConstView::Vector(adapter.weights.data(), DType::kF32,
                                                            adapter.layout.parameters())};
  ASSIGN_OR_RETURN(const std::vector<float> logits, model->Logits(batch, view, tokens));
  return WriteFileAtomically(
      out, WriteSafetensors({{"logits",
                              StoredType::kF32,
                              {batch.tokens(), base->config.vocab},
                              {reinterpret_cast<const char*>(logits.data()), logits.size() * 4}}},
                            {}));
}

absl::Status Run(const std::vector<std::string>& arguments) {
  if (arguments.size() == 5 && arguments[0] == "train") {
    return Train(arguments[1], arguments[2], std::atoll(arguments[3].c_str()), arguments[4]);
  }
  if (arguments.size() == 5 && arguments[0] == "logits") {
    return Logits(arguments[1], arguments[2], arguments[3], arguments[4]);
  }
  return absl::InvalidArgumentError(
      "usage: train BASE ROWS.json STEPS OUT_DIR | logits BASE ADAPTER ROWS.json OUT.safetensors");
}

}  // namespace
}  // namespace tundra

int main(int argc, char** argv) {
  const absl::Status status = tundra::Run({argv + 1, argv + argc});
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.ToString()).c_str());
  return status.ok() ? 0 : 1;
}
