// RMSNorm, forward and backward. A token is one block's: its sums have one order, which
// depends on the number of columns alone.
#include "worker/cuda/kernels.h"

namespace tundra::cuda {
namespace {

constexpr int kThreads = 256;
constexpr size_t kSharedBytes = kWarp * sizeof(float);  // of BlockSum

// A token's norm by its block. x_at(c) gives column c of it, every time it is asked.
template <typename W, typename XAt>
TUNDRA_DEVICE void NormToken(int64_t t, int64_t n, const XAt& x_at, Pointer<const W> weight,
                             RmsNormParams params, Matrix<float> y, Pointer<float> inv_rms) {
  const Pointer<float> scratch = SharedArray<float>(0, kWarp);
  float squares = 0;
  for (int64_t c = threadIdx.x; c < n; c += kThreads) {
    const float v = x_at(c);
    squares = fmaf(v, v, squares);
  }
  const float mean = BlockSum(squares, scratch) / static_cast<float>(n);
  const float inv = 1.0f / sqrtf(mean + params.epsilon);
  if (threadIdx.x == 0) inv_rms[t] = inv;
  for (int64_t c = threadIdx.x; c < n; c += kThreads) {
    y(t, c) = x_at(c) * inv * (params.weight_offset + AsFloat(weight[c]));
  }
}

template <typename W>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(Matrix<const float> x, Pointer<const W> weight, RmsNormParams params,
                  Matrix<float> y, Pointer<float> inv_rms) {
  const int64_t t = blockIdx.x;
  NormToken(
      t, x.cols, [&](int64_t c) { return x(t, c); }, weight, params, y, inv_rms);
}

// A column is read and written by one thread: the sum is there when the norm reads it.
template <typename W>
__global__ void __launch_bounds__(kThreads)
    AddRmsNormKernel(Matrix<const float> residual, Matrix<float> x, Pointer<const W> weight,
                     RmsNormParams params, Matrix<float> y, Pointer<float> inv_rms) {
  const int64_t t = blockIdx.x;
  for (int64_t c = threadIdx.x; c < x.cols; c += kThreads) x(t, c) += residual(t, c);
  NormToken(
      t, x.cols, [&](int64_t c) { return x(t, c); }, weight, params, y, inv_rms);
}

// A column is read and written by one thread, so dx may be dy.
template <typename W>
__global__ void __launch_bounds__(kThreads)
    RmsNormBackwardKernel(Matrix<const float> dy, Matrix<const float> x, Pointer<const W> weight,
                          Pointer<const float> inv_rms, RmsNormParams params, bool add,
                          Matrix<float> dx) {
  const Pointer<float> scratch = SharedArray<float>(0, kWarp);
  const int64_t t = blockIdx.x, n = x.cols;
  float dot = 0;
  for (int64_t c = threadIdx.x; c < n; c += kThreads) {
    const float g = dy(t, c) * (params.weight_offset + AsFloat(weight[c]));
    dot = fmaf(g, x(t, c), dot);
  }
  const float inv = inv_rms[t];
  const float factor = BlockSum(dot, scratch) / static_cast<float>(n) * inv * inv;
  for (int64_t c = threadIdx.x; c < n; c += kThreads) {
    const float g = dy(t, c) * (params.weight_offset + AsFloat(weight[c]));
    const float v = inv * fmaf(-factor, x(t, c), g);
    dx(t, c) = add ? dx(t, c) + v : v;
  }
}

template <typename W>
absl::Status LaunchNorm(const Queue& queue, const ConstView& x, const ConstView& weight,
                        RmsNormParams params, const View& y, const View& inv_rms) {
  return Launch<RmsNormKernel<W>>(static_cast<unsigned>(x.rows), kThreads, kSharedBytes,
                                  queue.stream, Input<float>(x), Input<W>(weight).data, params,
                                  Output<float>(y), Output<float>(inv_rms).data);
}

template <typename W>
absl::Status LaunchAddNorm(const Queue& queue, const ConstView& residual, const View& x,
                           const ConstView& weight, RmsNormParams params, const View& y,
                           const View& inv_rms) {
  return Launch<AddRmsNormKernel<W>>(static_cast<unsigned>(x.rows), kThreads, kSharedBytes,
                                     queue.stream, Input<float>(residual), Output<float>(x),
                                     Input<W>(weight).data, params, Output<float>(y),
                                     Output<float>(inv_rms).data);
}

template <typename W>
absl::Status LaunchNormBackward(const Queue& queue, const ConstView& dy, const ConstView& x,
                                const ConstView& weight, const ConstView& inv_rms,
                                RmsNormParams params, bool add, const View& dx) {
  return Launch<RmsNormBackwardKernel<W>>(static_cast<unsigned>(x.rows), kThreads, kSharedBytes,
                                          queue.stream, Input<float>(dy), Input<float>(x),
                                          Input<W>(weight).data, Input<float>(inv_rms).data, params,
                                          add, Output<float>(dx));
}

}  // namespace

absl::Status CudaOps::RmsNorm(Ctx ctx, ConstView x_TD, ConstView weight_D, RmsNormParams params,
                              View y_TD, View inv_rms_T) {
  const int64_t t = x_TD.rows, d = x_TD.cols;
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, t, d));
  RETURN_IF_ERROR(CheckWeight("weight_D", weight_D, 1, d));
  RETURN_IF_ERROR(CheckView("y_TD", y_TD, DType::kF32, t, d));
  RETURN_IF_ERROR(CheckVector("inv_rms_T", inv_rms_T, DType::kF32, t));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  return weight_D.dtype == DType::kF32
             ? LaunchNorm<float>(queue, x_TD, weight_D, params, y_TD, inv_rms_T)
             : LaunchNorm<BF16>(queue, x_TD, weight_D, params, y_TD, inv_rms_T);
}

absl::Status CudaOps::AddRmsNorm(Ctx ctx, ConstView residual_TD, View x_TD, ConstView weight_D,
                                 RmsNormParams params, View y_TD, View inv_rms_T) {
  const int64_t t = x_TD.rows, d = x_TD.cols;
  RETURN_IF_ERROR(CheckView("residual_TD", residual_TD, DType::kF32, t, d));
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, t, d));
  RETURN_IF_ERROR(CheckWeight("weight_D", weight_D, 1, d));
  RETURN_IF_ERROR(CheckView("y_TD", y_TD, DType::kF32, t, d));
  RETURN_IF_ERROR(CheckVector("inv_rms_T", inv_rms_T, DType::kF32, t));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  const auto launch = weight_D.dtype == DType::kF32 ? LaunchAddNorm<float> : LaunchAddNorm<BF16>;
  return launch(queue, residual_TD, x_TD, weight_D, params, y_TD, inv_rms_T);
}

absl::Status CudaOps::RmsNormBackward(Ctx ctx, ConstView dy_TD, ConstView x_TD, ConstView weight_D,
                                      ConstView inv_rms_T, RmsNormParams params, Write write,
                                      View dx_TD) {
  const int64_t t = x_TD.rows, d = x_TD.cols;
  RETURN_IF_ERROR(CheckView("x_TD", x_TD, DType::kF32, t, d));
  RETURN_IF_ERROR(CheckView("dy_TD", dy_TD, DType::kF32, t, d));
  RETURN_IF_ERROR(CheckWeight("weight_D", weight_D, 1, d));
  RETURN_IF_ERROR(CheckVector("inv_rms_T", inv_rms_T, DType::kF32, t));
  RETURN_IF_ERROR(CheckView("dx_TD", dx_TD, DType::kF32, t, d));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  const bool add = write == Write::kAdd;
  return weight_D.dtype == DType::kF32 ? LaunchNormBackward<float>(queue, dy_TD, x_TD, weight_D,
                                                                   inv_rms_T, params, add, dx_TD)
                                       : LaunchNormBackward<BF16>(queue, dy_TD, x_TD, weight_D,
                                                                  inv_rms_T, params, add, dx_TD);
}

}  // namespace tundra::cuda
