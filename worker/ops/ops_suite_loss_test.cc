// Output matrix and cross-entropy in chunks.
#include <cmath>

#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

// A chunk of some rows of the largest vocabulary, and no whole card's memory.
TEST_P(OpsSuite, AChunkOfLogitsHasAReasonableSize) {
  Bed bed(GetParam(), 1);
  EXPECT_GE(bed.ops().preferred_logits_bytes(), size_t{16} << 20);
  EXPECT_LE(bed.ops().preferred_logits_bytes(), size_t{1} << 30);
}

double Reference(const Mat& hidden, const Mat& w, const std::vector<int32_t>& targets) {
  const Mat logits = Times(hidden, Transposed(w));
  double loss = 0;
  for (int64_t t = 0; t < hidden.rows; ++t) {
    const int32_t target = targets[static_cast<size_t>(t)];
    if (target < 0) continue;
    double max = logits(t, 0), sum = 0;
    for (int64_t v = 0; v < w.rows; ++v) max = std::max(max, logits(t, v));
    for (int64_t v = 0; v < w.rows; ++v) sum += std::exp(logits(t, v) - max);
    loss += max + std::log(sum) - logits(t, target);
  }
  return loss;
}

std::vector<int32_t> SomeTargets(int64_t t, int64_t v) {
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < t; ++i) {
    targets.push_back(i % 3 == 1 ? -1 : static_cast<int32_t>((i * 37 + 5) % v));
  }
  return targets;
}

TEST_P(OpsSuite, CrossEntropyMatchesTheReferenceAndItsGradient) {
  Bed bed(GetParam(), 2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t vocabulary : {2, 50, 333}) {
      const int64_t t = 20, d = 24;
      const Mat hidden = Random(1, t, d), w = Random(2, vocabulary, d, dtype);
      const std::vector<int32_t> targets = SomeTargets(t, vocabulary);
      const FrozenWeight weight = FrozenWeight::Plain(bed.Put(w, dtype));
      const View loss = bed.New(DType::kF64, 1, 1), dhidden = bed.New(DType::kF32, t, d, 3);
      bed.scratch().ResetPeak();
      ASSERT_OK(bed.ops().CrossEntropy(bed.ctx(), bed.Put(hidden, DType::kF32, 2), weight, weight,
                                       Precision::kF32, bed.PutTargets(targets), 6, loss, dhidden));
      EXPECT_LE(bed.scratch().peak(),
                bed.ops().LossScratchBytes(6, weight, weight, Precision::kF32));
      EXPECT_NEAR(bed.Get(loss).v[0], Reference(hidden, w, targets),
                  1e-5 * Reference(hidden, w, targets));
      const Mat gradient = bed.Get(dhidden);
      ExpectGradient([&](const Mat& m) { return Reference(m, w, targets); }, hidden, gradient, 1e-5,
                     "dhidden");
      for (int64_t i = 0; i < d; ++i) EXPECT_EQ(gradient(1, i), 0) << "an ignored token";
    }
  }
}

TEST_P(OpsSuite, LossAndItsGradientDoNotDependOnTheChunk) {
  Bed bed(GetParam(), 2);
  const Mat hidden = Random(1, 100, 40);
  const FrozenWeight weight = FrozenWeight::Plain(bed.Put(Random(2, 70, 40)));
  const Targets targets = bed.PutTargets(SomeTargets(100, 70));
  const View hidden_view = bed.Put(hidden);
  std::string first;
  for (const int64_t chunk : {1, 7, 64, 100, 1000}) {
    const View loss = bed.New(DType::kF64, 1, 1), dhidden = bed.New(DType::kF32, 100, 40);
    ASSERT_OK(bed.ops().CrossEntropy(bed.ctx(), hidden_view, weight, weight, Precision::kF32,
                                     targets, chunk, loss, dhidden));
    const std::string bytes = bed.Bytes(loss) + bed.Bytes(dhidden);
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first) << "chunk " << chunk;
    // Validation computes the same loss without a gradient.
    const View alone = bed.New(DType::kF64, 1, 1);
    ASSERT_OK(bed.ops().CrossEntropy(bed.ctx(), hidden_view, weight, weight, Precision::kF32,
                                     targets, chunk, alone, View::None()));
    EXPECT_EQ(bed.Bytes(alone), bed.Bytes(loss));
  }
}

TEST_P(OpsSuite, NoTargetsGiveNoLossAndBadTargetsAnError) {
  Bed bed(GetParam(), 1);
  const FrozenWeight weight = FrozenWeight::Plain(bed.Put(Random(2, 5, 4)));
  const View hidden = bed.Put(Random(1, 3, 4)), loss = bed.New(DType::kF64, 1, 1);
  const View dhidden = bed.New(DType::kF32, 3, 4);
  ASSERT_OK(bed.ops().CrossEntropy(bed.ctx(), hidden, weight, weight, Precision::kF32,
                                   bed.PutTargets({-1, -1, -1}), 2, loss, dhidden));
  EXPECT_EQ(bed.Get(loss).v[0], 0);
  EXPECT_EQ(bed.Get(dhidden).v, Mat(3, 4).v);
  for (const int32_t bad : {5, -2}) {
    EXPECT_EQ(
        bed.Finished(bed.ops().CrossEntropy(bed.ctx(), hidden, weight, weight, Precision::kF32,
                                            bed.PutTargets({0, bad, 1}), 2, loss, dhidden))
            .code(),
        absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(OpsSuite, AWrongNumberOfTargetsIsAnError) {
  Bed bed(GetParam(), 1);
  const FrozenWeight weight = FrozenWeight::Plain(bed.Put(Random(2, 5, 4)));
  const View hidden = bed.Put(Random(1, 3, 4)), loss = bed.New(DType::kF64, 1, 1);
  const View dhidden = bed.New(DType::kF32, 3, 4);
  for (const int64_t count : {0, 1, 3}) {
    const Targets targets{bed.PutInts({4, -1, 1}), count};
    EXPECT_EQ(bed.Finished(bed.ops().CrossEntropy(bed.ctx(), hidden, weight, weight,
                                                  Precision::kF32, targets, 2, loss, dhidden))
                  .code(),
              absl::StatusCode::kInvalidArgument)
        << count;
  }
}

// Over one block of the kernel that finds them, with long stretches of none.
TEST_P(OpsSuite, TargetsAreFoundAmongManyTokens) {
  Bed bed(GetParam(), 2);
  const int64_t t = 2500;
  std::vector<int32_t> ids(static_cast<size_t>(t), -1);
  for (const size_t at : {0, 31, 32, 700, 701, 1023, 1024, 1999, 2499}) {
    ids[at] = static_cast<int32_t>(at % 7);
  }
  const Mat hidden = Random(1, t, 3), w = Random(2, 7, 3);
  const FrozenWeight weight = FrozenWeight::Plain(bed.Put(w));
  const View loss = bed.New(DType::kF64, 1, 1), dhidden = bed.New(DType::kF32, t, 3, 1);
  ASSERT_OK(bed.ops().CrossEntropy(bed.ctx(), bed.Put(hidden), weight, weight, Precision::kF32,
                                   bed.PutTargets(ids), 4, loss, dhidden));
  EXPECT_NEAR(bed.Get(loss).v[0], Reference(hidden, w, ids), 1e-5 * Reference(hidden, w, ids));
  const Mat got = bed.Get(dhidden);
  for (int64_t i = 0; i < t; ++i) {
    EXPECT_EQ(got(i, 0) != 0, ids[static_cast<size_t>(i)] >= 0) << "token " << i;
  }
}

TEST_P(OpsSuite, ANonFiniteHiddenStateGivesANonFiniteLoss) {
  Bed bed(GetParam(), 1);
  Mat hidden = Random(1, 2, 40);
  hidden.v[3] = std::nan("");
  const FrozenWeight weight = FrozenWeight::Plain(bed.Put(Random(2, 33, 40)));
  const View loss = bed.New(DType::kF64, 1, 1);
  ASSERT_OK(bed.ops().CrossEntropy(bed.ctx(), bed.Put(hidden), weight, weight, Precision::kF32,
                                   bed.PutTargets({1, 2}), 2, loss, View::None()));
  EXPECT_TRUE(std::isnan(bed.Get(loss).v[0]));
}

}  // namespace
}  // namespace tundra::suite
