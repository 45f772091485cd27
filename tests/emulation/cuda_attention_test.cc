// The attention kernels on the emulation, in both precisions, and the way through a library
// (plain loops here): against the formulas in double over sizes of head, lengths, rows and
// groups, and that bits depend on a row alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "worker/cuda/attention.h"

namespace tundra::cuda {
namespace {

constexpr float kGap = 12345.0f;  // what lies between rows, before and after
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Device memory of f32 rows `gap` elements further apart than they are long.
class Tensor {
 public:
  Tensor(int64_t rows, int64_t cols, int64_t gap) : rows_(rows), cols_(cols), stride_(cols + gap) {
    void* data = nullptr;
    const size_t bytes = static_cast<size_t>(rows * stride_ + 1) * sizeof(float);
    EXPECT_EQ(cudaMalloc(&data, bytes), cudaSuccess);
    data_ = static_cast<float*>(data);
    std::fill(data_, data_ + rows * stride_, kGap);
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() { EXPECT_EQ(cudaFree(data_), cudaSuccess); }

  float& operator()(int64_t r, int64_t c) { return data_[r * stride_ + c]; }
  View view() { return View(data_, DType::kF32, rows_, cols_, stride_); }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }

  // The gaps are as they were.
  void ExpectGaps(const std::string& what) {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = cols_; c < stride_; ++c) ASSERT_EQ((*this)(r, c), kGap) << what;
    }
  }
  // All bytes of some rows.
  std::string Bytes(int64_t begin, int64_t count) {
    std::string bytes;
    for (int64_t r = begin; r < begin + count; ++r) {
      bytes.append(reinterpret_cast<const char*>(&(*this)(r, 0)),
                   static_cast<size_t>(cols_) * sizeof(float));
    }
    return bytes;
  }

 private:
  int64_t rows_, cols_, stride_;
  float* data_ = nullptr;
};

struct Shape {
  std::vector<int32_t> lengths;
  int padding;
  int heads, kv_heads, dim;
  int gap = 0;
};

// Who computes.
enum class Way { kOwnF32, kOwnBF16, kLibrary };
Precision PrecisionOf(Way way) { return way == Way::kOwnF32 ? Precision::kF32 : Precision::kBF16; }

// The library, or null. Its plans are kept over all tests.
RaggedAttention* LibraryOf(Way way) {
  static RaggedAttention* const library = new RaggedAttention(*OpenRaggedLibrary());
  return way == Way::kLibrary ? library : nullptr;
}

// Operands and results of one forward and backward.
struct Problem {
  Problem(const Shape& shape, Way way)
      : shape(shape),
        library(LibraryOf(way)),
        tokens(std::accumulate(shape.lengths.begin(), shape.lengths.end(), shape.padding)),
        params{shape.heads, shape.kv_heads, shape.dim, 1.0f / std::sqrt(float(shape.dim)),
               PrecisionOf(way)},
        q(tokens, shape.heads * shape.dim, shape.gap),
        k(tokens, shape.kv_heads * shape.dim, shape.gap),
        v(tokens, shape.kv_heads * shape.dim, shape.gap),
        dout(tokens, shape.heads * shape.dim, shape.gap),
        out(tokens, shape.heads * shape.dim, shape.gap),
        lse(tokens, shape.heads, shape.gap),
        dq(tokens, shape.heads * shape.dim, shape.gap),
        dk(tokens, shape.kv_heads * shape.dim, shape.gap),
        dv(tokens, shape.kv_heads * shape.dim, shape.gap) {
    uint32_t seed = 1;
    for (Tensor* x : {&q, &k, &v, &dout}) Fill(*x, seed++);
  }

  void Fill(Tensor& x, uint32_t seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t c = 0; c < x.cols(); ++c) {
        const float value = normal(engine);
        x(r, c) = params.precision == Precision::kBF16 ? ToFloat(ToBF16(value)) : value;
      }
    }
  }

  // "" or what went wrong. found_fault is what the device reported.
  std::string Run() {
    cudaStream_t stream = nullptr;
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, 0), cudaSuccess);
    std::vector<int32_t> offsets(1, 0);
    for (const int32_t length : shape.lengths) offsets.push_back(offsets.back() + length);
    void* offsets_memory = nullptr;
    EXPECT_EQ(cudaMalloc(&offsets_memory, offsets.size() * sizeof(int32_t)), cudaSuccess);
    std::memcpy(offsets_memory, offsets.data(), offsets.size() * sizeof(int32_t));
    const PackedRows rows{
        View::Vector(offsets_memory, DType::kI32, static_cast<int64_t>(offsets.size())),
        static_cast<int>(shape.lengths.size()),
        *std::max_element(shape.lengths.begin(), shape.lengths.end())};
    const size_t scratch_bytes = AttentionScratchBytes(library, tokens, params);
    void* scratch = nullptr;
    EXPECT_EQ(cudaMalloc(&scratch, scratch_bytes), cudaSuccess);
    std::memset(scratch, 0xff, scratch_bytes);

    void* fault = nullptr;
    EXPECT_EQ(cudaMalloc(&fault, sizeof(uint32_t)), cudaSuccess);
    std::memset(fault, 0, sizeof(uint32_t));
    const Queue queue{stream, PointerOf(static_cast<uint32_t*>(fault), 1)};

    EXPECT_TRUE(AttentionForward(queue, library, scratch, rows, params, q.view(), k.view(),
                                 v.view(), out.view(), lse.view())
                    .ok());
    EXPECT_TRUE(AttentionBackward(queue, library, scratch, rows, params, dout.view(), q.view(),
                                  k.view(), v.view(), out.view(), lse.view(), dq.view(), dk.view(),
                                  dv.view())
                    .ok());
    const std::string error(StatusOf(cudaStreamSynchronize(stream), "attention").message());
    EXPECT_EQ(cudaFree(scratch), cudaSuccess);
    found_fault = *static_cast<const uint32_t*>(fault) >> kFaultPlaceBits;
    EXPECT_EQ(cudaFree(fault), cudaSuccess);
    EXPECT_EQ(cudaFree(offsets_memory), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    for (Tensor* x : {&q, &k, &v, &dout, &out, &lse, &dq, &dk, &dv}) x->ExpectGaps("gap");
    return error;
  }

  // Everything that was computed for some tokens.
  std::string Results(int64_t begin, int64_t count) {
    std::string bytes;
    for (Tensor* x : {&out, &lse, &dq, &dk, &dv}) bytes += x->Bytes(begin, count);
    return bytes;
  }

  Shape shape;
  RaggedAttention* library;
  int64_t tokens;
  AttentionParams params;
  Tensor q, k, v, dout, out, lse, dq, dk, dv;
  uint32_t found_fault = 0;
};

using Doubles = std::vector<double>;

// Each |got − want| <= tolerance · the largest |want|. Equal infinities pass.
void ExpectNear(Tensor& got, const Doubles& want, double tolerance, const std::string& what) {
  double largest = 0;
  for (const double x : want) largest = std::isfinite(x) ? std::max(largest, std::abs(x)) : largest;
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      const double x = want[static_cast<size_t>(r * got.cols() + c)];
      if (got(r, c) == x) continue;
      ASSERT_LE(std::abs(got(r, c) - x), tolerance * largest)
          << what << " [" << r << ", " << c << "] is " << got(r, c) << ", not " << x;
    }
  }
}

// The formulas of ops.h, in double, for one row and head.
void AddReference(Problem& p, int64_t begin, int64_t end, int h, Doubles& out, Doubles& lse,
                  Doubles& dq, Doubles& dk, Doubles& dv) {
  const int64_t dim = p.shape.dim, wide = p.q.cols(), narrow = p.k.cols();
  const int64_t at = h * dim, kv = h * p.shape.kv_heads / p.shape.heads * dim;
  for (int64_t t = begin; t < end; ++t) {
    Doubles weight, dp;
    double max = -kInfinity, sum = 0, mean = 0;
    for (int64_t s = begin; s <= t; ++s) {
      double score = 0, dot = 0;
      for (int64_t d = 0; d < dim; ++d) {
        score += double{p.q(t, at + d)} * p.k(s, kv + d);
        dot += double{p.dout(t, at + d)} * p.v(s, kv + d);
      }
      weight.push_back(score * p.params.scale);
      dp.push_back(dot);
      max = std::max(max, weight.back());
    }
    for (double& x : weight) sum += x = std::exp(x - max);
    lse[static_cast<size_t>(t * p.shape.heads + h)] = max + std::log(sum);
    for (size_t i = 0; i < weight.size(); ++i) mean += (weight[i] /= sum) * dp[i];
    for (size_t i = 0; i < weight.size(); ++i) {
      const int64_t s = begin + static_cast<int64_t>(i);
      const double ds = p.params.scale * weight[i] * (dp[i] - mean);
      for (int64_t d = 0; d < dim; ++d) {
        const auto of_query = static_cast<size_t>(t * wide + at + d);
        const auto of_key = static_cast<size_t>(s * narrow + kv + d);
        out[of_query] += weight[i] * p.v(s, kv + d);
        dq[of_query] += ds * p.k(s, kv + d);
        dk[of_key] += ds * p.q(t, at + d);
        dv[of_key] += weight[i] * p.dout(t, at + d);
      }
    }
  }
}

struct Results {
  Doubles out, lse, dq, dk, dv;
};

Results Reference(Problem& p) {
  const auto zeros = [](Tensor& x) { return Doubles(static_cast<size_t>(x.rows() * x.cols())); };
  Results r{zeros(p.out), zeros(p.lse), zeros(p.dq), zeros(p.dk), zeros(p.dv)};
  std::fill(r.lse.begin(), r.lse.end(), -kInfinity);
  int64_t begin = 0;
  for (const int32_t length : p.shape.lengths) {
    for (int h = 0; h < p.shape.heads; ++h) {
      AddReference(p, begin, begin + length, h, r.out, r.lse, r.dq, r.dk, r.dv);
    }
    begin += length;
  }
  return r;
}

void ExpectMatchesTheReference(Problem& p, double tolerance, const std::string& what) {
  const Results want = Reference(p);
  ExpectNear(p.out, want.out, tolerance, what + " out");
  ExpectNear(p.lse, want.lse, tolerance / 10, what + " lse");
  ExpectNear(p.dq, want.dq, tolerance, what + " dq");
  ExpectNear(p.dk, want.dk, tolerance, what + " dk");
  ExpectNear(p.dv, want.dv, tolerance, what + " dv");
}

std::string Name(Way way) {
  return way == Way::kOwnF32 ? "f32" : way == Way::kOwnBF16 ? "bf16" : "library";
}
std::string Name(const Shape& shape, Way way) {
  return Name(way) + " rows of " + testing::PrintToString(shape.lengths) + ", " +
         std::to_string(shape.heads) + "/" + std::to_string(shape.kv_heads) + " heads of " +
         std::to_string(shape.dim);
}

class AttentionKernels : public testing::TestWithParam<Way> {
 protected:
  void TearDown() override { emulation::SetOrder(0); }
};
INSTANTIATE_TEST_SUITE_P(Ways, AttentionKernels,
                         testing::Values(Way::kOwnF32, Way::kOwnBF16, Way::kLibrary),
                         [](const auto& info) { return Name(info.param); });

TEST_P(AttentionKernels, MatchTheFormulas) {
  // Rows of one token, empty ones, lengths that no tile divides, several tiles, padding of more
  // than a tile; groups of 1 to 4; rows that lie at 16-byte boundaries and rows that don't;
  // every size of head that has kernels, and sizes between.
  const Shape shapes[] = {
      {{1}, 0, 1, 1, 1},           {{5, 0, 7, 1}, 3, 2, 2, 8}, {{70, 1, 129}, 0, 4, 2, 16, 3},
      {{65, 40}, 23, 3, 1, 37, 1}, {{150}, 130, 2, 1, 64, 4},  {{33, 64}, 31, 4, 1, 80},
      {{97, 31}, 0, 1, 1, 96, 8},  {{130, 62}, 0, 1, 1, 128},  {{40, 30}, 2, 2, 1, 160, 2},
      {{37, 50}, 9, 1, 1, 192},    {{66, 1}, 13, 1, 1, 256},
  };
  for (const Shape& shape : shapes) {
    const std::string name = Name(shape, GetParam());
    Problem p(shape, GetParam());
    ASSERT_EQ(p.Run(), "") << name;
    EXPECT_EQ(p.found_fault, 0u) << name;
    // bf16: weights and their gradients are rounded to 8 bits; sums are not.
    ExpectMatchesTheReference(p, GetParam() == Way::kOwnF32 ? 3e-6 : 1e-2, name);
  }
}

TEST_P(AttentionKernels, ManyShortRowsMatchTheFormulas) {
  Shape shape{{}, 5, 2, 1, 16};
  for (int i = 0; i < 90; ++i) shape.lengths.push_back(i % 11);
  Problem p(shape, GetParam());
  ASSERT_EQ(p.Run(), "");
  ExpectMatchesTheReference(p, GetParam() == Way::kOwnF32 ? 3e-6 : 1e-2, "many rows");
}

TEST_P(AttentionKernels, GiveTheSameBitsWhateverOrderThreadsAndBlocksRunIn) {
  const Shape shape{{70, 90}, 7, 4, 2, 48};
  Problem p(shape, GetParam());
  std::string first;
  for (const uint32_t order : {0u, 0u, 1u, 5u}) {
    emulation::SetOrder(order);
    ASSERT_EQ(p.Run(), "");
    if (first.empty()) first = p.Results(0, p.tokens);
    EXPECT_TRUE(p.Results(0, p.tokens) == first) << "order " << order;
  }
}

TEST_P(AttentionKernels, ARowsBitsDoNotDependOnWhatIsPackedBesideIt) {
  // The second row alone, and between others, which hold what is not a number.
  const Shape alone{{135}, 0, 2, 1, 40}, packed{{83, 135, 61}, 20, 2, 1, 40, 3};
  Problem one(alone, GetParam()), three(packed, GetParam());
  const Tensor* all[] = {&one.q, &one.k, &one.v, &one.dout};
  Tensor* wide[] = {&three.q, &three.k, &three.v, &three.dout};
  for (int i = 0; i < 4; ++i) {
    Tensor& from = const_cast<Tensor&>(*all[i]);
    for (int64_t r = 0; r < three.tokens; ++r) {
      const bool inside = r >= 83 && r < 83 + 135;
      for (int64_t c = 0; c < from.cols(); ++c) {
        (*wide[i])(r, c) = inside            ? from(r - 83, c)
                           : (r + c) % 3 > 0 ? std::numeric_limits<float>::quiet_NaN()
                                             : std::numeric_limits<float>::infinity();
      }
    }
  }
  ASSERT_EQ(one.Run(), "");
  ASSERT_EQ(three.Run(), "");
  EXPECT_TRUE(three.Results(83, 135) == one.Results(0, 135));
  for (int64_t t = 83 + 135 + 61; t < three.tokens; ++t) {
    EXPECT_EQ(three.out(t, 0), 0);
    EXPECT_EQ(three.lse(t, 0), -kInfinity);
    EXPECT_EQ(three.dq(t, 0), 0);
    EXPECT_EQ(three.dk(t, 0), 0);
    EXPECT_EQ(three.dv(t, 0), 0);
  }
}

TEST_P(AttentionKernels, ANumberThatIsNotFiniteIsSeenInTheResults) {
  const Shape shape{{70, 20}, 6, 2, 1, 24};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (int operand = 0; operand < 4; ++operand) {
      Problem p(shape, GetParam());
      Tensor* operands[] = {&p.q, &p.k, &p.v, &p.dout};
      for (Tensor* x : operands) (*x)(40, 3) = 1;  // so that products are +inf
      (*operands[operand])(40, 3) = bad;
      ASSERT_EQ(p.Run(), "");
      // Token 40 sees itself, in every operand; its gradients and those that came of it.
      const bool seen = operand < 3 ? !std::isfinite(p.out(40, 0)) || !std::isfinite(p.out(40, 3))
                                    : !std::isfinite(p.dv(40, 3));
      EXPECT_TRUE(seen) << operand;
      EXPECT_FALSE(std::isfinite(p.dq(40, 0))) << operand;
      EXPECT_FALSE(std::isfinite(p.dk(40, 0))) << operand;
      for (int64_t t = 70; t < 90; ++t) EXPECT_TRUE(std::isfinite(p.dk(t, 3))) << operand;
    }
  }
}

TEST_P(AttentionKernels, LargeScoresDoNotOverflow) {
  const Shape shape{{90}, 0, 1, 1, 16};
  Problem p(shape, GetParam());
  for (Tensor* x : {&p.q, &p.k}) {
    for (int64_t r = 0; r < x->rows(); ++r) {
      for (int64_t c = 0; c < x->cols(); ++c) (*x)(r, c) *= 32;
    }
  }
  ASSERT_EQ(p.Run(), "");
  // Scores reach thousands, where f32 itself is off by 1e-3 and a query sees one key alone.
  const Results want = Reference(p);
  ExpectNear(p.out, want.out, 1e-2, "out");
  ExpectNear(p.lse, want.lse, 1e-6, "lse");
  ExpectNear(p.dv, want.dv, 1e-2, "dv");
  for (Tensor* x : {&p.dq, &p.dk}) {
    for (int64_t r = 0; r < x->rows(); ++r) {
      for (int64_t c = 0; c < x->cols(); ++c) EXPECT_LT(std::abs((*x)(r, c)), 1e-3f);
    }
  }
}

TEST_P(AttentionKernels, WrongOffsetsAreReportedAndTouchNoOtherMemory) {
  // Every access is checked by the emulation; results are of no use.
  for (const std::vector<int32_t>& lengths :
       {std::vector<int32_t>{50, -70, 90}, {300}, {-9, 40}, {10, -10, 200}}) {
    Shape shape{{60}, 30, 2, 1, 8};
    Problem p(shape, GetParam());
    p.shape.lengths = lengths;
    EXPECT_EQ(p.Run(), "") << testing::PrintToString(lengths);
    EXPECT_EQ(p.found_fault, static_cast<uint32_t>(Fault::kOffsets));
  }
}

TEST(AttentionScratch, IsLinearInTheTokens) {
  for (const Way way : {Way::kOwnF32, Way::kOwnBF16, Way::kLibrary}) {
    const AttentionParams params{32, 8, 128, 1.0f, PrecisionOf(way)};
    const size_t one = AttentionScratchBytes(LibraryOf(way), 1 << 10, params);
    EXPECT_LE(AttentionScratchBytes(LibraryOf(way), 1 << 20, params), one << 10);
    EXPECT_GT(one, 0u);
  }
}

}  // namespace
}  // namespace tundra::cuda
