// oneDNN's products: the path of bf16 where a machine has it. In f32 the same code runs on
// every machine, so that its layouts, strides and cache are tested here too.
#include "worker/ops/onednn_matmul.h"

#include <gtest/gtest.h>

#include "worker/ops/cpu_ops.h"
#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

struct Shape {
  int64_t t, n, k;
};
constexpr Shape kShapes[] = {{1, 5, 3}, {20, 70, 33}, {17, 64, 128}};

Backend OneDnn() {
  return {"onednn",
          [](int threads) {
            return CreateCpuDevice({threads, ""});
          },
          [](Device* device) { return CreateCpuOps(device, ProductBackend::kOneDnn); }};
}

TEST(OneDnnProducts, PlainAndPackedMatchTheReference) {
  Bed bed(OneDnn(), 2);
  for (const Shape& s : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Mat x = Random(1, s.t, s.k), w = Random(2, s.n, s.k, dtype), dy = Random(3, s.t, s.n);
      const Mat y0 = Random(4, s.t, s.n);
      const View x_view = bed.Put(x, DType::kF32, 2), w_view = bed.Put(w, dtype, 3);
      const View dy_view = bed.Put(dy, DType::kF32, 1), dx = bed.New(DType::kF32, s.t, s.k, 1);
      for (const bool prepare : {false, true}) {
        FrozenWeight forward = FrozenWeight::Plain(w_view), backward = forward;
        for (auto* one : {&forward, &backward}) {
          if (!prepare) break;
          const Direction direction = one == &forward ? Direction::kForward : Direction::kBackward;
          const size_t bytes = bed.ops().PreparedBytes(s.n, s.k, dtype, direction, Precision::kF32);
          ASSERT_GE(bytes, static_cast<size_t>(s.n * s.k) * 4);
          const View storage = bed.New(DType::kF32, 1, static_cast<int64_t>(bytes / 4));
          auto prepared = bed.ops().PrepareWeight(bed.ctx(), w_view, direction, Precision::kF32,
                                                  storage.data, bytes);
          ASSERT_TRUE(prepared.ok()) << prepared.status();
          *one = *prepared;
        }
        const View y = bed.Put(y0, DType::kF32, 4);
        bed.scratch().ResetPeak();
        ASSERT_OK(
            bed.ops().FrozenMatmul(bed.ctx(), x_view, forward, Precision::kF32, Write::kAdd, y));
        EXPECT_LE(bed.scratch().peak(),
                  bed.ops().MatmulScratchBytes(s.t, forward, Precision::kF32));
        ExpectNear(bed.Get(y), Plus(y0, Times(x, Transposed(w))), 2e-6, "y");
        ASSERT_OK(bed.ops().FrozenMatmulBackward(bed.ctx(), dy_view, backward, Precision::kF32,
                                                 Write::kSet, dx));
        ExpectNear(bed.Get(dx), Times(dy, w), 2e-6, "dx");
      }
    }
  }
}

// More shapes than the cache holds, each twice: primitives leave and come back.
TEST(OneDnnProducts, TheCacheForgetsAndRemakes) {
  Bed bed(OneDnn(), 1);
  const Mat x = Random(1, 300, 4), w = Random(2, 3, 4);
  const View x_view = bed.Put(x), w_view = bed.Put(w);
  const Mat want = Times(x, Transposed(w));
  const View y = bed.New(DType::kF32, 300, 3);
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t t = 1; t <= 300; ++t) {
      ASSERT_OK(bed.ops().FrozenMatmul(bed.ctx(), x_view.Rows(0, t), FrozenWeight::Plain(w_view),
                                       Precision::kF32, Write::kSet, y.Rows(0, t)));
    }
    ExpectNear(bed.Get(y), want, 1e-6, "y");
  }
}

// Chunks are padded with zero rows for oneDNN; the loss must not see them.
TEST(OneDnnProducts, CrossEntropyIsThatOfTheOtherProducts) {
  Bed bed(OneDnn(), 1), own(Backends()[0], 1);
  const Mat hidden = Random(1, 50, 24), w = Random(2, 40, 24);
  std::vector<int32_t> targets;
  for (int32_t i = 0; i < 50; ++i) targets.push_back(i % 5 == 0 ? -1 : i % 40);
  const auto run = [&](Bed& b) {
    const FrozenWeight weight = FrozenWeight::Plain(b.Put(w));
    const View loss = b.New(DType::kF64, 1, 1), dhidden = b.New(DType::kF32, 50, 24);
    EXPECT_TRUE(b.ops()
                    .CrossEntropy(b.ctx(), b.Put(hidden), weight, weight, Precision::kF32,
                                  b.PutTargets(targets), 33, loss, dhidden)
                    .ok());
    return std::pair(b.Get(loss), b.Get(dhidden));
  };
  const auto [loss, dhidden] = run(bed);
  const auto [own_loss, own_dhidden] = run(own);
  ExpectNear(loss, own_loss, 1e-6, "loss");
  ExpectNear(dhidden, own_dhidden, 2e-6, "dhidden");
}

// Asked of oneDNN directly, since the operations only do so where it is native.
TEST(OneDnnProducts, BF16MatchesTheReferenceWhereOneDnnHasIt) {
  Bed bed(OneDnn(), 1);
  OneDnnMatmul matmul(1);
  for (const Shape& s : kShapes) {
    for (const bool packed : {false, true}) {
      const Mat x = Random(1, s.t, s.k, DType::kBF16), w = Random(2, s.n, s.k, DType::kBF16);
      const View w_view = bed.Put(w, DType::kBF16), x_view = bed.Put(x, DType::kBF16);
      const View y = bed.New(DType::kF32, s.t, s.n);
      OneDnnMatmul::Call call;
      call.bf16 = true;
      call.t = s.t;
      call.inner = s.k;
      call.cols = s.n;
      call.in = x_view.data;
      call.in_stride = s.k;
      call.weight = w_view.data;
      call.weight_stride = s.k;
      call.out = y.row<float>(0);
      call.out_stride = s.n;
      if (packed) {
        const size_t bytes = matmul.PackedBytes(s.n, s.k, Direction::kForward, true);
        const View storage = bed.New(DType::kBF16, 1, static_cast<int64_t>(bytes / 2));
        const absl::Status status = matmul.Pack(w_view, Direction::kForward, storage.data);
        if (absl::IsUnimplemented(status)) {
          GTEST_SKIP() << "no packed bf16 weights on this processor: " << status;
        }
        ASSERT_OK(status);
        call.packed = true;
        call.weight = storage.data;
      }
      const absl::Status status = matmul.Run(call);
      if (absl::IsUnimplemented(status)) {
        EXPECT_FALSE(bed.device().native_bf16());
        GTEST_SKIP() << "no bf16 products on this processor: " << status;
      }
      ASSERT_OK(status);
      ExpectNear(bed.Get(y), Times(x, Transposed(w)), 2e-6, "y");
    }
  }
}

}  // namespace
}  // namespace tundra::suite
