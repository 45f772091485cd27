// Causal attention over packed rows, in blocks, forward and backward.
//
// A block is kQueries query tokens of one head against kKeys key tokens of its kv head:
// the scores stay in the first-level cache, softmax runs online (forward) or from the
// saved log-sum-exp (backward). Blocks are counted from a row's own first token, so a
// row's bits don't depend on what is packed beside it.
// Work is split by outputs: forward by (row, kv head, query block), backward by (row, kv
// head), which owns dk and dv of the kv head and dq of its query heads.
// Source: Dao et al. 2022, arXiv:2205.14135.
#include "worker/ops/attention_cpu.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/ops/attention_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/ops/gemm_inl.h"
#include "worker/ops/vector_inl.h"

HWY_BEFORE_NAMESPACE();
namespace tundra {
namespace HWY_NAMESPACE {

static_assert(kNr <= AttentionWork::kMaxPanel && kMr <= AttentionWork::kMaxRowGroup);
static_assert(kKeys % kNr == 0 && kQueries % kMr == 0);

// Factors of a product whose operands are in cache.
struct Block {
  const float* a;
  int64_t a_m, a_k;
  const float* b;
  int64_t b_k;  // row stride of B in place; 0: panels of kNr columns, each [k][kNr]
};

// C [m, n] (=|+=) A·B over k. Nothing beyond the m rows and n columns is read or written.
void BlockProduct(const Block& f, int64_t m, int64_t n, int64_t k, float* c, int64_t c_m,
                  bool accumulate, AttentionWork& work) {
  HWY_ALIGN float tile[kMr * kNr];
  const int64_t full = m / kMr * kMr;
  if (full < m) {
    // The last rows that don't fill a group, [k][kMr], so that the kernel reads no
    // further than A goes.
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t i = 0; i < kMr; ++i) {
        work.pad[p * kMr + i] = full + i < m ? f.a[(full + i) * f.a_m + p * f.a_k] : 0;
      }
    }
  }
  for (int64_t n0 = 0; n0 < n; n0 += kNr) {
    const int64_t cols = std::min(kNr, n - n0);
    const float* b = f.b_k == 0 ? f.b + n0 * k : f.b + n0;
    int64_t b_k = f.b_k == 0 ? kNr : f.b_k;
    if (f.b_k != 0 && cols < kNr) {
      for (int64_t p = 0; p < k; ++p) {
        for (int64_t j = 0; j < kNr; ++j) {
          work.tail[p * kNr + j] = j < cols ? b[p * f.b_k + j] : 0;
        }
      }
      b = work.tail;
      b_k = kNr;
    }
    for (int64_t m0 = 0; m0 < m; m0 += kMr) {
      const bool whole = m0 < full;
      const float* a = whole ? f.a + m0 * f.a_m : work.pad;
      const int64_t a_m = whole ? f.a_m : 1;
      const int64_t a_k = whole ? f.a_k : kMr;
      if (whole && cols == kNr) {
        GemmKernel<2>(k, a, a_m, a_k, b, b_k, c + m0 * c_m + n0, c_m, accumulate);
      } else {
        GemmTileEdge(std::min(kMr, m - m0), cols, k, a, a_m, a_k, b, b_k, c + m0 * c_m + n0, c_m,
                     accumulate, tile);
      }
    }
  }
}

// xᵀ [depth, keys] of x [keys, depth], in panels of kNr keys, zeros beyond.
void PackKeys(const float* x, int64_t stride, int64_t keys, int64_t depth, float* out) {
  GemmArgs args;
  args.b = x;
  args.b_k = 1;
  args.b_n = stride;
  for (int64_t n = 0; n < keys; n += kNr) {
    PackPanel(args, 0, depth, n, std::min(kNr, keys - n), out + n * depth);
  }
}

// One query's scores [0, n) become exp(scale · s − max'), with max' = max(running max, all
// scaled scores); entries from n to `width` become 0. Updates max and sum; returns the
// factor exp(old max − new max) of what was summed before.
float OnlineSoftmax(float* scores, int64_t n, int64_t width, float scale, float& max, float& sum) {
  const F32Tag d;
  F32 largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const F32 s = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const F32 v = hn::Mul(hn::LoadU(d, scores + i), s);
    hn::StoreU(v, d, scores + i);
    largest = hn::Max(largest, v);
  }
  HWY_ALIGN float lanes[kVirtualLanes];
  hn::Store(largest, d, lanes);
  float new_max = max;
  for (int64_t j = 0; j < kLanes; ++j) new_max = std::max(new_max, lanes[j]);
  for (; i < n; ++i) {
    scores[i] *= scale;
    new_max = std::max(new_max, scores[i]);
  }
  const F32 shift = hn::Set(d, new_max);
  const float added = LaneSum(n, [&](F32 acc, int64_t at, int64_t count) {
    F32 e = SafeExp(hn::Sub(LoadPart(scores + at, count), shift));
    StorePart(e, scores + at, count);
    if (count < kLanes) e = LoadPart(scores + at, count);  // zeros beyond
    return hn::Add(acc, e);
  });
  std::fill(scores + n, scores + width, 0.0f);
  // In double, so that the C library's choice of code for a processor can't be seen.
  const auto factor = static_cast<float>(std::exp(static_cast<double>(max) - new_max));
  sum = sum * factor + added;
  max = new_max;
  return factor;
}

void ScaleInPlace(float* x, int64_t n, float factor) {
  const F32 f = hn::Set(F32Tag(), factor);
  ForVectors(n, [&](int64_t i, int64_t count) {
    StorePart(hn::Mul(LoadPart(x + i, count), f), x + i, count);
  });
}

// Query tokens [q0, q0 + queries) of every head of one kv head, in one row.
void AttentionForwardTask(const AttentionTask& t, int64_t q0, AttentionWork& work) {
  const int64_t queries = std::min(kQueries, t.length - q0);
  const int64_t depth = t.head_dim;
  for (int64_t h0 = 0; h0 < t.heads; h0 += kHeadsAtOnce) {
    const int64_t heads = std::min(kHeadsAtOnce, t.heads - h0);
    for (int64_t h = 0; h < heads; ++h) {
      std::fill(work.max + h * kQueries, work.max + (h + 1) * kQueries,
                -std::numeric_limits<float>::infinity());
      std::fill(work.sum + h * kQueries, work.sum + (h + 1) * kQueries, 0.0f);
    }
    for (int64_t k0 = 0; k0 < q0 + queries; k0 += kKeys) {
      const int64_t keys = std::min(kKeys, std::min(t.length, q0 + queries) - k0);
      PackKeys(t.k + k0 * t.k_stride, t.k_stride, keys, depth, work.packed_k);
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = t.q + q0 * t.q_stride + (h0 + h) * depth;
        float* out = t.out + q0 * t.out_stride + (h0 + h) * depth;
        BlockProduct({q, t.q_stride, 1, work.packed_k, 0}, queries, keys, depth, work.p, kKeys,
                     false, work);
        for (int64_t i = 0; i < queries; ++i) {
          const int64_t visible = std::clamp<int64_t>(q0 + i + 1 - k0, 0, keys);
          float* scores = work.p + i * kKeys;
          if (visible == 0) {
            std::fill(scores, scores + keys, 0.0f);
            continue;
          }
          const float factor =
              OnlineSoftmax(scores, visible, keys, t.scale, work.max[h * kQueries + i],
                            work.sum[h * kQueries + i]);
          if (k0 > 0) ScaleInPlace(out + i * t.out_stride, depth, factor);
        }
        BlockProduct({work.p, kKeys, 1, t.v + k0 * t.v_stride, t.v_stride}, queries, depth, keys,
                     out, t.out_stride, k0 > 0, work);
      }
    }
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < queries; ++i) {
        const float sum = work.sum[h * kQueries + i];
        ScaleInPlace(t.out + (q0 + i) * t.out_stride + (h0 + h) * depth, depth, 1.0f / sum);
        t.lse[(q0 + i) * t.lse_stride + h0 + h] =
            static_cast<float>(work.max[h * kQueries + i] + std::log(static_cast<double>(sum)));
      }
    }
  }
}

// P and dS of one query against keys: p = exp(scale · s − lse), ds = scale · p · (dp − delta).
void BackwardScores(float* s, float* dp, int64_t n, int64_t width, float scale, float lse,
                    float delta) {
  const F32Tag d;
  const F32 vscale = hn::Set(d, scale);
  const F32 vlse = hn::Set(d, lse);
  const F32 vdelta = hn::Set(d, delta);
  ForVectors(n, [&](int64_t i, int64_t count) {
    const F32 p = SafeExp(hn::Sub(hn::Mul(LoadPart(s + i, count), vscale), vlse));
    const F32 ds = hn::Mul(hn::Mul(p, hn::Sub(LoadPart(dp + i, count), vdelta)), vscale);
    StorePart(p, s + i, count);
    StorePart(ds, dp + i, count);
  });
  std::fill(s + n, s + width, 0.0f);
  std::fill(dp + n, dp + width, 0.0f);
}

// Everything of one kv head in one row. Sums: dq over key blocks, dk and dv over (head,
// query block), both in rising order.
void AttentionBackwardTask(const AttentionTask& t, AttentionWork& work) {
  const int64_t depth = t.head_dim;
  for (int64_t k0 = 0; k0 < t.length; k0 += kKeys) {
    const int64_t keys = std::min(kKeys, t.length - k0);
    const float* k = t.k + k0 * t.k_stride;
    const float* v = t.v + k0 * t.v_stride;
    float* dk = t.dk + k0 * t.dk_stride;
    float* dv = t.dv + k0 * t.dv_stride;
    PackKeys(k, t.k_stride, keys, depth, work.packed_k);
    PackKeys(v, t.v_stride, keys, depth, work.packed_v);
    bool first = true;
    for (int64_t h = 0; h < t.heads; ++h) {
      for (int64_t q0 = k0 / kQueries * kQueries; q0 < t.length; q0 += kQueries) {
        const int64_t queries = std::min(kQueries, t.length - q0);
        const float* q = t.q + q0 * t.q_stride + h * depth;
        const float* dout = t.dout + q0 * t.dout_stride + h * depth;
        BlockProduct({q, t.q_stride, 1, work.packed_k, 0}, queries, keys, depth, work.p, kKeys,
                     false, work);
        BlockProduct({dout, t.dout_stride, 1, work.packed_v, 0}, queries, keys, depth, work.ds,
                     kKeys, false, work);
        for (int64_t i = 0; i < queries; ++i) {
          BackwardScores(work.p + i * kKeys, work.ds + i * kKeys,
                         std::clamp<int64_t>(q0 + i + 1 - k0, 0, keys), keys, t.scale,
                         t.lse_in[(q0 + i) * t.lse_stride + h],
                         t.delta[(q0 + i) * t.delta_stride + h]);
        }
        BlockProduct({work.p, 1, kKeys, dout, t.dout_stride}, keys, depth, queries, dv, t.dv_stride,
                     !first, work);
        BlockProduct({work.ds, 1, kKeys, q, t.q_stride}, keys, depth, queries, dk, t.dk_stride,
                     !first, work);
        BlockProduct({work.ds, kKeys, 1, k, t.k_stride}, queries, depth, keys,
                     t.dq + q0 * t.dq_stride + h * depth, t.dq_stride, k0 > 0, work);
        first = false;
      }
    }
  }
}

// delta = Σ_d dout · out for each head of one token.
void AttentionDelta(const float* dout, const float* out, int64_t heads, int64_t depth,
                    float* delta) {
  for (int64_t h = 0; h < heads; ++h, dout += depth, out += depth) {
    delta[h] = LaneSum(depth, [&](F32 acc, int64_t i, int64_t count) {
      return hn::MulAdd(LoadPart(dout + i, count), LoadPart(out + i, count), acc);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tundra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tundra {

HWY_EXPORT(AttentionForwardTask);
HWY_EXPORT(AttentionBackwardTask);
HWY_EXPORT(AttentionDelta);

namespace {

absl::Status CheckRows(const PackedRows& rows, int64_t t) {
  const int32_t* offsets = rows.offsets.row<int32_t>(0);
  for (int i = 0; i < rows.num_rows; ++i) {
    if (offsets[i] < 0 || offsets[i + 1] < offsets[i] ||
        offsets[i + 1] - offsets[i] > rows.max_length) {
      return absl::InvalidArgumentError(
          absl::StrCat("row ", i, " is tokens [", offsets[i], ", ", offsets[i + 1],
                       "): offsets must rise by at most max_length = ", rows.max_length));
    }
  }
  if (offsets[0] != 0 || offsets[rows.num_rows] > t) {
    return absl::InvalidArgumentError(absl::StrCat("rows span tokens [", offsets[0], ", ",
                                                   offsets[rows.num_rows],
                                                   ") but must start at 0 and end within ", t));
  }
  return absl::OkStatus();
}

// Padding gives zeros.
void ZeroRows(const View& x, int64_t from) {
  for (int64_t t = from; t < x.rows; ++t) {
    std::fill(x.row<float>(t), x.row<float>(t) + x.cols, 0.0f);
  }
}

// Pointers of one row and kv head into the whole.
AttentionTask TaskOf(const AttentionParams& p, const ConstView& q, const ConstView& k,
                     const ConstView& v, int64_t begin, int64_t end, int kv_head) {
  AttentionTask t;
  t.length = end - begin;
  t.heads = p.num_heads / p.num_kv_heads;
  t.head_dim = p.head_dim;
  t.scale = p.scale;
  t.first_head = kv_head * t.heads;
  t.q = q.row<float>(begin) + t.first_head * p.head_dim;
  t.q_stride = q.stride;
  t.k = k.row<float>(begin) + static_cast<int64_t>(kv_head) * p.head_dim;
  t.k_stride = k.stride;
  t.v = v.row<float>(begin) + static_cast<int64_t>(kv_head) * p.head_dim;
  t.v_stride = v.stride;
  return t;
}

}  // namespace

size_t CpuOps::AttentionScratchBytes(int64_t t, const AttentionParams& params) const {
  return static_cast<size_t>(t * params.num_heads) * sizeof(float);
}

absl::Status CpuOps::Attention(Ctx ctx, PackedRows rows, AttentionParams params, ConstView q_TH,
                               ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH) {
  const int64_t t = q_TH.rows;
  RETURN_IF_ERROR(CheckAttention(rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH));
  RETURN_IF_ERROR(CheckRows(rows, t));
  const int64_t wide = q_TH.cols;
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* memory, ctx.scratch->AllocateBytes(AttentionWork::Bytes(threads())));

  const int32_t* offsets = rows.offsets.row<int32_t>(0);
  const int64_t used = rows.num_rows > 0 ? offsets[rows.num_rows] : 0;
  ZeroRows(out_TH, used);
  for (int64_t i = used; i < t; ++i) {
    std::fill(lse_TH.row<float>(i), lse_TH.row<float>(i) + lse_TH.cols,
              -std::numeric_limits<float>::infinity());
  }
  // Tasks are (row, query block, kv head), found by counting a row's blocks off.
  const auto blocks_of = [&](int64_t row) {
    return (offsets[row + 1] - offsets[row] + kQueries - 1) / kQueries;
  };
  int64_t tasks = 0;
  for (int row = 0; row < rows.num_rows; ++row) tasks += blocks_of(row) * params.num_kv_heads;
  const auto run = HWY_DYNAMIC_DISPATCH(AttentionForwardTask);
  ParallelTasks(used * wide < kElementGrain ? 1 : threads(), tasks, [&](int64_t task, int worker) {
    int64_t row = 0;
    while (task >= blocks_of(row) * params.num_kv_heads) {
      task -= blocks_of(row++) * params.num_kv_heads;
    }
    const auto kv_head = static_cast<int>(task % params.num_kv_heads);
    AttentionTask one = TaskOf(params, q_TH, k_TG, v_TG, offsets[row], offsets[row + 1], kv_head);
    one.out = out_TH.row<float>(offsets[row]) + one.first_head * params.head_dim;
    one.out_stride = out_TH.stride;
    one.lse = lse_TH.row<float>(offsets[row]) + one.first_head;
    one.lse_stride = lse_TH.stride;
    AttentionWork work(memory, worker);
    run(one, task / params.num_kv_heads * kQueries, work);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::AttentionBackward(Ctx ctx, PackedRows rows, AttentionParams params,
                                       ConstView dout_TH, ConstView q_TH, ConstView k_TG,
                                       ConstView v_TG, ConstView out_TH, ConstView lse_TH,
                                       View dq_TH, View dk_TG, View dv_TG) {
  const int64_t t = q_TH.rows;
  RETURN_IF_ERROR(CheckAttention(rows, params, q_TH, k_TG, v_TG, out_TH, lse_TH));
  RETURN_IF_ERROR(CheckAttentionGradients(params, t, dout_TH, dq_TH, dk_TG, dv_TG));
  RETURN_IF_ERROR(CheckRows(rows, t));
  const int64_t wide = q_TH.cols;
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* memory, ctx.scratch->AllocateBytes(AttentionWork::Bytes(threads())));
  ASSIGN_OR_RETURN(const View delta_TH, ctx.scratch->Allocate(DType::kF32, t, params.num_heads));

  const int32_t* offsets = rows.offsets.row<int32_t>(0);
  const int64_t used = rows.num_rows > 0 ? offsets[rows.num_rows] : 0;
  ZeroRows(dq_TH, used);
  ZeroRows(dk_TG, used);
  ZeroRows(dv_TG, used);
  const auto delta = HWY_DYNAMIC_DISPATCH(AttentionDelta);
  ParallelRanges(threads(), used, GrainOf(wide), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      delta(dout_TH.row<float>(i), out_TH.row<float>(i), params.num_heads, params.head_dim,
            delta_TH.row<float>(i));
    }
  });
  const auto run = HWY_DYNAMIC_DISPATCH(AttentionBackwardTask);
  const int64_t tasks = static_cast<int64_t>(rows.num_rows) * params.num_kv_heads;
  ParallelTasks(used * wide < kElementGrain ? 1 : threads(), tasks, [&](int64_t task, int worker) {
    const int64_t row = task / params.num_kv_heads;
    const auto kv_head = static_cast<int>(task % params.num_kv_heads);
    const int64_t begin = offsets[row];
    AttentionTask one = TaskOf(params, q_TH, k_TG, v_TG, begin, offsets[row + 1], kv_head);
    one.dout = dout_TH.row<float>(begin) + one.first_head * params.head_dim;
    one.dout_stride = dout_TH.stride;
    one.lse_in = lse_TH.row<float>(begin) + one.first_head;
    one.lse_stride = lse_TH.stride;
    one.delta = delta_TH.row<float>(begin) + one.first_head;
    one.delta_stride = delta_TH.stride;
    one.dq = dq_TH.row<float>(begin) + one.first_head * params.head_dim;
    one.dq_stride = dq_TH.stride;
    one.dk = dk_TG.row<float>(begin) + static_cast<int64_t>(kv_head) * params.head_dim;
    one.dk_stride = dk_TG.stride;
    one.dv = dv_TG.row<float>(begin) + static_cast<int64_t>(kv_head) * params.head_dim;
    one.dv_stride = dv_TG.stride;
    AttentionWork work(memory, worker);
    run(one, work);
  });
  return absl::OkStatus();
}

}  // namespace tundra
#endif  // HWY_ONCE
