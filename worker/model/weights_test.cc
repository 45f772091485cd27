#include "worker/model/weights.h"

#include <filesystem>

#include "common/files.h"
#include "common/status_test_util.h"
#include "worker/model/model_test_util.h"
#include "worker/ops/cpu_ops.h"

namespace tundra {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
namespace fs = std::filesystem;

// A copy of a base with every tensor stored in f16 or, `widened`, as the f32 values
// that those halves stand for.
void WriteHalfBase(const std::string& from, const std::string& to, bool widened) {
  fs::copy(from, to, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  absl::StatusOr<BaseFiles> files = BaseFiles::Open(from);
  TUNDRA_CHECK(files.ok()) << files.status().ToString();
  std::vector<std::vector<float>> wide;
  std::vector<std::vector<uint16_t>> half;
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, tensor] : files->tensors()) {
    std::vector<float> values((tensor.entry.end - tensor.entry.begin) / 4);
    TUNDRA_CHECK(files->Read(tensor, 0, values.size() * 4, values.data()).ok());
    std::vector<uint16_t>& halves = half.emplace_back();
    for (float& value : values) {
      const _Float16 narrow = static_cast<_Float16>(value);
      halves.push_back(std::bit_cast<uint16_t>(narrow));
      value = static_cast<float>(narrow);
    }
    wide.push_back(std::move(values));
    const char* bytes = widened ? reinterpret_cast<const char*>(wide.back().data())
                                : reinterpret_cast<const char*>(halves.data());
    const size_t size = halves.size() * (widened ? 4 : 2);
    tensors.push_back(
        {name, widened ? StoredType::kF32 : StoredType::kF16, tensor.entry.shape, {bytes, size}});
  }
  TUNDRA_CHECK(WriteFileAtomically(to + "/model.safetensors", WriteSafetensors(tensors, {})).ok());
}

// The loss of a forward and backward pass, and the last tensor's gradient.
absl::StatusOr<std::pair<double, std::vector<float>>> TrainOnce(TestBase& base,
                                                                const LoraLayout& layout,
                                                                const std::vector<float>& weights,
                                                                const Batch& batch) {
  ASSIGN_OR_RETURN(const auto model, base.NewModel(128));
  std::pair<double, std::vector<float>> result;
  const AdapterView adapter{&layout,
                            ConstView::Vector(weights.data(), DType::kF32, layout.parameters())};
  RETURN_IF_ERROR(model->Train({&batch, 1}, adapter, {}, Recompute::kNone,
                               [&](int, int, int, ConstView grad) {
                                 result.second.assign(grad.row<float>(0),
                                                      grad.row<float>(0) + grad.size());
                                 return absl::OkStatus();
                               },
                               {&result.first, 1}));
  return result;
}

TEST(Weights, HalfPrecisionBasesGiveTheBitsOfTheirWidenedValues) {
  const std::string golden = GoldenDir() + "/mqa_tied_llama3";
  TempDir half, wide;
  WriteHalfBase(golden + "/base", half.path(), false);
  WriteHalfBase(golden + "/base", wide.path(), true);
  const std::vector<OwnedRow> rows = GoldenRows(LoadJson(golden + "/golden.json"));
  std::vector<std::pair<double, std::vector<float>>> results;
  for (const auto& [dir, shards] : std::vector<std::pair<std::string, int>>{
           {wide.path(), 1}, {half.path(), 1}, {half.path(), 2}}) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto base, TestBase::Open(dir, {.shards = shards}));
    TUNDRA_ASSERT_OK_AND_ASSIGN(const LoraLayout layout,
                                LoraLayout::Make(base->config, {.rank = 4}));
    std::vector<float> weights(static_cast<size_t>(layout.parameters()));
    InitAdapter(layout, 1, weights);
    TUNDRA_ASSERT_OK_AND_ASSIGN(const Batch batch, BatchOf(rows, base->config.vocab));
    for (int i = 0; i < 2; ++i) {
      TUNDRA_ASSERT_OK_AND_ASSIGN(auto result, TrainOnce(*base, layout, weights, batch));
      results.push_back(std::move(result));
    }
  }
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST(Weights, AnUnshardedSourceLaysOutOnceAndAShardedOneInTwoBuffers) {
  const std::string dir = GoldenDir() + "/gqa_untied_head_dim/base";
  for (const int shards : {1, 2}) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto base, TestBase::Open(dir, {.shards = shards}));
    std::vector<UnitUse> uses;
    for (int64_t layer = 0; layer < base->config.layers; ++layer) {
      uses.push_back({.unit = base->plan->layer_unit(layer), .forward = true, .backward = true});
    }
    uint64_t prepared = 0;
    for (int pass = 0; pass < 3; ++pass) {
      TUNDRA_ASSERT_OK(base->weights->BeginPass(uses, nullptr));
      for (size_t i = 0; i < uses.size(); ++i) {
        TUNDRA_ASSERT_OK_AND_ASSIGN(const UnitView* unit, base->weights->Next());
        EXPECT_EQ(unit->tensors.size(), static_cast<size_t>(kLayerTensors));
        EXPECT_EQ(unit->tensors[kGate].rows, base->config.intermediate);
      }
      base->weights->EndPass();
      if (pass == 0) prepared = base->weights->stats().prepared_bytes;
    }
    const WeightStats stats = base->weights->stats();
    EXPECT_EQ(stats.prepared_bytes, prepared) << shards;
    EXPECT_EQ(stats.gathered_buffer_bytes, 0u);
    EXPECT_EQ(stats.gather_bytes, 0u);
  }
}

// The scratch memory of the source is just what the operations ask for.
TEST(Weights, MatricesInAnotherTypeThanTheirLayoutAreConverted) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto base,
                              TestBase::Open(GoldenDir() + "/gqa_tied_bf16/base", {}));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto ops,
                              CreateCpuOps(base->device.get(), ProductBackend::kOneDnn));
  WeightSourceOptions options;
  options.shard_fds = {base->shards[0].fd()};
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto weights,
                              WeightSource::Create(*base->plan, ops.get(), options));
  TUNDRA_ASSERT_OK(
      weights->BeginPass({{.unit = base->plan->layer_unit(0), .forward = true, .backward = true},
                          {.unit = base->plan->output_unit(), .forward = true, .backward = true}},
                         nullptr));
  for (int i = 0; i < 2; ++i) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const UnitView* unit, weights->Next());
    EXPECT_EQ(unit->forward.back().layout, FrozenWeight::Layout::kPrepared);
    EXPECT_EQ(unit->forward.back().view_NK.dtype, DType::kF32);
    EXPECT_EQ(unit->tensors.back().dtype, DType::kBF16);
  }
  weights->EndPass();
}

class FailingGather : public ::testing::Test {
 protected:
  void SetUp() override {
    TUNDRA_ASSERT_OK_AND_ASSIGN(base_,
                                TestBase::Open(GoldenDir() + "/mha_untied/base", {.shards = 2}));
    WeightSourceOptions options;
    options.shard_fds = {base_->shards[0].fd()};
    options.gather = [this](Stream*, std::span<const std::byte> mine,
                            std::span<std::byte> all) -> absl::Status {
      if (++calls_ == 3) return absl::UnavailableError("the peer is gone");
      EXPECT_EQ(all.size(), 2 * mine.size());
      return absl::OkStatus();
    };
    TUNDRA_ASSERT_OK_AND_ASSIGN(source_,
                                WeightSource::Create(*base_->plan, base_->ops.get(), options));
  }
  std::unique_ptr<TestBase> base_;
  std::unique_ptr<WeightSource> source_;
  int calls_ = 0;  // on the source's thread
};

TEST_F(FailingGather, ComesOutOfNextAndTheSourceGoesOnAfterwards) {
  const std::vector<UnitUse> uses = {{.unit = 0}, {.unit = 1}, {.unit = 2}, {.unit = 3}};
  TUNDRA_ASSERT_OK(source_->BeginPass(uses, nullptr));
  TUNDRA_ASSERT_OK(source_->Next());
  TUNDRA_ASSERT_OK(source_->Next());
  EXPECT_THAT(source_->Next(),
              StatusIs(absl::StatusCode::kUnavailable,
                       ::testing::AllOf(HasSubstr("gathering unit 2"), HasSubstr("gone"))));
  source_->EndPass();
  TUNDRA_ASSERT_OK(source_->BeginPass(uses, nullptr));
  for (size_t i = 0; i < uses.size(); ++i) TUNDRA_ASSERT_OK(source_->Next());
  source_->EndPass();
  EXPECT_GT(source_->stats().gather_bytes, 0u);
  EXPECT_EQ(source_->stats().gathered_buffer_bytes, 2 * base_->plan->largest_unit_bytes());
}

TEST_F(FailingGather, APassMayBeLeftAtAnyPoint) {
  for (int taken = 0; taken < 3; ++taken) {
    calls_ = 10;
    TUNDRA_ASSERT_OK(
        source_->BeginPass({{.unit = 0}, {.unit = 1}, {.unit = 2}, {.unit = 3}}, nullptr));
    for (int i = 0; i < taken; ++i) TUNDRA_ASSERT_OK(source_->Next());
    source_->EndPass();
  }
}

TEST(Weights, MemoriesThatDontFitThePlanAreRefused) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto base,
                              TestBase::Open(GoldenDir() + "/mha_untied/base", {.shards = 2}));
  WeightSourceOptions options;
  options.shard_fds = {base->shards[0].fd()};
  EXPECT_THAT(WeightSource::Create(*base->plan, base->ops.get(), options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2 memories")));
}

}  // namespace
}  // namespace tundra
