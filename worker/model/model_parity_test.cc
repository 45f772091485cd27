// The model against golden files that transformers and PEFT made: logits, losses,
// every adapter gradient, greedy continuations. tests/parity/golden/README.md tells
// what the files hold.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/status_test_util.h"
#include "nlohmann/json.hpp"
#include "worker/model/base_files.h"
#include "worker/model/generate.h"
#include "worker/model/llama.h"
#include "worker/model/model_test_util.h"

namespace tundra {
namespace {

using nlohmann::json;

// How far values may be from the peer's: engine.md, "Parity with PEFT".
constexpr double kLogitsBound = 1e-4;    // of the largest logit
constexpr double kLossBound = 1e-5;      // relative
constexpr double kGradientBound = 1e-4;  // of the tensor's largest value

struct Case {
  std::string model;
  std::string adapter;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const json& model : LoadJson(GoldenDir() + "/index.json")) {
    const std::string name = model["name"];
    const json golden = LoadJson(GoldenDir() + "/" + name + "/golden.json");
    for (const json& adapter : golden["adapters"]) {
      cases.push_back({name, adapter["name"]});
    }
  }
  return cases;
}

std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  return info.param.model + "_" + info.param.adapter;
}

// The reason why Tundra can't do a case, or "".
std::string Optional(const Case& c) {
  for (const json& model : LoadJson(GoldenDir() + "/index.json")) {
    if (model["name"] == c.model && model.contains("optional")) return model["optional"];
  }
  const json golden = LoadJson(GoldenDir() + "/" + c.model + "/golden.json");
  for (const json& adapter : golden["adapters"]) {
    if (adapter["name"] == c.adapter && adapter.contains("optional")) return adapter["optional"];
  }
  return "";
}

class PeftParity : public ::testing::TestWithParam<Case> {
 protected:
  void Open() {
    const std::string dir = GoldenDir() + "/" + GetParam().model;
    golden_ = LoadJson(dir + "/golden.json");
    for (const json& adapter : golden_["adapters"]) {
      if (adapter["name"] == GetParam().adapter) record_ = adapter;
    }
    adapter_dir_ = dir + "/adapters/" + GetParam().adapter;
    TUNDRA_ASSERT_OK_AND_ASSIGN(base_, TestBase::Open(dir + "/base", {}));
    rows_ = GoldenRows(golden_);
    TUNDRA_ASSERT_OK_AND_ASSIGN(model_, base_->NewModel(128));
    LoraSpec spec;
    spec.rank = record_["rank"];
    spec.alpha = record_["alpha"];
    spec.use_rslora = record_["use_rslora"];
    spec.target_modules = TargetsOf(record_["target_modules"]);
    absl::StatusOr<LoraLayout> layout = LoraLayout::Make(base_->config, spec);
    TUNDRA_ASSERT_OK(layout);
    layout_ = std::make_unique<LoraLayout>(*std::move(layout));
    TUNDRA_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                                SafetensorsFile::Open(adapter_dir_ + "/adapter_model.safetensors"));
    weights_ = AdapterFromFile(*layout_, file);
    adapter_ = {layout_.get(),
                ConstView::Vector(weights_.data(), DType::kF32, layout_->parameters())};
  }

  json golden_, record_;
  std::string adapter_dir_;
  std::unique_ptr<TestBase> base_;
  std::vector<OwnedRow> rows_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<LoraLayout> layout_;
  std::vector<float> weights_;
  AdapterView adapter_;
};

// The largest |a − b| over the largest |b|.
double LargestRelative(std::span<const float> a, std::span<const float> b) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

TEST_P(PeftParity, LogitsLossGradientsAndGreedyTextAreThePeers) {
  if (const std::string why = Optional(GetParam()); !why.empty()) {
    GTEST_SKIP() << "not supported: " << why;
  }
  Open();
  if (HasFatalFailure()) return;
  TUNDRA_ASSERT_OK_AND_ASSIGN(const SafetensorsFile golden,
                              SafetensorsFile::Open(adapter_dir_ + "/golden.safetensors"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const Batch batch, BatchOf(rows_, base_->config.vocab));

  // Logits of the rows that the golden file has.
  std::vector<int32_t> tokens;
  for (const int row : golden_["logit_rows"]) {
    for (int32_t t = batch.offsets[static_cast<size_t>(row)];
         t < batch.offsets[static_cast<size_t>(row) + 1]; ++t) {
      tokens.push_back(t);
    }
  }
  TUNDRA_ASSERT_OK_AND_ASSIGN(const std::vector<float> logits,
                              model_->Logits(batch, adapter_, tokens));
  const double logits_error = LargestRelative(logits, FloatsOf(golden, "logits"));
  EXPECT_LT(logits_error, kLogitsBound);

  // Loss and gradients, all rows in one micro-batch.
  std::vector<float> gradient(static_cast<size_t>(layout_->parameters()), NAN);
  const GradientSink sink = [&](int, int first, int, ConstView grad) {
    const int64_t at = layout_->tensors()[static_cast<size_t>(first)].offset;
    std::copy_n(grad.row<float>(0), grad.size(), gradient.begin() + at);
    return absl::OkStatus();
  };
  double loss = 0;
  TUNDRA_ASSERT_OK(model_->Train({&batch, 1}, adapter_, {}, Recompute::kNone, sink, {&loss, 1}));
  const double loss_error = std::abs(loss / record_["loss_sum"].get<double>() - 1);
  EXPECT_LT(loss_error, kLossBound);
  EXPECT_EQ(batch.target_tokens, record_["target_tokens"].get<int64_t>());
  double gradient_error = 0;
  for (const LoraTensor& tensor : layout_->tensors()) {
    const std::span<const float> own = std::span(gradient).subspan(
        static_cast<size_t>(tensor.offset), static_cast<size_t>(tensor.size));
    const double error = LargestRelative(own, FloatsOf(golden, "grad." + tensor.name));
    EXPECT_LT(error, kGradientBound) << tensor.name;
    gradient_error = std::max(gradient_error, error);
  }
  EXPECT_EQ(layout_->tensors().size() + 1, golden.header().tensors.size());

  // Computing activations again changes no bit.
  std::vector<float> kept = gradient;
  double loss_again = 0;
  TUNDRA_ASSERT_OK(
      model_->Train({&batch, 1}, adapter_, {}, Recompute::kFull, sink, {&loss_again, 1}));
  EXPECT_EQ(loss, loss_again);
  EXPECT_EQ(kept, gradient);

  std::vector<int32_t> text;
  TUNDRA_ASSERT_OK(Generate(*model_, adapter_, record_["greedy"]["prompt"].get<std::vector<int32_t>>(),
                            {.max_tokens = 24, .eos_ids = {}}, [&](int32_t token) {
                              text.push_back(token);
                              return true;
                            }));
  EXPECT_EQ(text, record_["greedy"]["continuation"].get<std::vector<int32_t>>());
  std::printf("parity %s/%s: logits %.1e, loss %.1e, gradients %.1e\n", GetParam().model.c_str(),
              GetParam().adapter.c_str(), logits_error, loss_error, gradient_error);
}

INSTANTIATE_TEST_SUITE_P(Golden, PeftParity, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace tundra
