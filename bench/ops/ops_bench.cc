// Speed of the CPU's operations on the shapes of a 135M Llama (hidden 576, intermediate
// 1536, 9 heads over 3 kv heads of 64) and of a tiny one (hidden 192).
// The last argument of each is the number of threads. "FLOP" counts a multiply-add as two.
//   ninja -C build/release ops_bench && OMP_WAIT_POLICY=passive build/release/bin/ops_bench
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "common/check.h"
#include "worker/ops/ops.h"

namespace tundra {
namespace {

class Bed {
 public:
  explicit Bed(int64_t threads)
      : device_(Value(CreateCpuDevice({static_cast<int>(threads), ""}))),
        ops_(Value(CreateCpuOps(device_.get()))),
        stream_(Value(device_->CreateStream())),
        scratch_(std::make_unique<Arena>(Value(Arena::Create(device_.get(), size_t{256} << 20)))) {}

  Ops& ops() { return *ops_; }
  Ctx ctx() { return {stream_.get(), scratch_.get()}; }

  View Random(int64_t rows, int64_t cols) {
    const View view = New(DType::kF32, rows, cols);
    std::minstd_rand engine(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < view.size(); ++i) view.row<float>(0)[i] = uniform(engine);
    return view;
  }
  View New(DType dtype, int64_t rows, int64_t cols) {
    buffers_.push_back(
        Value(device_->Allocate(static_cast<size_t>(rows * cols) * DTypeSize(dtype))));
    std::memset(buffers_.back().data(), 0, buffers_.back().size());
    return buffers_.back().Matrix(dtype, rows, cols);
  }

  template <typename T>
  static T Value(absl::StatusOr<T> value) {
    TUNDRA_CHECK(value.ok()) << value.status();
    return *std::move(value);
  }

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Arena> scratch_;
  std::vector<Buffer> buffers_;
};

void Ok(const absl::Status& status) { TUNDRA_CHECK(status.ok()) << status; }

void CountFlops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] =
      benchmark::Counter(flops * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

// T, N, K, prepared, threads.
void BM_FrozenForward(benchmark::State& state) {
  const int64_t t = state.range(0), n = state.range(1), k = state.range(2);
  Bed bed(state.range(4));
  const View x = bed.Random(t, k), w = bed.Random(n, k), y = bed.New(DType::kF32, t, n);
  FrozenWeight weight = FrozenWeight::Plain(w);
  if (state.range(3) != 0) {
    const size_t bytes =
        bed.ops().PreparedBytes(n, k, DType::kF32, Direction::kForward, Precision::kF32);
    const View storage = bed.New(DType::kF32, 1, static_cast<int64_t>(bytes / 4));
    weight = Bed::Value(bed.ops().PrepareWeight(bed.ctx(), w, Direction::kForward, Precision::kF32,
                                                storage.data, bytes));
  }
  for (auto _ : state) {
    Ok(bed.ops().FrozenMatmul(bed.ctx(), x, weight, Precision::kF32, Write::kSet, y));
  }
  CountFlops(state, 2.0 * static_cast<double>(t * n * k));
}
BENCHMARK(BM_FrozenForward)
    ->ArgsProduct({{1024}, {1536}, {576}, {0, 1}, {1, 2}})
    ->ArgsProduct({{1024}, {192}, {192}, {0, 1}, {1, 2}})
    ->ArgsProduct({{128}, {49152}, {576}, {0, 1}, {1, 2}})
    ->ArgsProduct({{1}, {576}, {576}, {0, 1}, {1}})
    ->UseRealTime();

void BM_FrozenBackward(benchmark::State& state) {
  const int64_t t = state.range(0), n = state.range(1), k = state.range(2);
  Bed bed(state.range(3));
  const View dy = bed.Random(t, n), w = bed.Random(n, k), dx = bed.New(DType::kF32, t, k);
  for (auto _ : state) {
    Ok(bed.ops().FrozenMatmulBackward(bed.ctx(), dy, FrozenWeight::Plain(w), Precision::kF32,
                                      Write::kSet, dx));
  }
  CountFlops(state, 2.0 * static_cast<double>(t * n * k));
}
BENCHMARK(BM_FrozenBackward)->ArgsProduct({{1024}, {1536}, {576}, {1, 2}})->UseRealTime();

// T, N, K, R, threads: all four of one adapted layer, forward and backward.
void BM_Lora(benchmark::State& state) {
  const int64_t t = state.range(0), n = state.range(1), k = state.range(2), r = state.range(3);
  Bed bed(state.range(4));
  const View x = bed.Random(t, k), a = bed.Random(r, k), b = bed.Random(n, r);
  const View y = bed.Random(t, n), h = bed.New(DType::kF32, t, r), dh = bed.New(DType::kF32, t, r);
  const View da = bed.New(DType::kF32, r, k), db = bed.New(DType::kF32, n, r);
  const View dx = bed.New(DType::kF32, t, k);
  for (auto _ : state) {
    Ok(bed.ops().LoraDown(bed.ctx(), x, a, h));
    Ok(bed.ops().LoraUp(bed.ctx(), h, b, 1e-6f, y));
    Ok(bed.ops().LoraUpBackward(bed.ctx(), y, h, b, 1e-6f, dh, db));
    Ok(bed.ops().LoraDownBackward(bed.ctx(), dh, x, a, da, dx));
  }
  CountFlops(state, 6.0 * static_cast<double>(t * r * (n + k)));
}
BENCHMARK(BM_Lora)
    ->ArgsProduct({{1024}, {576}, {576}, {8, 32}, {1, 2}})
    ->ArgsProduct({{1024}, {192}, {192}, {8}, {1, 2}})
    ->UseRealTime();

// Tokens of one row, heads, kv heads, head size, backward, threads. Counts the causal half.
void BM_Attention(benchmark::State& state) {
  const int64_t t = state.range(0);
  const AttentionParams params{static_cast<int>(state.range(1)), static_cast<int>(state.range(2)),
                               static_cast<int>(state.range(3)),
                               1 / std::sqrt(static_cast<float>(state.range(3)))};
  Bed bed(state.range(5));
  const int64_t wide = params.num_heads * params.head_dim;
  const int64_t narrow = params.num_kv_heads * params.head_dim;
  const View offsets = bed.New(DType::kI32, 1, 2);
  offsets.row<int32_t>(0)[1] = static_cast<int32_t>(t);
  const PackedRows rows{offsets, 1, static_cast<int>(t)};
  const View q = bed.Random(t, wide), k = bed.Random(t, narrow), v = bed.Random(t, narrow);
  const View out = bed.New(DType::kF32, t, wide), lse = bed.New(DType::kF32, t, params.num_heads);
  const View dq = bed.New(DType::kF32, t, wide), dk = bed.New(DType::kF32, t, narrow);
  const View dv = bed.New(DType::kF32, t, narrow);
  Ok(bed.ops().Attention(bed.ctx(), rows, params, q, k, v, out, lse));
  for (auto _ : state) {
    if (state.range(4) == 0) {
      Ok(bed.ops().Attention(bed.ctx(), rows, params, q, k, v, out, lse));
    } else {
      Ok(bed.ops().AttentionBackward(bed.ctx(), rows, params, q, q, k, v, out, lse, dq, dk, dv));
    }
  }
  const double products = state.range(4) == 0 ? 2 : 5;
  CountFlops(state, products * static_cast<double>(t * t * wide));
}
BENCHMARK(BM_Attention)
    ->ArgsProduct({{1024}, {9}, {3}, {64}, {0, 1}, {1, 2}})
    ->ArgsProduct({{512}, {6}, {3}, {32}, {0, 1}, {1, 2}})
    ->UseRealTime();

// Chunk of 128 tokens; T, V, D, threads.
void BM_CrossEntropy(benchmark::State& state) {
  const int64_t t = state.range(0), v = state.range(1), d = state.range(2);
  Bed bed(state.range(3));
  const View hidden = bed.Random(t, d), w = bed.Random(v, d), targets = bed.New(DType::kI32, 1, t);
  const View loss = bed.New(DType::kF64, 1, 1), dhidden = bed.New(DType::kF32, t, d);
  const FrozenWeight weight = FrozenWeight::Plain(w);
  for (auto _ : state) {
    Ok(bed.ops().CrossEntropy(bed.ctx(), hidden, weight, weight, Precision::kF32,
                              Targets{targets, t}, 128, loss, dhidden));
  }
  CountFlops(state, 4.0 * static_cast<double>(t * v * d));
}
BENCHMARK(BM_CrossEntropy)
    ->ArgsProduct({{1024}, {2048}, {192}, {1, 2}})
    ->ArgsProduct({{256}, {49152}, {576}, {2}})
    ->UseRealTime();

// T, columns, threads: bytes read and written.
void BM_SwiGlu(benchmark::State& state) {
  Bed bed(state.range(2));
  const View gate = bed.Random(state.range(0), state.range(1));
  const View up = bed.Random(gate.rows, gate.cols);
  const View out = bed.New(DType::kF32, gate.rows, gate.cols);
  for (auto _ : state) Ok(bed.ops().Glu(bed.ctx(), Activation::kSilu, gate, up, out));
  state.SetBytesProcessed(state.iterations() * gate.size() * 12);
}
BENCHMARK(BM_SwiGlu)->ArgsProduct({{1024}, {1536}, {1, 2}})->UseRealTime();

void BM_RmsNorm(benchmark::State& state) {
  Bed bed(state.range(2));
  const View x = bed.Random(state.range(0), state.range(1)), w = bed.Random(1, state.range(1));
  const View y = bed.New(DType::kF32, x.rows, x.cols), inv = bed.New(DType::kF32, 1, x.rows);
  for (auto _ : state) Ok(bed.ops().RmsNorm(bed.ctx(), x, w, {}, y, inv));
  state.SetBytesProcessed(state.iterations() * x.size() * 8);
}
BENCHMARK(BM_RmsNorm)
    ->ArgsProduct({{1024}, {576}, {1, 2}})
    ->ArgsProduct({{16}, {192}, {1}})
    ->UseRealTime();

}  // namespace
}  // namespace tundra

BENCHMARK_MAIN();
