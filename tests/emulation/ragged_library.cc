// What stands in for cuDNN where kernels run on the CPU: the formulas of ops.h in double, over
// operands in the layout that a plan is given, with results and weights rounded to bf16. Like the
// library it has no kernel for some sizes of head, and fewer for the backward.
#include "worker/cuda/ragged_library.h"

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tundra::cuda {
namespace {

constexpr int kMostForwardDim = 192;
constexpr int kMostBackwardDim = 128;

double Rounded(double x) { return ToFloat(ToBF16(static_cast<float>(x))); }

// One head of one row: places of its first token, and numbers between tokens.
struct Head {
  int64_t length = 0;
  int64_t q = 0, kv = 0, stats = 0;
  int64_t wide = 0, narrow = 0, heads = 0;
  int dim = 0;
  double scale = 0;
};

double Dot(const BF16* x, const BF16* y, int dim) {
  double sum = 0;
  for (int d = 0; d < dim; ++d) sum += double{ToFloat(x[d])} * ToFloat(y[d]);
  return sum;
}

void Forward(const Head& h, const RaggedBuffers& b) {
  std::vector<double> weight, out(static_cast<size_t>(h.dim));
  for (int64_t t = 0; t < h.length; ++t) {
    weight.clear();
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t s = 0; s <= t; ++s) {
      weight.push_back(h.scale * Dot(b.q + h.q + t * h.wide, b.k + h.kv + s * h.narrow, h.dim));
      max = std::max(max, weight.back());
    }
    for (double& x : weight) sum += x = std::exp(x - max);
    b.stats[h.stats + t * h.heads] = static_cast<float>(max + std::log(sum));
    std::fill(out.begin(), out.end(), 0.0);
    for (int64_t s = 0; s <= t; ++s) {
      const BF16* v = b.v + h.kv + s * h.narrow;
      const double w = Rounded(weight[static_cast<size_t>(s)]) / sum;
      for (int d = 0; d < h.dim; ++d) out[static_cast<size_t>(d)] += w * ToFloat(v[d]);
    }
    for (int d = 0; d < h.dim; ++d) {
      b.out[h.q + t * h.wide + d] = ToBF16(static_cast<float>(out[static_cast<size_t>(d)]));
    }
  }
}

// Adds to dk and dv, which all query heads of a kv head share; dq is set.
void Backward(const Head& h, const RaggedBuffers& b, double* dk, double* dv) {
  std::vector<double> dq(static_cast<size_t>(h.dim));
  for (int64_t t = 0; t < h.length; ++t) {
    const int64_t at = h.q + t * h.wide;
    const double delta = Dot(b.dout + at, b.out + at, h.dim);
    std::fill(dq.begin(), dq.end(), 0.0);
    for (int64_t s = 0; s <= t; ++s) {
      const int64_t key = h.kv + s * h.narrow;
      const double p =
          std::exp(h.scale * Dot(b.q + at, b.k + key, h.dim) - b.stats[h.stats + t * h.heads]);
      const double ds = Rounded(p * (Dot(b.dout + at, b.v + key, h.dim) - delta)) * h.scale;
      for (int d = 0; d < h.dim; ++d) {
        dq[static_cast<size_t>(d)] += ds * ToFloat(b.k[key + d]);
        dk[s * h.dim + d] += ds * ToFloat(b.q[at + d]);
        dv[s * h.dim + d] += Rounded(p) * ToFloat(b.dout[at + d]);
      }
    }
    for (int d = 0; d < h.dim; ++d) {
      b.dq[at + d] = ToBF16(static_cast<float>(dq[static_cast<size_t>(d)]));
    }
  }
}

class LoopPlan final : public RaggedPlan {
 public:
  LoopPlan(Direction direction, const RaggedShape& shape, size_t workspace_bytes)
      : RaggedPlan(shape, workspace_bytes), direction_(direction) {}

  absl::Status Run(cudaStream_t stream, const RaggedBuffers& buffers) override {
    const absl::Status checked = Check(buffers);
    if (!checked.ok()) return checked;
    // The shape outlives the stream's work, as the library's own plans must.
    emulation::Enqueue(stream, [this, buffers] { return RunRows(buffers); });
    return absl::OkStatus();
  }

 private:
  absl::Status Check(const RaggedBuffers& b) const {
    const RaggedShape& s = shape();
    const size_t wide = static_cast<size_t>(s.tokens * s.heads * s.dim) * sizeof(BF16);
    const size_t narrow = static_cast<size_t>(s.tokens * s.kv_heads * s.dim) * sizeof(BF16);
    const size_t offsets = static_cast<size_t>(s.rows + 1) * sizeof(int64_t);
    bool good = true;
    const auto check = [&](const void* data, size_t bytes) {
      good = good && reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
             emulation::IsDeviceMemory(data, bytes);
    };
    check(b.lengths, static_cast<size_t>(s.rows) * sizeof(int32_t));
    for (const int64_t* x : {b.q_offsets, b.kv_offsets, b.stats_offsets}) check(x, offsets);
    for (const void* x : {b.q, static_cast<const BF16*>(b.out)}) check(x, wide);
    for (const void* x : {b.k, b.v}) check(x, narrow);
    check(b.stats, static_cast<size_t>(s.tokens * s.heads) * sizeof(float));
    if (workspace_bytes() > 0) check(b.workspace, workspace_bytes());
    if (direction_ == Direction::kBackward) {
      for (const void* x : {b.dout, static_cast<const BF16*>(b.dq)}) check(x, wide);
      for (const void* x : {b.dk, b.dv}) check(x, narrow);
    }
    if (good) return absl::OkStatus();
    return absl::InternalError("an operand of a ragged plan is not in device memory");
  }

  std::string RunRows(const RaggedBuffers& b) const {
    const RaggedShape& s = shape();
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t length = b.lengths[row];
      const int64_t begin = b.stats_offsets[row] / s.heads;
      if (length < 0 || length > s.max_length || begin < 0 || begin + length > s.tokens ||
          b.q_offsets[row] != begin * s.heads * s.dim ||
          b.kv_offsets[row] != begin * s.kv_heads * s.dim) {
        return absl::StrCat("row ", row, " of a ragged plan is ", length, " tokens from ", begin,
                            " on, of ", s.tokens);
      }
      for (int g = 0; g < s.kv_heads; ++g) RunKvHead(b, row, length, g);
    }
    return "";
  }

  void RunKvHead(const RaggedBuffers& b, int64_t row, int64_t length, int g) const {
    const RaggedShape& s = shape();
    std::vector<double> dk(static_cast<size_t>(length * s.dim)), dv(dk.size());
    const int group = s.heads / s.kv_heads;
    Head head{length,
              0,
              b.kv_offsets[row] + int64_t{g} * s.dim,
              0,
              int64_t{s.heads} * s.dim,
              int64_t{s.kv_heads} * s.dim,
              s.heads,
              s.dim,
              s.scale};
    for (int h = g * group; h < (g + 1) * group; ++h) {
      head.q = b.q_offsets[row] + int64_t{h} * s.dim;
      head.stats = b.stats_offsets[row] + h;
      if (direction_ == Direction::kForward) {
        Forward(head, b);
      } else {
        Backward(head, b, dk.data(), dv.data());
      }
    }
    if (direction_ == Direction::kForward) return;
    for (int64_t t = 0; t < length; ++t) {
      for (int d = 0; d < s.dim; ++d) {
        const auto from = static_cast<size_t>(t * s.dim + d);
        b.dk[head.kv + t * head.narrow + d] = ToBF16(static_cast<float>(dk[from]));
        b.dv[head.kv + t * head.narrow + d] = ToBF16(static_cast<float>(dv[from]));
      }
    }
  }

  Direction direction_;
};

class LoopLibrary final : public RaggedLibrary {
 public:
  bool has_backward() const override { return true; }
  absl::StatusOr<std::unique_ptr<RaggedPlan>> MakePlan(Direction direction,
                                                       const RaggedShape& shape) override {
    const bool forward = direction == Direction::kForward;
    if (shape.dim > (forward ? kMostForwardDim : kMostBackwardDim)) {
      return absl::UnimplementedError("no loops for heads of this size");
    }
    const int64_t workspace =
        forward ? 0 : 2 * shape.rows * shape.heads * shape.max_length * shape.max_length;
    return std::unique_ptr<RaggedPlan>(
        std::make_unique<LoopPlan>(direction, shape, static_cast<size_t>(workspace)));
  }
};

}  // namespace

absl::StatusOr<std::string> RaggedLibraryVersion() { return std::string("cudnn-emulated"); }

absl::StatusOr<std::unique_ptr<RaggedLibrary>> OpenRaggedLibrary() {
  return std::unique_ptr<RaggedLibrary>(std::make_unique<LoopLibrary>());
}

}  // namespace tundra::cuda
