#include "worker/model/lora.h"

#include <cmath>
#include <set>

#include "common/status_test_util.h"
#include "worker/model/generate.h"
#include "worker/model/half.h"
#include "worker/model/memory_plan.h"

namespace tundra {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

ModelConfig Config() {
  ModelConfig config;
  config.vocab = 64;
  config.hidden = 32;
  config.intermediate = 48;
  config.layers = 3;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.max_positions = 128;
  return config;
}

TEST(Lora, AllLinearIsEveryLayerButTheOutputMatrix) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const LoraLayout layout, LoraLayout::Make(Config(), {.rank = 4}));
  EXPECT_EQ(layout.tensors().size(), 3u * 7 * 2);
  EXPECT_EQ(layout.lowest_layer(), 0);
  EXPECT_EQ(layout.scale(), 4.0F);
  EXPECT_EQ(layout.ConfigTargets().size(), 7u);
  // Tensors lie end to end, and the A's of a group with one input are one matrix.
  int64_t at = 0;
  for (const LoraTensor& tensor : layout.tensors()) {
    EXPECT_EQ(tensor.offset, at);
    at += tensor.size;
  }
  EXPECT_EQ(at, layout.parameters());
  EXPECT_EQ(layout.a(1, kK), layout.a(1, kQ) + 1);
  EXPECT_EQ(layout.a(1, kV), layout.a(1, kQ) + 2);
}

TEST(Lora, TargetsMatchSuffixesAtADot) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(
      const LoraLayout layout,
      LoraLayout::Make(
          Config(),
          {.rank = 2, .target_modules = {"layers.1.self_attn.v_proj", "layers.2.mlp.up_proj"}}));
  EXPECT_EQ(layout.tensors().size(), 4u);
  EXPECT_EQ(layout.lowest_layer(), 1);
  EXPECT_EQ(layout.lowest_group(), kGroupQkv);
  EXPECT_EQ(layout.tensors()[0].name,
            "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight");
  EXPECT_THAT(LoraLayout::Make(Config(), {.target_modules = {"proj"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"proj\"")));
}

TEST(Lora, BadSpecsAreRefused) {
  const auto status = [](LoraSpec spec) { return LoraLayout::Make(Config(), spec).status(); };
  constexpr absl::StatusCode kBad = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(
      status({.target_modules = {"q_proj", "qq_proj"}}),
      StatusIs(kBad, AllOf(HasSubstr("\"qq_proj\""), HasSubstr("q_proj, k_proj, v_proj, o_proj"))));
  EXPECT_THAT(status({.target_modules = {}}), StatusIs(kBad, HasSubstr("empty")));
  EXPECT_THAT(status({.target_modules = {""}}), StatusIs(kBad, HasSubstr("no module")));
  EXPECT_THAT(status({.target_modules = {"all-linear", "q_proj"}}),
              StatusIs(kBad, HasSubstr("alone")));
  EXPECT_THAT(status({.target_modules = {"lm_head"}}),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("lm_head")));
  EXPECT_THAT(status({.rank = 0}), StatusIs(kBad, HasSubstr("rank = 0")));
  EXPECT_THAT(status({.alpha = std::nan("")}), StatusIs(kBad, HasSubstr("alpha")));
  EXPECT_THAT(status({.dropout = 1.0}), StatusIs(kBad, HasSubstr("dropout")));
}

TEST(Lora, StartsUniformInA_AndZeroInB) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const LoraLayout layout, LoraLayout::Make(Config(), {.rank = 16}));
  std::vector<float> adapter(static_cast<size_t>(layout.parameters()));
  InitAdapter(layout, 7, adapter);
  std::set<float> firsts;
  for (const LoraTensor& tensor : layout.tensors()) {
    const auto values = std::span(adapter).subspan(static_cast<size_t>(tensor.offset),
                                                   static_cast<size_t>(tensor.size));
    const double bound = 1 / std::sqrt(static_cast<double>(tensor.shape[1]));
    double sum = 0, square = 0;
    for (const float value : values) {
      EXPECT_LE(std::abs(value), tensor.is_a ? bound : 0.0);
      sum += value;
      square += static_cast<double>(value) * static_cast<double>(value);
    }
    if (!tensor.is_a) continue;
    const double n = static_cast<double>(values.size());
    EXPECT_NEAR(sum / n, 0, 5 * bound / std::sqrt(3 * n));
    EXPECT_NEAR(square / n, bound * bound / 3, 0.1 * bound * bound);
    EXPECT_TRUE(firsts.insert(values[0]).second) << "streams are shared";
  }
  std::vector<float> other(adapter.size());
  InitAdapter(layout, 8, other);
  EXPECT_NE(adapter, other);
}

TEST(MemoryPlan, GivesUpSpeedBeforeMemoryAndSaysWhatItNeeds) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const LoraLayout layout, LoraLayout::Make(Config(), {.rank = 4}));
  const ModelConfig config = Config();
  const uint64_t all = TrainPassBytes(config, layout, 256, 4, Recompute::kNone);
  const uint64_t least = TrainPassBytes(config, layout, 256, 1, Recompute::kFull);
  PassNeeds needs{.tokens = 256, .micro_batches = 4, .budget_bytes = all, .costly_units = true};
  TUNDRA_ASSERT_OK_AND_ASSIGN(PassPlan plan, PlanTrainPass(config, layout, needs));
  EXPECT_EQ(plan.recompute, Recompute::kNone);
  EXPECT_EQ(plan.micro_batches, 4);
  needs.budget_bytes = all - 1;
  TUNDRA_ASSERT_OK_AND_ASSIGN(plan, PlanTrainPass(config, layout, needs));
  EXPECT_LT(plan.micro_batches, 4);
  needs.budget_bytes = least;
  TUNDRA_ASSERT_OK_AND_ASSIGN(plan, PlanTrainPass(config, layout, needs));
  EXPECT_EQ(plan.recompute, Recompute::kFull);
  EXPECT_EQ(plan.micro_batches, 1);
  // Any number of micro-batches is planned at once.
  needs.micro_batches = int64_t{1} << 24;
  TUNDRA_ASSERT_OK_AND_ASSIGN(plan, PlanTrainPass(config, layout, needs));
  EXPECT_EQ(plan.micro_batches, 1);
  needs.budget_bytes = TrainPassBytes(config, layout, 256, 1000, Recompute::kNone);
  TUNDRA_ASSERT_OK_AND_ASSIGN(plan, PlanTrainPass(config, layout, needs));
  EXPECT_EQ(plan.micro_batches, 1000);
  needs.budget_bytes = least - 1;
  EXPECT_THAT(PlanTrainPass(config, layout, needs),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(std::to_string(least))));
}

TEST(Half, WidensExactly) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0F);
  EXPECT_EQ(HalfToFloat(0xc000), -2.0F);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0F);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24F);
  EXPECT_EQ(HalfToFloat(0x83ff), -1023 * 0x1p-24F);
  EXPECT_EQ(HalfToFloat(0x7c00), INFINITY);
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e01)));
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
}

TEST(ChooseToken, GreedyTakesTheLargestAndSamplingFollowsTheShares) {
  const float logits[] = {0.0F, 2.0F, 2.0F, 1.0F};
  EXPECT_EQ(ChooseToken(logits, 0, 1, 0.9), 1);
  std::vector<int> counts(4);
  for (int i = 0; i < 10000; ++i) {
    ++counts[static_cast<size_t>(ChooseToken(logits, 1, 1, (i + 0.5) / 10000))];
  }
  const double total = 1 + 2 * std::exp(2.0) + std::exp(1.0);
  EXPECT_NEAR(counts[0], 10000 / total, 2);
  EXPECT_NEAR(counts[1], 10000 * std::exp(2.0) / total, 2);
  EXPECT_NEAR(counts[3], 10000 * std::exp(1.0) / total, 2);
  // A nucleus of the two largest.
  for (int i = 0; i < 100; ++i) {
    const int32_t token = ChooseToken(logits, 1, 0.7, i / 100.0);
    EXPECT_TRUE(token == 1 || token == 2);
  }
}

}  // namespace
}  // namespace tundra
