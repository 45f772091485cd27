#include <bit>

#include "common/status.h"
#include "worker/cuda/attention_kernels.h"
#include "worker/cuda/attention_ragged.h"

namespace tundra::cuda {
namespace {

constexpr int kThreads = 128;
// Of every piece of scratch memory: whole lines of the cache, which a library may count on.
constexpr size_t kPieceAlignment = 256;
// Enough for lengths and offsets of as many rows as there are tokens.
constexpr size_t kRowBytesPerToken = 64;

size_t Rounded(size_t bytes) {
  return (bytes + kPieceAlignment - 1) / kPieceAlignment * kPieceAlignment;
}
size_t RoundedBytes(int64_t elements, size_t element_bytes) {
  return Rounded(static_cast<size_t>(elements) * element_bytes);
}

// Where the plan finds each row.
struct RowPlaces {
  Pointer<int32_t> lengths;                               // [rows]
  Pointer<int64_t> q_offsets, kv_offsets, stats_offsets;  // [rows + 1]
  int rows = 0;
};

// The packed rows as the operation has them.
struct Rows {
  Pointer<const int32_t> offsets;
  int num_rows = 0;
  int max_length = 0;
  int tokens = 0;

  // Where row i begins, or the padding from num_rows on; always within the tokens.
  TUNDRA_DEVICE int begin(int i) const {
    const int at = offsets[i < num_rows ? i : num_rows];
    return at < 0 ? 0 : at > tokens ? tokens : at;
  }
};

// A thread takes one row of the plan; those that aren't there are empty.
__global__ void __launch_bounds__(kThreads)
    RaggedRowsKernel(Rows rows, int heads, int kv_heads, int dim, RowPlaces places) {
  const int row = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (row > places.rows) return;
  const int begin = rows.begin(row), length = rows.begin(row + 1) - begin;
  places.q_offsets[row] = int64_t{begin} * heads * dim;
  places.kv_offsets[row] = int64_t{begin} * kv_heads * dim;
  places.stats_offsets[row] = int64_t{begin} * heads;
  if (row == places.rows) return;
  places.lengths[row] = length < 0 ? 0 : length > rows.max_length ? rows.max_length : length;
}

// bf16 [tokens][columns], a multiple of 8 columns, in 16-byte pieces -> f32, zeros for padding.
struct RaggedResult {
  Pointer<const float> from;
  AttentionResult to;
  int columns = 0;
};
constexpr int kMaxRaggedResults = 3;
struct RaggedResults {
  RaggedResult item[kMaxRaggedResults];
  int count = 0;
};

// A block takes one token of one item, a thread 8 columns at a time.
__global__ void __launch_bounds__(kThreads) RaggedResultsKernel(Rows rows, RaggedResults results) {
  constexpr int kColumns = 8;
  const RaggedResult& item = results.item[blockIdx.y];
  const int64_t token = blockIdx.x;
  const bool padding = token >= rows.begin(rows.num_rows);
  const Pointer<float> row = item.to.to.row(token);
  for (int column = static_cast<int>(threadIdx.x) * kColumns; column < item.columns;
       column += kThreads * kColumns) {
    Float4 packed{0, 0, 0, 0};
    if (!padding) packed = Load4(item.from + (token * item.columns + column) / 2);
    const float pair[4] = {packed.x, packed.y, packed.z, packed.w};
    float x[kColumns];
    TUNDRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(pair[i]);
      x[2 * i] = std::bit_cast<float>(bits << 16);
      x[2 * i + 1] = std::bit_cast<float>(bits & 0xffff0000u);
    }
    if (item.to.wide) {
      Store4(row + column, {x[0], x[1], x[2], x[3]});
      Store4(row + (column + 4), {x[4], x[5], x[6], x[7]});
    } else {
      TUNDRA_UNROLL
      for (int i = 0; i < kColumns; ++i) row[column + i] = x[i];
    }
  }
}

// to = from within the rows, `padding` after them.
__global__ void __launch_bounds__(kElementThreads)
    RaggedStatsKernel(Rows rows, Matrix<const float> from, float padding, Matrix<float> to) {
  const int64_t end = rows.begin(rows.num_rows);
  ForEach(to.rows, to.cols,
          [&](int64_t r, int64_t c) { to(r, c) = r < end ? from(r, c) : padding; });
}

// One call: takes its scratch memory piece by piece, fills it, and brings back the results.
class RaggedCall {
 public:
  RaggedCall(const Queue& queue, const RaggedPlan& plan, void* scratch, const PackedRows& rows,
             int64_t tokens)
      : queue_(queue), shape_(plan.shape()), rows_(rows) {
    const auto address = reinterpret_cast<uintptr_t>(scratch);
    next_ = static_cast<std::byte*>(scratch) + (Rounded(address) - address);
    bare_rows_ = {Input<int32_t>(rows.offsets).data, rows.num_rows, rows.max_length,
                  static_cast<int>(tokens)};
    packed_.tokens = shape_.tokens;
    packed_.by_token = true;
    TakePlaces();
    buffers_.stats = Take<float>(shape_.tokens * shape_.heads);
    buffers_.workspace = plan.workspace_bytes() == 0 ? nullptr : Take<char>(plan.workspace_bytes());
  }

  RaggedBuffers& buffers() { return buffers_; }

  // Memory for x in bf16, which Start packs.
  BF16* Pack(const ConstView& x, int heads) {
    const int64_t elements = shape_.tokens * heads * shape_.dim;
    BF16* to = Take<BF16>(elements);
    packed_.item[packed_.count++] = {Input<float>(x), Sixteens(to, elements), heads,
                                     IsWide(x, shape_.dim)};
    return to;
  }
  // Memory for a result in bf16, which Finish takes to x.
  BF16* Result(const View& x, int heads) {
    const int64_t elements = shape_.tokens * heads * shape_.dim;
    BF16* from = Take<BF16>(elements);
    results_.item[results_.count++] = {
        Sixteens(from, elements), {Output<float>(x), IsWide(x, shape_.dim)}, heads * shape_.dim};
    return from;
  }

  absl::Status Start() const {
    const auto blocks = static_cast<unsigned>(places_.rows / kThreads + 1);
    RETURN_IF_ERROR(Launch<RaggedRowsKernel>(dim3(blocks), dim3(kThreads), 0, queue_.stream,
                                             bare_rows_, shape_.heads, shape_.kv_heads, shape_.dim,
                                             places_));
    return LaunchPack(queue_, rows_, packed_, shape_.dim, shape_.dim);
  }
  absl::Status StatsFrom(const ConstView& lse_TH) const {
    return CopyStats(Input<float>(lse_TH), 0, Stats());
  }
  absl::Status StatsTo(const View& lse_TH) const {
    const Matrix<float> stats = Stats();
    return CopyStats({stats.data, stats.rows, stats.cols, stats.stride}, -INFINITY,
                     Output<float>(lse_TH));
  }
  absl::Status Finish() const {
    const dim3 grid(static_cast<unsigned>(bare_rows_.tokens),
                    static_cast<unsigned>(results_.count));
    return Launch<RaggedResultsKernel>(grid, dim3(kThreads), 0, queue_.stream, bare_rows_,
                                       results_);
  }

 private:
  template <typename T>
  T* Take(int64_t elements) {
    std::byte* taken = next_;
    next_ += RoundedBytes(elements, sizeof(T));
    return reinterpret_cast<T*>(taken);
  }
  static Pointer<float> Sixteens(BF16* data, int64_t elements) {
    return PointerOf(reinterpret_cast<float*>(data), elements / 2);
  }

  void TakePlaces() {
    std::byte* const begin = next_;
    const int64_t rows = shape_.rows;
    const auto offsets = [&] { return PointerOf(Take<int64_t>(rows + 1), rows + 1); };
    places_.rows = static_cast<int>(rows);
    places_.lengths = PointerOf(Take<int32_t>(rows), rows);
    places_.q_offsets = offsets();
    places_.kv_offsets = offsets();
    places_.stats_offsets = offsets();
    next_ = begin + Rounded(static_cast<size_t>(shape_.tokens) * kRowBytesPerToken);
    buffers_.lengths = places_.lengths.get();
    buffers_.q_offsets = places_.q_offsets.get();
    buffers_.kv_offsets = places_.kv_offsets.get();
    buffers_.stats_offsets = places_.stats_offsets.get();
  }

  Matrix<float> Stats() const {
    const int64_t elements = shape_.tokens * shape_.heads;
    return {PointerOf(buffers_.stats, elements), shape_.tokens, shape_.heads, shape_.heads};
  }
  absl::Status CopyStats(const Matrix<const float>& from, float padding,
                         const Matrix<float>& to) const {
    return Launch<RaggedStatsKernel>(ElementGrid(to.rows, to.cols), dim3(kElementThreads), 0,
                                     queue_.stream, bare_rows_, from, padding, to);
  }

  Queue queue_;
  const RaggedShape& shape_;
  PackedRows rows_;
  Rows bare_rows_;
  std::byte* next_ = nullptr;
  RowPlaces places_;
  RaggedBuffers buffers_;
  PackItems<BF16> packed_;
  RaggedResults results_;
};

}  // namespace

size_t RaggedScratchBytes(const RaggedShape& shape) {
  const int64_t wide = shape.tokens * shape.heads * shape.dim;
  const int64_t narrow = shape.tokens * shape.kv_heads * shape.dim;
  // Of the backward: q, out, dout and dq; k, v, dk and dv.
  return kPieceAlignment + 4 * RoundedBytes(wide, sizeof(BF16)) +
         4 * RoundedBytes(narrow, sizeof(BF16)) +
         RoundedBytes(shape.tokens * shape.heads, sizeof(float)) +
         Rounded(static_cast<size_t>(shape.tokens) * kRowBytesPerToken);
}

absl::Status RaggedForward(const Queue& queue, RaggedPlan& plan, void* scratch,
                           const PackedRows& rows, ConstView q_TH, ConstView k_TG, ConstView v_TG,
                           View out_TH, View lse_TH) {
  const RaggedShape& shape = plan.shape();
  RaggedCall call(queue, plan, scratch, rows, q_TH.rows);
  RaggedBuffers& buffers = call.buffers();
  buffers.q = call.Pack(q_TH, shape.heads);
  buffers.k = call.Pack(k_TG, shape.kv_heads);
  buffers.v = call.Pack(v_TG, shape.kv_heads);
  buffers.out = call.Result(out_TH, shape.heads);
  RETURN_IF_ERROR(call.Start());
  RETURN_IF_ERROR(plan.Run(queue.stream, buffers));
  RETURN_IF_ERROR(call.StatsTo(lse_TH));
  return call.Finish();
}

absl::Status RaggedBackward(const Queue& queue, RaggedPlan& plan, void* scratch,
                            const PackedRows& rows, ConstView dout_TH, ConstView q_TH,
                            ConstView k_TG, ConstView v_TG, ConstView out_TH, ConstView lse_TH,
                            View dq_TH, View dk_TG, View dv_TG) {
  const RaggedShape& shape = plan.shape();
  RaggedCall call(queue, plan, scratch, rows, q_TH.rows);
  RaggedBuffers& buffers = call.buffers();
  buffers.q = call.Pack(q_TH, shape.heads);
  buffers.k = call.Pack(k_TG, shape.kv_heads);
  buffers.v = call.Pack(v_TG, shape.kv_heads);
  buffers.out = call.Pack(out_TH, shape.heads);
  buffers.dout = call.Pack(dout_TH, shape.heads);
  buffers.dq = call.Result(dq_TH, shape.heads);
  buffers.dk = call.Result(dk_TG, shape.kv_heads);
  buffers.dv = call.Result(dv_TG, shape.kv_heads);
  RETURN_IF_ERROR(call.Start());
  RETURN_IF_ERROR(call.StatsFrom(lse_TH));
  RETURN_IF_ERROR(plan.Run(queue.stream, buffers));
  return call.Finish();
}

}  // namespace tundra::cuda
