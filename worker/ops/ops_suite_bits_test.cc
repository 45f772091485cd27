// The promise behind "same bytes": results depend neither on the number of threads nor,
// for frozen products, on the number of rows.
#include <map>

#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

// Every operation once, on shapes that are cut over threads in all directions.
std::map<std::string, std::string> RunAll(const Backend& backend, int threads) {
  Bed bed(backend, threads, size_t{128} << 20);
  std::map<std::string, std::string> results;
  Ops& ops = bed.ops();
  const auto keep = [&](const std::string& name, const absl::Status& status,
                        const std::vector<View>& outputs) {
    EXPECT_TRUE(status.ok()) << name << ": " << status;
    for (const View& output : outputs) results[name] += bed.Bytes(output);
  };
  const int64_t t = 1100, k = 200, n = 328;
  const View x = bed.Put(Random(1, t, k)), w = bed.Put(Random(2, n, k));
  const View wb = bed.Put(Random(2, n, k, DType::kBF16), DType::kBF16);
  const View y = bed.New(DType::kF32, t, n), dy = bed.Put(Random(3, t, n));
  const View dx = bed.New(DType::kF32, t, k);
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    const FrozenWeight weight = FrozenWeight::Plain(precision == Precision::kF32 ? w : wb);
    const std::string name = precision == Precision::kF32 ? "f32" : "bf16";
    keep("forward " + name, ops.FrozenMatmul(bed.ctx(), x, weight, precision, Write::kSet, y), {y});
    keep("backward " + name,
         ops.FrozenMatmulBackward(bed.ctx(), dy, weight, precision, Write::kSet, dx), {dx});
  }
  const View a = bed.Put(Random(4, 24, k)), b = bed.Put(Random(5, n, 24));
  const View h = bed.New(DType::kF32, t, 24), dh = bed.New(DType::kF32, t, 24);
  const View da = bed.Put(Mat(24, k)), db = bed.Put(Mat(n, 24));
  keep("down", ops.LoraDown(bed.ctx(), x, a, h), {h});
  keep("up", ops.LoraUp(bed.ctx(), h, b, 2.0f, y), {y});
  keep("up backward", ops.LoraUpBackward(bed.ctx(), dy, h, b, 2.0f, dh, db), {dh, db});
  keep("down backward", ops.LoraDownBackward(bed.ctx(), dh, x, a, da, dx), {da, dx});

  const View inv = bed.New(DType::kF32, 1, t), weight_k = bed.Put(Random(6, 1, k));
  const View normed = bed.New(DType::kF32, t, k);
  keep("norm", ops.RmsNorm(bed.ctx(), x, weight_k, {}, normed, inv), {normed, inv});
  const View summed = bed.Put(Random(10, t, k));
  keep("add and norm", ops.AddRmsNorm(bed.ctx(), x, summed, weight_k, {}, normed, inv),
       {summed, normed, inv});
  keep("norm backward",
       ops.RmsNormBackward(bed.ctx(), dx, x, weight_k, inv, {}, Write::kSet, normed), {normed});
  const View act = bed.New(DType::kF32, t, n), dup = bed.New(DType::kF32, t, n);
  for (const Activation f : {Activation::kSilu, Activation::kGeluTanh}) {
    const std::string name = f == Activation::kSilu ? "swiglu" : "geglu";
    keep(name, ops.Glu(bed.ctx(), f, y, dy, act), {act});
    keep(name + " backward", ops.GluBackward(bed.ctx(), f, act, y, dy, act, dup), {act, dup});
  }

  const PackedRows rows{bed.PutInts({0, 70, 700, 1050}), 3, 630};
  const AttentionParams attention{6, 2, 40, 0.15f};
  const View q = bed.Put(Random(7, t, 240)), key = bed.Put(Random(8, t, 80));
  const View v = bed.Put(Random(9, t, 80)), out = bed.New(DType::kF32, t, 240);
  const View lse = bed.New(DType::kF32, t, 6), dq = bed.New(DType::kF32, t, 240);
  const View dk = bed.New(DType::kF32, t, 80), dv = bed.New(DType::kF32, t, 80);
  keep("attention", ops.Attention(bed.ctx(), rows, attention, q, key, v, out, lse), {out, lse});
  keep("attention backward",
       ops.AttentionBackward(bed.ctx(), rows, attention, q, q, key, v, out, lse, dq, dk, dv),
       {dq, dk, dv});

  std::vector<int32_t> targets;
  for (int64_t i = 0; i < t; ++i) targets.push_back(static_cast<int32_t>(i % 4 ? i % n : -1));
  const View loss = bed.New(DType::kF64, 1, 1);
  const FrozenWeight head = FrozenWeight::Plain(w);
  keep("loss",
       ops.CrossEntropy(bed.ctx(), x, head, head, Precision::kF32, bed.PutTargets(targets), 128,
                        loss, dx),
       {loss, dx});
  const View moment1 = bed.Put(Mat(t, n)), moment2 = bed.Put(Mat(t, n));
  // Four tensors, one of them empty and one without an exponent.
  const std::vector<int64_t> ends = {0, 5000, 5000, t * n / 2, t * n};
  const Tensors tensors{bed.PutLongs(ends), 4};
  Mat scale(1, 4);
  scale.v = {1e9, 1e9, 0, 1e7};
  const View scales = bed.Put(scale, DType::kF64), sum = bed.Put(Mat(1, t * n), DType::kI64);
  const View largest = bed.Put(Mat(1, 4)), norm2 = bed.New(DType::kF64, 1, 4);
  const View mean = bed.New(DType::kF32, 1, t * n);
  keep("add gradients", ops.AddGradients(bed.ctx(), tensors, dy.Flat(), scales, largest, sum),
       {largest, sum});
  keep("mean gradients", ops.MeanGradients(bed.ctx(), tensors, sum, scales, 77, mean, norm2),
       {mean, norm2});
  keep("scale", ops.Scale(bed.ctx(), 0.37f, mean), {mean});
  keep("adamw", ops.AdamW(bed.ctx(), {.learning_rate = 0.1}, dy, y, moment1, moment2),
       {y, moment1, moment2});
  keep("adamw flat",
       ops.AdamW(bed.ctx(), {.learning_rate = 0.1}, dy.Flat(), y.Flat(), moment1.Flat(),
                 moment2.Flat()),
       {y, moment1, moment2});
  return results;
}

TEST_P(OpsSuite, BitsAreTheSameForAnyNumberOfThreads) {
  const auto want = RunAll(GetParam(), 1);
  for (const int threads : GetParam().threads) {
    const auto got = RunAll(GetParam(), threads);
    for (const auto& [name, bytes] : want) {
      EXPECT_TRUE(got.at(name) == bytes) << name << " differs at " << threads << " threads";
    }
  }
}

TEST_P(OpsSuite, FrozenProductsHaveTheSameBitsForAnyNumberOfRows) {
  Bed bed(GetParam(), 3);
  const int64_t most = 300;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{100, 300}, {192, 64}, {31, 577}}) {
    for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
      const DType dtype = precision == Precision::kF32 ? DType::kF32 : DType::kBF16;
      const View x = bed.Put(Random(1, most, k)), dy = bed.Put(Random(2, most, n));
      const View w = bed.Put(Random(3, n, k, dtype), dtype);
      const View y = bed.New(DType::kF32, most, n), dx = bed.New(DType::kF32, most, k);
      const FrozenWeight plain = FrozenWeight::Plain(w);
      ASSERT_OK(bed.ops().FrozenMatmul(bed.ctx(), x, plain, precision, Write::kSet, y));
      ASSERT_OK(bed.ops().FrozenMatmulBackward(bed.ctx(), dy, plain, precision, Write::kSet, dx));
      const size_t bytes = bed.ops().PreparedBytes(n, k, dtype, Direction::kForward, precision);
      FrozenWeight prepared = plain;
      if (bytes > 0) {
        const View storage = bed.New(DType::kF32, 1, static_cast<int64_t>(bytes / 4 + 1));
        auto made = bed.ops().PrepareWeight(bed.ctx(), w, Direction::kForward, precision,
                                            storage.data, bytes);
        ASSERT_TRUE(made.ok()) << made.status();
        prepared = *made;
      }
      for (const int64_t rows : {1, 2, 5, 6, 12, 13, 48, 97, 128, 255}) {
        for (const int64_t from : {int64_t{0}, most - rows}) {
          const View y_part = bed.New(DType::kF32, rows, n),
                     dx_part = bed.New(DType::kF32, rows, k);
          const View y_prepared = bed.New(DType::kF32, rows, n);
          ASSERT_OK(bed.ops().FrozenMatmul(bed.ctx(), x.Rows(from, rows), plain, precision,
                                           Write::kSet, y_part));
          ASSERT_OK(bed.ops().FrozenMatmul(bed.ctx(), x.Rows(from, rows), prepared, precision,
                                           Write::kSet, y_prepared));
          ASSERT_OK(bed.ops().FrozenMatmulBackward(bed.ctx(), dy.Rows(from, rows), plain, precision,
                                                   Write::kSet, dx_part));
          ASSERT_TRUE(bed.Bytes(y_part) == bed.Bytes(y.Rows(from, rows))) << rows << " rows";
          // A sharded rank computes from plain weights, an unsharded one from prepared.
          ASSERT_TRUE(bed.Bytes(y_prepared) == bed.Bytes(y_part)) << rows << " rows, prepared";
          ASSERT_TRUE(bed.Bytes(dx_part) == bed.Bytes(dx.Rows(from, rows))) << rows << " rows";
        }
      }
    }
  }
}

}  // namespace
}  // namespace tundra::suite
