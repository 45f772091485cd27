// What goes to a library's attention and what to the own kernels, which plans are made and kept,
// and what the numerics class says of it.
#include "worker/cuda/ragged_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "worker/cuda/device_cuda.h"

namespace tundra::cuda {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

class FakePlan final : public RaggedPlan {
 public:
  using RaggedPlan::RaggedPlan;
  absl::Status Run(cudaStream_t, const RaggedBuffers&) override { return absl::OkStatus(); }
};

// Counts what it is asked for.
struct FakeLibrary final : RaggedLibrary {
  bool has_backward() const override { return backward; }
  absl::StatusOr<std::unique_ptr<RaggedPlan>> MakePlan(Direction direction,
                                                       const RaggedShape& shape) override {
    ++asked;
    if (!answer.ok()) return answer;
    const size_t limit = RaggedWorkspaceLimit(direction, shape);
    return std::unique_ptr<RaggedPlan>(
        std::make_unique<FakePlan>(shape, limit + (too_large ? 1 : 0)));
  }

  bool backward = true;
  bool too_large = false;
  absl::Status answer;
  int asked = 0;
};

struct Bed {
  RaggedPlan* Plan(Direction direction, const AttentionParams& params, int rows, int longest,
                   int64_t tokens) {
    const auto plan = attention.PlanFor(direction, params, {ConstView(), rows, longest}, tokens);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? *plan : nullptr;
  }

  FakeLibrary* sdpa = new FakeLibrary;
  RaggedAttention attention{std::unique_ptr<RaggedLibrary>(sdpa)};
};

const AttentionParams kParams{8, 2, 64, 0.125f, Precision::kBF16};

TEST(RaggedAttention, APlanIsMadeOnceForAllWorkOfItsRoundedShape) {
  Bed bed;
  RaggedPlan* const plan = bed.Plan(Direction::kForward, kParams, 5, 300, 1000);
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(plan->shape(), (RaggedShape{8, 2, 64, 0.125f, 8, 512, 1024}));
  EXPECT_EQ(bed.Plan(Direction::kForward, kParams, 8, 512, 1024), plan);
  EXPECT_EQ(bed.Plan(Direction::kForward, kParams, 6, 257, 900), plan);
  EXPECT_EQ(bed.sdpa->asked, 1);
  // Another direction, more rows, a longer one, more tokens, another scale.
  EXPECT_NE(bed.Plan(Direction::kBackward, kParams, 5, 300, 1000), plan);
  EXPECT_NE(bed.Plan(Direction::kForward, kParams, 9, 300, 1000), plan);
  EXPECT_NE(bed.Plan(Direction::kForward, kParams, 5, 513, 1000), plan);
  EXPECT_NE(bed.Plan(Direction::kForward, kParams, 5, 300, 1025), plan);
  AttentionParams other = kParams;
  other.scale = 0.25f;
  EXPECT_NE(bed.Plan(Direction::kForward, other, 5, 300, 1000), plan);
  EXPECT_EQ(bed.sdpa->asked, 6);
}

TEST(RaggedAttention, ShapesAreRoundedUpByLittle) {
  int64_t before = 0;
  for (int64_t tokens = 1; tokens < 100000; tokens += 37) {
    const int64_t rounded = RaggedShapeOf(kParams, PackedRows(), tokens).tokens;
    EXPECT_GE(rounded, tokens);
    EXPECT_LE(rounded, tokens + std::max<int64_t>(127, tokens / 8));
    EXPECT_EQ(rounded % 128, 0);
    EXPECT_GE(rounded, before);
    before = rounded;
  }
  EXPECT_EQ(RaggedShapeOf(kParams, {ConstView(), 0, 0}, 1),
            (RaggedShape{8, 2, 64, 0.125f, 1, 128, 128}));
}

TEST(RaggedAttention, WhatTheLibraryHasNoKernelForIsTheOwnKernelsFromThenOn) {
  Bed bed;
  bed.sdpa->answer = absl::UnimplementedError("heads of 64");
  EXPECT_EQ(bed.Plan(Direction::kForward, kParams, 5, 300, 1000), nullptr);
  bed.sdpa->answer = absl::OkStatus();
  EXPECT_EQ(bed.Plan(Direction::kForward, kParams, 5, 300, 1000), nullptr);
  EXPECT_EQ(bed.sdpa->asked, 1);
  EXPECT_NE(bed.Plan(Direction::kBackward, kParams, 5, 300, 1000), nullptr);
}

TEST(RaggedAttention, APlanThatWantsMoreMemoryThanThereIsIsNotUsed) {
  Bed bed;
  bed.sdpa->too_large = true;
  EXPECT_EQ(bed.Plan(Direction::kBackward, kParams, 5, 300, 1000), nullptr);
  bed.sdpa->too_large = false;
  EXPECT_EQ(bed.Plan(Direction::kBackward, kParams, 5, 300, 1000), nullptr);
  EXPECT_EQ(bed.sdpa->asked, 1);
}

TEST(RaggedAttention, AFailureIsToldAndTheNextCallTriesAgain) {
  Bed bed;
  bed.sdpa->answer = absl::InternalError("out of luck");
  const auto plan = bed.attention.PlanFor(Direction::kForward, kParams, {ConstView(), 1, 10}, 100);
  EXPECT_EQ(plan.status(), bed.sdpa->answer);
  bed.sdpa->answer = absl::OkStatus();
  EXPECT_NE(bed.Plan(Direction::kForward, kParams, 1, 10, 100), nullptr);
}

TEST(RaggedAttention, TheLibraryIsNotAskedForWhatItIsNotMeantFor) {
  Bed bed;
  AttentionParams full = kParams, odd = kParams;
  full.precision = Precision::kF32;
  odd.head_dim = 60;
  EXPECT_EQ(bed.Plan(Direction::kForward, full, 5, 300, 1000), nullptr);
  EXPECT_EQ(bed.Plan(Direction::kForward, odd, 5, 300, 1000), nullptr);
  // More rows than the scratch memory has room for.
  EXPECT_EQ(bed.Plan(Direction::kForward, kParams, 129, 1, 100), nullptr);
  bed.sdpa->backward = false;
  EXPECT_EQ(bed.Plan(Direction::kBackward, kParams, 5, 300, 1000), nullptr);
  EXPECT_EQ(bed.sdpa->asked, 0);
  EXPECT_EQ(bed.attention.ScratchBytes(1000, full), 0u);
  EXPECT_EQ(bed.attention.ScratchBytes(1000, odd), 0u);
}

TEST(RaggedAttention, ScratchMemoryGrowsWithTheTokensAndIsLessWithoutABackward) {
  Bed bed;
  size_t before = 0;
  for (int64_t tokens = 1; tokens < 10000; tokens += 41) {
    const size_t bytes = bed.attention.ScratchBytes(tokens, kParams);
    EXPECT_GE(bytes, before) << tokens;
    before = bytes;
  }
  bed.sdpa->backward = false;
  EXPECT_LT(bed.attention.ScratchBytes(9983, kParams), before / 2);
}

class Choice : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(unsetenv(kAttentionVariable), 0); }
  void TearDown() override { ASSERT_EQ(unsetenv(kAttentionVariable), 0); }
  std::string NumericsClass() {
    const auto device = CudaDevice::Create(0);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? (*device)->numerics_class() : "";
  }
};

TEST_F(Choice, TheNumericsClassNamesALibraryThatIsUsed) {
  EXPECT_THAT(NumericsClass(), EndsWith("/emulated/cudnn-emulated"));
  ASSERT_EQ(setenv(kAttentionVariable, "cudnn", 1), 0);
  EXPECT_THAT(NumericsClass(), EndsWith("/emulated/cudnn-emulated"));
  ASSERT_EQ(setenv(kAttentionVariable, "own", 1), 0);
  EXPECT_THAT(NumericsClass(), EndsWith("/emulated"));
}

TEST_F(Choice, AnotherValueIsRefusedWithTheOnesThatThereAre) {
  ASSERT_EQ(setenv(kAttentionVariable, "fast", 1), 0);
  const absl::Status status = CudaDevice::Create(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("TUNDRA_CUDA_ATTENTION is \"fast\"; set it to own or to cudnn"));
}

}  // namespace
}  // namespace tundra::cuda
