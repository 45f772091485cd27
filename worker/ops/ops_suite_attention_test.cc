// Attention over packed rows, forward and backward.
#include <cmath>
#include <limits>

#include "worker/ops/ops_suite.h"

namespace tundra::suite {
namespace {

struct Case {
  std::vector<int32_t> offsets;
  int64_t t;
  int heads, kv_heads, dim;
};

// Padding, empty rows, rows of one token, several blocks, GQA, MQA, odd head sizes.
const Case kCases[] = {
    {{0, 1}, 1, 1, 1, 4},      {{0, 5, 5, 12}, 16, 2, 2, 8},  {{0, 70, 71, 200}, 200, 4, 2, 16},
    {{0, 130}, 130, 9, 3, 64}, {{0, 33, 100}, 110, 3, 1, 37}, {{0, 50}, 50, 10, 1, 24},
    {{0, 60}, 64, 2, 1, 256},
};

PackedRows Rows(Bed& bed, const Case& c) {
  PackedRows rows{bed.PutInts(c.offsets), static_cast<int>(c.offsets.size()) - 1, 0};
  for (size_t i = 1; i < c.offsets.size(); ++i) {
    rows.max_length = std::max(rows.max_length, c.offsets[i] - c.offsets[i - 1]);
  }
  return rows;
}

// out, and lse when asked.
Mat Reference(const Case& c, double scale, const Mat& q, const Mat& k, const Mat& v, Mat* lse) {
  Mat out(c.t, c.heads * c.dim);
  if (lse != nullptr) {
    *lse = Mat(c.t, c.heads);
    std::fill(lse->v.begin(), lse->v.end(), -std::numeric_limits<double>::infinity());
  }
  for (size_t row = 0; row + 1 < c.offsets.size(); ++row) {
    for (int64_t t = c.offsets[row]; t < c.offsets[row + 1]; ++t) {
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t g = h * c.kv_heads / c.heads;
        std::vector<double> scores;
        double max = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t s = c.offsets[row]; s <= t; ++s) {
          double dot = 0;
          for (int64_t d = 0; d < c.dim; ++d) dot += q(t, h * c.dim + d) * k(s, g * c.dim + d);
          scores.push_back(dot * scale);
          max = std::max(max, scores.back());
        }
        for (double& score : scores) sum += score = std::exp(score - max);
        for (size_t i = 0; i < scores.size(); ++i) {
          const int64_t s = c.offsets[row] + static_cast<int64_t>(i);
          for (int64_t d = 0; d < c.dim; ++d) {
            out(t, h * c.dim + d) += scores[i] / sum * v(s, g * c.dim + d);
          }
        }
        if (lse != nullptr) (*lse)(t, h) = max + std::log(sum);
      }
    }
  }
  return out;
}

struct Gradients {
  Mat dq, dk, dv;
};

// From the formulas: ds = p (dp − Σ p dp), for rows that differences would take too long on.
Gradients ReferenceGradients(const Case& c, double scale, const Mat& q, const Mat& k, const Mat& v,
                             const Mat& dout) {
  Gradients g{Mat(c.t, c.heads * c.dim), Mat(c.t, c.kv_heads * c.dim),
              Mat(c.t, c.kv_heads * c.dim)};
  for (size_t row = 0; row + 1 < c.offsets.size(); ++row) {
    const int64_t begin = c.offsets[row];
    for (int64_t t = begin; t < c.offsets[row + 1]; ++t) {
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t at = h * c.dim, kv = h * c.kv_heads / c.heads * c.dim;
        std::vector<double> p, dp;
        double max = -std::numeric_limits<double>::infinity(), sum = 0, mean = 0;
        for (int64_t s = begin; s <= t; ++s) {
          double score = 0, dot = 0;
          for (int64_t d = 0; d < c.dim; ++d) {
            score += scale * q(t, at + d) * k(s, kv + d);
            dot += dout(t, at + d) * v(s, kv + d);
          }
          p.push_back(score);
          dp.push_back(dot);
          max = std::max(max, score);
        }
        for (double& x : p) sum += x = std::exp(x - max);
        for (size_t i = 0; i < p.size(); ++i) mean += (p[i] /= sum) * dp[i];
        for (size_t i = 0; i < p.size(); ++i) {
          const int64_t s = begin + static_cast<int64_t>(i);
          const double ds = scale * p[i] * (dp[i] - mean);
          for (int64_t d = 0; d < c.dim; ++d) {
            g.dq(t, at + d) += ds * k(s, kv + d);
            g.dk(s, kv + d) += ds * q(t, at + d);
            g.dv(s, kv + d) += p[i] * dout(t, at + d);
          }
        }
      }
    }
  }
  return g;
}

TEST_P(OpsSuite, AttentionMatchesTheReferenceAndItsGradient) {
  Bed bed(GetParam(), 2);
  for (const Case& c : kCases) {
    const std::string what = testing::PrintToString(c.offsets) + " dim " + std::to_string(c.dim);
    const AttentionParams params{c.heads, c.kv_heads, c.dim,
                                 1.0f / std::sqrt(static_cast<float>(c.dim))};
    const Mat q = Random(1, c.t, c.heads * c.dim), k = Random(2, c.t, c.kv_heads * c.dim);
    const Mat v = Random(3, c.t, c.kv_heads * c.dim), g = Random(4, c.t, c.heads * c.dim);
    const PackedRows rows = Rows(bed, c);
    const View q_view = bed.Put(q, DType::kF32, 3), k_view = bed.Put(k, DType::kF32, 2);
    const View v_view = bed.Put(v, DType::kF32, 1), dout = bed.Put(g);
    const View out = bed.New(DType::kF32, c.t, c.heads * c.dim, 5);
    const View lse = bed.New(DType::kF32, c.t, c.heads, 1);
    ASSERT_OK(bed.ops().Attention(bed.ctx(), rows, params, q_view, k_view, v_view, out, lse));
    Mat lse_want;
    ExpectNear(bed.Get(out), Reference(c, params.scale, q, k, v, &lse_want), 3e-6, what + " out");
    ExpectNear(bed.Get(lse), lse_want, 3e-6, what + " lse");

    const View dq = bed.New(DType::kF32, c.t, c.heads * c.dim, 1);
    const View dk = bed.New(DType::kF32, c.t, c.kv_heads * c.dim, 2);
    const View dv = bed.New(DType::kF32, c.t, c.kv_heads * c.dim, 3);
    ASSERT_OK(bed.ops().AttentionBackward(bed.ctx(), rows, params, dout, q_view, k_view, v_view,
                                          out, lse, dq, dk, dv));
    const Gradients want = ReferenceGradients(c, params.scale, q, k, v, g);
    ExpectNear(bed.Get(dq), want.dq, 3e-6, what + " dq");
    ExpectNear(bed.Get(dk), want.dk, 3e-6, what + " dk");
    ExpectNear(bed.Get(dv), want.dv, 3e-6, what + " dv");
    if (c.t > 20) continue;
    const auto f = [&](const Mat& q, const Mat& k, const Mat& v) {
      const Mat y = Reference(c, params.scale, q, k, v, nullptr);
      double sum = 0;
      for (size_t i = 0; i < y.v.size(); ++i) sum += g.v[i] * y.v[i];
      return sum;
    };
    ExpectGradient([&](const Mat& m) { return f(m, k, v); }, q, bed.Get(dq), 1e-5, what + " dq");
    ExpectGradient([&](const Mat& m) { return f(q, m, v); }, k, bed.Get(dk), 1e-5, what + " dk");
    ExpectGradient([&](const Mat& m) { return f(q, k, m); }, v, bed.Get(dv), 1e-5, what + " dv");
  }
}

TEST_P(OpsSuite, AttentionOfARowDoesNotDependOnWhatIsPackedBesideIt) {
  Bed bed(GetParam(), 2);
  const AttentionParams params{4, 2, 16, 0.25f};
  const Mat q = Random(1, 300, 64), k = Random(2, 300, 32), v = Random(3, 300, 32);
  const Mat g = Random(4, 300, 64);
  const auto run = [&](int64_t from, int64_t t, std::vector<int32_t> offsets, int64_t take) {
    const Case c{offsets, t, 4, 2, 16};
    const auto part = [&](const Mat& m) { return bed.Put(m).Rows(from, t); };
    const View out = bed.New(DType::kF32, t, 64), lse = bed.New(DType::kF32, t, 4);
    const View dq = bed.New(DType::kF32, t, 64), dk = bed.New(DType::kF32, t, 32);
    const View dv = bed.New(DType::kF32, t, 32);
    const PackedRows rows = Rows(bed, c);
    EXPECT_TRUE(
        bed.ops().Attention(bed.ctx(), rows, params, part(q), part(k), part(v), out, lse).ok());
    EXPECT_TRUE(bed.ops()
                    .AttentionBackward(bed.ctx(), rows, params, part(g), part(q), part(k), part(v),
                                       out, lse, dq, dk, dv)
                    .ok());
    std::string bytes;
    for (const View& x : {out, lse, dq, dk, dv}) bytes += bed.Bytes(x.Rows(take, 150));
    return bytes;
  };
  // Tokens [100, 250) alone, and as the second of three rows with padding.
  EXPECT_EQ(run(100, 150, {0, 150}, 0), run(0, 300, {0, 100, 250, 290}, 100));
}

// A device may round factors of products to bf16; a CPU computes in f32.
TEST_P(OpsSuite, AttentionInBf16MatchesTheReference) {
  Bed bed(GetParam(), 2);
  const Case c{{0, 70, 71, 130}, 140, 4, 2, 40};
  const AttentionParams params{c.heads, c.kv_heads, c.dim, 0.15f, Precision::kBF16};
  const auto random = [&](uint32_t seed, int heads) {
    return Random(seed, c.t, heads * c.dim, DType::kBF16);
  };
  const Mat q = random(1, c.heads), k = random(2, c.kv_heads), v = random(3, c.kv_heads);
  const Mat g = random(4, c.heads);
  const PackedRows rows = Rows(bed, c);
  const View q_view = bed.Put(q), k_view = bed.Put(k), v_view = bed.Put(v);
  const View out = bed.New(DType::kF32, c.t, c.heads * c.dim);
  const View lse = bed.New(DType::kF32, c.t, c.heads);
  ASSERT_OK(bed.ops().Attention(bed.ctx(), rows, params, q_view, k_view, v_view, out, lse));
  Mat lse_want;
  ExpectNear(bed.Get(out), Reference(c, params.scale, q, k, v, &lse_want), 1e-2, "out");
  ExpectNear(bed.Get(lse), lse_want, 1e-5, "lse");
  const View dq = bed.New(DType::kF32, c.t, c.heads * c.dim);
  const View dk = bed.New(DType::kF32, c.t, c.kv_heads * c.dim);
  const View dv = bed.New(DType::kF32, c.t, c.kv_heads * c.dim);
  ASSERT_OK(bed.ops().AttentionBackward(bed.ctx(), rows, params, bed.Put(g), q_view, k_view, v_view,
                                        out, lse, dq, dk, dv));
  const Gradients want = ReferenceGradients(c, params.scale, q, k, v, g);
  ExpectNear(bed.Get(dq), want.dq, 1e-2, "dq");
  ExpectNear(bed.Get(dk), want.dk, 1e-2, "dk");
  ExpectNear(bed.Get(dv), want.dv, 1e-2, "dv");
}

// In bf16 a library's kernel may depend on how many rows and tokens there are and on the longest
// row. With these alike, what lies beside a row, and where it begins, does not count.
TEST_P(OpsSuite, AttentionInBf16OfARowDoesNotDependOnItsNeighbours) {
  Bed bed(GetParam(), 2);
  const AttentionParams params{4, 2, 64, 0.125f, Precision::kBF16};
  const auto run = [&](uint32_t seed, int32_t begin) {
    const Case c{{0, begin, begin + 150, 290}, 300, 4, 2, 64};
    const auto operand = [&](uint32_t number, int heads) {
      Mat all = Random(seed + number, c.t, heads * c.dim);
      const Mat row = Random(number, 150, heads * c.dim);
      for (int64_t r = 0; r < row.rows; ++r) {
        for (int64_t i = 0; i < row.cols; ++i) all(begin + r, i) = row(r, i);
      }
      return bed.Put(all);
    };
    const View q = operand(1, 4), k = operand(2, 2), v = operand(3, 2), dout = operand(4, 4);
    const View out = bed.New(DType::kF32, c.t, 256), lse = bed.New(DType::kF32, c.t, 4);
    const View dq = bed.New(DType::kF32, c.t, 256), dk = bed.New(DType::kF32, c.t, 128);
    const View dv = bed.New(DType::kF32, c.t, 128);
    const PackedRows rows = Rows(bed, c);
    EXPECT_TRUE(bed.ops().Attention(bed.ctx(), rows, params, q, k, v, out, lse).ok());
    EXPECT_TRUE(bed.ops()
                    .AttentionBackward(bed.ctx(), rows, params, dout, q, k, v, out, lse, dq, dk, dv)
                    .ok());
    std::string bytes;
    for (const View& x : {out, lse, dq, dk, dv}) bytes += bed.Bytes(x.Rows(begin, 150));
    return bytes;
  };
  EXPECT_TRUE(run(10, 100) == run(20, 83));
}

TEST_P(OpsSuite, AttentionNeedsTheScratchItSaysAndNoMore) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    const Case c{{0, 50, 90}, 100, 3, 1, 20};
    const AttentionParams params{c.heads, c.kv_heads, c.dim, 0.2f, precision};
    Bed plain(GetParam(), 1);
    const size_t needed = plain.ops().AttentionScratchBytes(c.t, params);
    // Beside the workspace of any operation, and what alignment takes.
    Bed bed(GetParam(), 1, plain.ops().workspace_bytes() + needed + 2 * Arena::kAlignment);
    const View q = bed.Put(Random(1, c.t, 60)), k = bed.Put(Random(2, c.t, 20));
    const View out = bed.New(DType::kF32, c.t, 60), lse = bed.New(DType::kF32, c.t, 3);
    const View dq = bed.New(DType::kF32, c.t, 60), dk = bed.New(DType::kF32, c.t, 20);
    const View dv = bed.New(DType::kF32, c.t, 20);
    const PackedRows rows = Rows(bed, c);
    ASSERT_OK(bed.ops().Attention(bed.ctx(), rows, params, q, k, k, out, lse));
    ASSERT_OK(
        bed.ops().AttentionBackward(bed.ctx(), rows, params, q, q, k, k, out, lse, dq, dk, dv));
    ASSERT_OK(bed.Finished(absl::OkStatus()));
    // Memory is linear in the tokens.
    EXPECT_LE(bed.ops().AttentionScratchBytes(c.t * 1000, params), needed * 1000);
  }
}

TEST_P(OpsSuite, AttentionSurvivesLargeScores) {
  Bed bed(GetParam(), 1);
  const Case c{{0, 90}, 90, 1, 1, 16};
  const AttentionParams params{1, 1, 16, 1.0f};
  const Mat q = Random(1, 90, 16, DType::kF32, 30), k = Random(2, 90, 16, DType::kF32, 30);
  const Mat v = Random(3, 90, 16);
  const View out = bed.New(DType::kF32, 90, 16), lse = bed.New(DType::kF32, 90, 1);
  ASSERT_OK(bed.ops().Attention(bed.ctx(), Rows(bed, c), params, bed.Put(q), bed.Put(k), bed.Put(v),
                                out, lse));
  // Scores reach ±10,000, where f32 itself is off by 1e-3.
  ExpectNear(bed.Get(out), Reference(c, 1.0, q, k, v, nullptr), 1e-2, "out");
}

TEST_P(OpsSuite, AttentionRefusesBadRowsAndHeads) {
  Bed bed(GetParam(), 1);
  const View x = bed.Put(Random(1, 8, 8)), lse = bed.New(DType::kF32, 8, 2);
  const AttentionParams params{2, 2, 4, 1.0f};
  const auto code = [&](const PackedRows& rows, const AttentionParams& params) {
    return bed
        .Finished(
            bed.ops().Attention(bed.ctx(), rows, params, x, x, x, bed.New(DType::kF32, 8, 8), lse))
        .code();
  };
  EXPECT_EQ(code({bed.PutInts({0, 8}), 1, 8}, params), absl::StatusCode::kOk);
  EXPECT_EQ(code({bed.PutInts({0, 9}), 1, 9}, params), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({bed.PutInts({0, 8}), 1, 7}, params), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({bed.PutInts({0, 5, 3}), 2, 8}, params), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({bed.PutInts({1, 8}), 1, 8}, params), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({bed.PutInts({0, 8}), 1, 8}, {2, 0, 4, 1.0f}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({bed.PutInts({0, 8}), 1, 8}, {3, 2, 4, 1.0f}), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tundra::suite
