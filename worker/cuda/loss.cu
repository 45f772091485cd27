// Output matrix and cross-entropy in one, a chunk of targets at a time. Tokens without a
// target take no part: the hidden states of a chunk's targets are picked out, their logits
// become the gradient in place, and what comes of it goes back to the tokens' places.
#include "worker/cuda/kernels.h"

namespace tundra::cuda {
namespace {

constexpr int kFindThreads = 1024;

// Of the targets in their order, those numbered [first, first + places.size): where they
// are. One block goes over all tokens. Places for which there is no target become −1.
__global__ void __launch_bounds__(kFindThreads)
    FindTargetsKernel(Pointer<const int32_t> targets, int64_t t, int64_t expected, int64_t first,
                      int64_t count, Pointer<int32_t> places, Pointer<uint32_t> fault) {
  const Pointer<int32_t> totals = SharedArray<int32_t>(0, kWarp);
  int64_t before = 0;  // targets of earlier rounds
  for (int64_t round = 0; round < t; round += kFindThreads) {
    const int64_t i = round + threadIdx.x;
    const int32_t target = i < t ? targets[i] : -1;
    if (target < -1) Report(fault, Fault::kTarget, i);
    const uint32_t votes = Ballot(target >= 0);
    if (Lane() == 0) totals[Warp()] = CountBits(votes);
    SyncThreads();
    int64_t place = before + CountBits(votes & ((1u << Lane()) - 1));
    for (int warp = 0; warp < kFindThreads / kWarp; ++warp) {
      if (warp < Warp()) place += totals[warp];
      before += totals[warp];
    }
    SyncThreads();
    if (target >= 0 && place >= first && place < first + count) {
      places[place - first] = static_cast<int32_t>(i);
    }
  }
  if (threadIdx.x == 0 && before != expected) Report(fault, Fault::kTargetCount, before);
  const int64_t found = before > first ? before - first : 0;
  for (int64_t i = found + threadIdx.x; i < count; i += kFindThreads) places[i] = -1;
}

constexpr int kThreads = 512;
constexpr size_t kSharedBytes = kWarp * sizeof(float);  // of BlockSum and BlockMax

// A row of logits, that of the token at its place, is one block's. losses[row] =
// −log softmax(logits_row)[target]; logits_row := softmax − onehot when the gradient is
// asked for. Both are 0 for a place or a target that is not there.
__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(Matrix<float> logits, Pointer<const int32_t> places,
                       Pointer<const int32_t> targets, bool gradient, Pointer<double> losses,
                       Pointer<uint32_t> fault) {
  const Pointer<float> scratch = SharedArray<float>(0, kWarp);
  const int64_t n = logits.cols, place = places[blockIdx.x];
  const int32_t target = place >= 0 ? targets[place] : -1;
  const Pointer<float> row = logits.row(blockIdx.x);
  if (target < 0 || target >= n) {
    if (threadIdx.x == 0) {
      losses[blockIdx.x] = 0;
      if (place >= 0) Report(fault, Fault::kTarget, place);
    }
    if (!gradient) return;
    for (int64_t v = threadIdx.x; v < n; v += kThreads) row[v] = 0;
    return;
  }
  float max = row[static_cast<int>(threadIdx.x) < n ? threadIdx.x : 0];
  for (int64_t v = threadIdx.x; v < n; v += kThreads) max = row[v] > max ? row[v] : max;
  max = BlockMax(max, scratch);
  float part = 0;
  for (int64_t v = threadIdx.x; v < n; v += kThreads) part += expf(row[v] - max);
  const float sum = BlockSum(part, scratch);
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = static_cast<double>(max) - row[target] + log(static_cast<double>(sum));
  }
  if (!gradient) return;
  SyncThreads();  // row[target] has been read
  const float scale = 1.0f / sum;
  for (int64_t v = threadIdx.x; v < n; v += kThreads) {
    row[v] = expf(row[v] - max) * scale - (v == target ? 1.0f : 0.0f);
  }
}

__global__ void ZeroKernel(Matrix<float> x) {
  ForEach(x.rows, x.cols, [&](int64_t r, int64_t c) { x(r, c) = 0; });
}

// out[places[i]] = rows[i].
__global__ void PutRowsKernel(Matrix<const float> rows, Pointer<const int32_t> places,
                              Matrix<float> out) {
  ForEach(rows.rows, rows.cols, [&](int64_t r, int64_t c) {
    const int64_t place = places[r];
    if (place >= 0) out(place, c) = rows(r, c);
  });
}

// Scratch of one chunk.
struct Chunk {
  View picked, dpicked;  // [count, D]
  View logits;           // [count, V]
  View losses, places;   // [1, count], f64 and i32
};

absl::StatusOr<Chunk> MakeChunk(Arena* scratch, int64_t count, int64_t d, int64_t v) {
  Chunk chunk;
  ASSIGN_OR_RETURN(chunk.logits, scratch->Allocate(DType::kF32, count, v));
  ASSIGN_OR_RETURN(chunk.picked, scratch->Allocate(DType::kF32, count, d));
  ASSIGN_OR_RETURN(chunk.dpicked, scratch->Allocate(DType::kF32, count, d));
  ASSIGN_OR_RETURN(chunk.losses, scratch->Allocate(DType::kF64, 1, count));
  ASSIGN_OR_RETURN(chunk.places, scratch->Allocate(DType::kI32, 1, count));
  return chunk;
}

absl::Status FindTargets(const Queue& queue, const Targets& targets, int64_t first,
                         const View& places) {
  return Launch<FindTargetsKernel>(1, kFindThreads, kWarp * sizeof(int32_t), queue.stream,
                                   Input<int32_t>(targets.ids_T).data, targets.ids_T.cols,
                                   targets.count, first, places.cols, Output<int32_t>(places).data,
                                   queue.fault);
}

}  // namespace

size_t CudaOps::LossScratchBytes(int64_t chunk_tokens, const FrozenWeight& w_VD_forward,
                                 const FrozenWeight& w_VD_backward, Precision precision) const {
  const ConstView& w = w_VD_forward.view_NK;
  const auto token =
      static_cast<size_t>(w.rows + 2 * w.cols) * sizeof(float) + sizeof(double) + sizeof(int32_t);
  return static_cast<size_t>(chunk_tokens) * token + 6 * Arena::kAlignment +
         std::max(MatmulScratchBytes(chunk_tokens, w_VD_forward, precision),
                  MatmulScratchBytes(chunk_tokens, w_VD_backward, precision));
}

absl::Status CudaOps::CrossEntropy(Ctx ctx, ConstView hidden_TD, const FrozenWeight& w_VD_forward,
                                   const FrozenWeight& w_VD_backward, Precision precision,
                                   const Targets& targets, int64_t chunk_tokens, View loss,
                                   View dhidden_TD) {
  const int64_t t = hidden_TD.rows, d = hidden_TD.cols, v = w_VD_forward.view_NK.rows;
  const bool gradient = !dhidden_TD.empty();
  RETURN_IF_ERROR(CheckView("hidden_TD", hidden_TD, DType::kF32, t, w_VD_forward.view_NK.cols));
  RETURN_IF_ERROR(CheckVector("targets_T", targets.ids_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckVector("loss", loss, DType::kF64, 1));
  if (gradient) RETURN_IF_ERROR(CheckView("dhidden_TD", dhidden_TD, DType::kF32, t, d));
  if (chunk_tokens < 1) return absl::InvalidArgumentError("chunk_tokens must be at least 1");
  if (targets.count < 0 || targets.count > t) {
    return absl::InvalidArgumentError("there are more targets than tokens");
  }
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  RETURN_IF_ERROR(device_->Zero(ctx, loss.data, sizeof(double)));
  if (gradient) {
    RETURN_IF_ERROR(Launch<ZeroKernel>(ElementGrid(t, d), kElementThreads, 0, queue.stream,
                                       Output<float>(dhidden_TD)));
  }
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const Chunk room,
                   MakeChunk(ctx.scratch, std::min(chunk_tokens, targets.count), d, v));
  // Without any, their absence is checked.
  if (targets.count == 0) return FindTargets(queue, targets, 0, room.places);
  for (int64_t first = 0; first < targets.count; first += chunk_tokens) {
    const int64_t count = std::min(chunk_tokens, targets.count - first);
    const View places = room.places.Cols(0, count), picked = room.picked.Rows(0, count);
    const View logits = room.logits.Rows(0, count), losses = room.losses.Cols(0, count);
    RETURN_IF_ERROR(FindTargets(queue, targets, first, places));
    RETURN_IF_ERROR(PickRows(queue, hidden_TD, places, picked));
    RETURN_IF_ERROR(FrozenMatmul(ctx, picked, w_VD_forward, precision, Write::kSet, logits));
    RETURN_IF_ERROR(Launch<CrossEntropyKernel>(
        static_cast<unsigned>(count), kThreads, kSharedBytes, queue.stream, Output<float>(logits),
        Input<int32_t>(places).data, Input<int32_t>(targets.ids_T).data, gradient,
        Output<double>(losses).data, queue.fault));
    RETURN_IF_ERROR(SumInOrder(queue, losses, true, loss));
    if (!gradient) continue;
    const View dpicked = room.dpicked.Rows(0, count);
    RETURN_IF_ERROR(
        FrozenMatmulBackward(ctx, logits, w_VD_backward, precision, Write::kSet, dpicked));
    RETURN_IF_ERROR(Launch<PutRowsKernel>(ElementGrid(count, d), kElementThreads, 0, queue.stream,
                                          Input<float>(dpicked), Input<int32_t>(places).data,
                                          Output<float>(dhidden_TD)));
  }
  return absl::OkStatus();
}

}  // namespace tundra::cuda
