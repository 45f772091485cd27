// Output matrix and cross-entropy in one, a chunk of tokens at a time: the logits of a chunk
// become its gradient in place.
#include "worker/cuda/kernels.h"

namespace tundra::cuda {
namespace {

constexpr int kThreads = 512;
constexpr size_t kSharedBytes = kWarp * sizeof(float);  // of BlockSum and BlockMax

// A token is one block's. losses[t] = −log softmax(logits_t)[target], 0 without a target;
// logits_t := softmax − onehot, zeros without a target, when the gradient is asked for.
// `first` is the number of the chunk's first token.
__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(Matrix<float> logits, Pointer<const int32_t> targets, int64_t first,
                       bool gradient, Pointer<double> losses, Pointer<uint32_t> fault) {
  const Pointer<float> scratch = SharedArray<float>(0, kWarp);
  const int64_t t = blockIdx.x, n = logits.cols;
  const int32_t target = targets[t];
  const Pointer<float> row = logits.row(t);
  if (target < 0 || target >= n) {
    if (threadIdx.x == 0) {
      losses[t] = 0;
      if (target != -1) Report(fault, Fault::kTarget, first + t);
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
    losses[t] = static_cast<double>(max) - row[target] + log(static_cast<double>(sum));
  }
  if (!gradient) return;
  SyncThreads();  // row[target] has been read
  const float scale = 1.0f / sum;
  for (int64_t v = threadIdx.x; v < n; v += kThreads) {
    row[v] = expf(row[v] - max) * scale - (v == target ? 1.0f : 0.0f);
  }
}

}  // namespace

size_t CudaOps::LossScratchBytes(int64_t chunk_tokens, const FrozenWeight& w_VD_forward,
                                 const FrozenWeight& w_VD_backward, Precision precision) const {
  const auto tokens = static_cast<size_t>(chunk_tokens);
  const auto vocabulary = static_cast<size_t>(w_VD_forward.view_NK.rows);
  return tokens * (vocabulary * sizeof(float) + sizeof(double)) + 2 * Arena::kAlignment +
         std::max(MatmulScratchBytes(chunk_tokens, w_VD_forward, precision),
                  MatmulScratchBytes(chunk_tokens, w_VD_backward, precision));
}

absl::Status CudaOps::CrossEntropy(Ctx ctx, ConstView hidden_TD, const FrozenWeight& w_VD_forward,
                                   const FrozenWeight& w_VD_backward, Precision precision,
                                   ConstView targets_T, int64_t chunk_tokens, View loss,
                                   View dhidden_TD) {
  const int64_t t = hidden_TD.rows, d = hidden_TD.cols, v = w_VD_forward.view_NK.rows;
  const bool gradient = !dhidden_TD.empty();
  RETURN_IF_ERROR(CheckView("hidden_TD", hidden_TD, DType::kF32, t, w_VD_forward.view_NK.cols));
  RETURN_IF_ERROR(CheckVector("targets_T", targets_T, DType::kI32, t));
  RETURN_IF_ERROR(CheckVector("loss", loss, DType::kF64, 1));
  if (gradient) RETURN_IF_ERROR(CheckView("dhidden_TD", dhidden_TD, DType::kF32, t, d));
  if (chunk_tokens < 1) return absl::InvalidArgumentError("chunk_tokens must be at least 1");
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  RETURN_IF_ERROR(device_->Zero(ctx, loss.data, sizeof(double)));
  chunk_tokens = std::min(chunk_tokens, std::max<int64_t>(t, 1));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(const View room, ctx.scratch->Allocate(DType::kF32, chunk_tokens, v));
  ASSIGN_OR_RETURN(const View losses, ctx.scratch->Allocate(DType::kF64, 1, chunk_tokens));
  for (int64_t begin = 0; begin < t; begin += chunk_tokens) {
    const int64_t count = std::min(chunk_tokens, t - begin);
    const View logits = room.Rows(0, count);
    RETURN_IF_ERROR(FrozenMatmul(ctx, hidden_TD.Rows(begin, count), w_VD_forward, precision,
                                 Write::kSet, logits));
    RETURN_IF_ERROR(Launch<CrossEntropyKernel>(
        static_cast<unsigned>(count), kThreads, kSharedBytes, queue.stream, Output<float>(logits),
        Input<int32_t>(targets_T.Cols(begin, count)).data, begin, gradient,
        Output<double>(losses).data, queue.fault));
    RETURN_IF_ERROR(SumInOrder(queue, losses.Cols(0, count), true, loss));
    if (!gradient) continue;
    RETURN_IF_ERROR(FrozenMatmulBackward(ctx, logits, w_VD_backward, precision, Write::kSet,
                                         dhidden_TD.Rows(begin, count)));
  }
  return absl::OkStatus();
}

}  // namespace tundra::cuda
