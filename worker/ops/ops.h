// Every operation of the engine, forward and backward, as one interface with one
// implementation a backend (CPU here, CUDA from a shared library).
//
// Rules that hold for all of them:
//  * Operands are views of device memory; results are too. Host code reads a result
//    after Device::CopyOut and Synchronize.
//  * No allocation: what an operation needs for itself it takes from ctx.scratch and
//    gives back: workspace_bytes() at most, plus what a line "Scratch:" says.
//  * Activations and gradients are f32; weights of the base f32 or bf16. Token ids,
//    positions and offsets are i32. A vector of n is a view of 1 x n.
//  * Bits depend on operands and the numerics class only: never on threads. Products
//    with frozen weights, and everything that works token by token, don't depend on
//    the number of rows either. Sums over tokens run in chunks of kTokenChunk tokens,
//    in order, into one fp32 accumulator.
//  * Errors: kInvalidArgument when shapes or types don't agree, kResourceExhausted when
//    the scratch arena is too small, kInternal when a library fails. On error results
//    are unspecified.
//  * Values that are out of range (ids, positions, targets, offsets of rows) are
//    kInvalidArgument too. They lie in device memory, so a GPU finds them as it runs: the
//    error then comes out of the stream's next Synchronize. Nothing outside of the operands
//    is ever touched.
//  * Operands don't overlap unless a comment allows it.
//
// Shapes: T tokens, D hidden size, V vocabulary, K in, N out, R rank, H heads, F
// intermediate size, P positions.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/arena.h"
#include "worker/device/device.h"
#include "worker/device/view.h"

namespace tundra {

// Tokens in one piece of a sum over tokens.
inline constexpr int64_t kTokenChunk = 512;

// kSet overwrites the result, kAdd adds to it.
enum class Write { kSet, kAdd };

// The precision of a job's products with frozen weights and of attention's. In kBF16 both
// factors are rounded to bf16 and sums run in fp32, where the device can
// (Device::native_bf16); elsewhere, and in kF32, weights are widened to f32 and the product
// runs in f32. Attention on a CPU runs in f32 always.
enum class Precision { kF32, kBF16 };

// kForward is y = x Wᵀ, kBackward is dx = dy W.
enum class Direction { kForward, kBackward };

// The function of a gated linear unit: σ(z) = 1 / (1 + exp(−z)),
//   kSilu:      f(z) = z · σ(z)                                   SwiGLU
//   kGeluTanh:  f(z) = z/2 · (1 + tanh(u)) = z · σ(2u),           GeGLU
//               u = √(2/π) (z + 0.044715 z³); torch's gelu(approximate="tanh")
enum class Activation { kSilu, kGeluTanh };

struct RmsNormParams {
  float epsilon = 1e-5f;
  float weight_offset = 0;  // the factor is (weight_offset + weight); Gemma has 1
};

struct AttentionParams {
  int num_heads = 0;
  int num_kv_heads = 0;  // divides num_heads
  int head_dim = 0;      // 1 to 256
  float scale = 0;       // of the scores, usually 1/sqrt(head_dim)
  Precision precision = Precision::kF32;
};

// Rows of the data set laid end to end in one micro-batch. offsets holds
// num_rows + 1 increasing i32; row i is tokens [offsets[i], offsets[i+1]). Tokens
// from offsets[num_rows] on are padding: they attend to nothing, give zeros, and get
// zero gradients.
struct PackedRows {
  ConstView offsets;
  int num_rows = 0;
  int max_length = 0;  // of one row, in tokens
};

// What each token is to predict. The host knows how many there are, and lays out the work by
// that number; a device finds where they are.
struct Targets {
  ConstView ids_T;    // i32; -1 where nothing is predicted
  int64_t count = 0;  // of those that are not -1
};

// Tensors that lie end to end in one array: tensor s has the elements
// [offsets[s] − offsets[0], offsets[s + 1] − offsets[0]).
struct Tensors {
  ConstView offsets;  // i64, count + 1 of them, never falling
  int count = 0;
};

// Elements in one piece of a tensor's norm.
inline constexpr int64_t kNormBlock = 4096;
// Pieces that tensors of so many elements in all may have, empty ones counted.
inline int64_t NormSlots(int64_t elements, int count) { return elements / kNormBlock + count + 1; }
inline size_t MeanScratchBytes(int64_t elements, int count) {
  return static_cast<size_t>(NormSlots(elements, count)) * sizeof(double) + Arena::kAlignment;
}

// Names the random numbers of one dropout: the mask of an element is a function of
// these, the token's (row, position) and the column, whatever was packed beside it.
struct DropoutKey {
  uint64_t seed = 0;
  uint64_t step = 0;
  uint32_t epoch = 0;
  uint32_t layer = 0;
  uint32_t module = 0;
  float probability = 0;  // of a zero, in [0, 1)
};

struct AdamWParams {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  int64_t step = 1;  // t: the number of updates including this one
};

// A frozen weight as a product takes it: row-major as it lies in the base's files and
// shards, or laid out by PrepareWeight for one direction and precision.
struct FrozenWeight {
  enum class Layout { kPlain, kPrepared };

  // w_NK: f32 or bf16. Serves both directions.
  static FrozenWeight Plain(ConstView w_NK) {
    return {w_NK, Layout::kPlain, Direction::kForward, Precision::kF32};
  }

  ConstView view_NK;  // of a prepared one: bytes with the shape N x K
  Layout layout = Layout::kPlain;
  Direction direction = Direction::kForward;  // the two of a prepared weight
  Precision precision = Precision::kF32;
};

// Calls that share a stream come from one thread at a time; different streams may be
// used from different threads.
class Ops {
 public:
  virtual ~Ops() = default;

  virtual Device* device() const = 0;

  // How large the logits of one chunk of CrossEntropy best are: enough rows that reading the
  // output matrix again for each chunk costs little.
  virtual size_t preferred_logits_bytes() const = 0;
  // The most that any operation takes from scratch beside its line "Scratch:".
  virtual size_t workspace_bytes() const = 0;

  // ---- embedding, norm, rotary embedding, activation ------------------------------

  // out_TD = table_VD[tokens_T]. table f32 or bf16.
  // Errors: kInvalidArgument for ids outside [0, V).
  virtual absl::Status EmbeddingLookup(Ctx ctx, ConstView tokens_T, ConstView table_VD,
                                       View out_TD) = 0;

  // out_ND = x_TD[index_N]; f32. Picks the tokens whose logits are wanted.
  virtual absl::Status GatherRows(Ctx ctx, ConstView x_TD, ConstView index_N, View out_ND) = 0;

  // y_td = x_td · inv_rms_t · (weight_offset + weight_d),
  // inv_rms_t = 1/sqrt(mean_d(x_td²) + epsilon). weight f32 or bf16. y may be x.
  // Source: Zhang & Sennrich 2019, arXiv:1910.07467; LlamaRMSNorm of Transformers.
  virtual absl::Status RmsNorm(Ctx ctx, ConstView x_TD, ConstView weight_D, RmsNormParams params,
                               View y_TD, View inv_rms_T) = 0;

  // The residual connection and the norm behind it in one pass: x_TD += residual_TD, then
  // RmsNorm of x, to the same bits.
  virtual absl::Status AddRmsNorm(Ctx ctx, ConstView residual_TD, View x_TD, ConstView weight_D,
                                  RmsNormParams params, View y_TD, View inv_rms_T) = 0;

  // With g_td = dy_td · (weight_offset + weight_d):
  // dx_td (=|+=) inv_rms_t · (g_td − x_td · inv_rms_t² · mean_d(g_td · x_td)).
  // dx may be dy (with kSet).
  virtual absl::Status RmsNormBackward(Ctx ctx, ConstView dy_TD, ConstView x_TD, ConstView weight_D,
                                       ConstView inv_rms_T, RmsNormParams params, Write write,
                                       View dx_TD) = 0;

  // In place, per head of head_dim columns, with r = table columns (half the rotated
  // dimensions, 2r <= head_dim; later dimensions stay) and p = positions_T[t]:
  //   kForward:  (a_i, a_{i+r}) := (a_i cos_pi − a_{i+r} sin_pi, a_{i+r} cos_pi + a_i sin_pi)
  //   kBackward: the inverse rotation, which is the gradient's.
  // x_TH has num_heads · head_dim columns. cos_PR, sin_PR: f32 tables made by the model
  // (default, linear and Llama-3 scaled frequencies are all tables).
  // Source: Su et al. 2021, arXiv:2104.09864; rotate_half of Transformers.
  virtual absl::Status Rope(Ctx ctx, Direction direction, ConstView positions_T, ConstView cos_PR,
                            ConstView sin_PR, int num_heads, int head_dim, View x_TH) = 0;

  // act_TF = f(gate_TF) · up_TF, f the activation. act may be gate or up.
  // Source: Shazeer 2020, arXiv:2002.05202.
  virtual absl::Status Glu(Ctx ctx, Activation activation, ConstView gate_TF, ConstView up_TF,
                           View act_TF) = 0;

  // dgate = dact · up · f'(gate), dup = dact · f(gate).
  // dgate may be gate or dact, dup may be up or dact.
  virtual absl::Status GluBackward(Ctx ctx, Activation activation, ConstView dact_TF,
                                   ConstView gate_TF, ConstView up_TF, View dgate_TF,
                                   View dup_TF) = 0;

  // y += x; f32, same shapes. The residual connection.
  virtual absl::Status Add(Ctx ctx, ConstView x, View y) = 0;

  // to = from, converted between f32 and bf16 (nearest, ties to even), or copied.
  virtual absl::Status Cast(Ctx ctx, ConstView from, View to) = 0;

  // ---- attention ------------------------------------------------------------------

  // Causal, inside each row. With h a head and g = h · num_kv_heads / num_heads:
  // out_th = Σ_{s<=t} softmax_s(scale · q_th·k_sg) v_sg; lse_th = log Σ_s exp(scale · q_th·k_sg),
  // −inf for padding. Memory linear in length.
  // q_TH, out_TH: num_heads · head_dim columns; k, v: num_kv_heads · head_dim; lse [T, heads].
  // Scratch: AttentionScratchBytes.
  // Source: Milakov & Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135.
  virtual absl::Status Attention(Ctx ctx, PackedRows rows, AttentionParams params, ConstView q_TH,
                                 ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH) = 0;

  // dq, dk, dv (set) from dout and what Attention was given and gave. Scores are
  // recomputed in blocks.
  // Scratch: AttentionScratchBytes.
  // Source: Dao et al. 2022, arXiv:2205.14135, appendix B.
  virtual absl::Status AttentionBackward(Ctx ctx, PackedRows rows, AttentionParams params,
                                         ConstView dout_TH, ConstView q_TH, ConstView k_TG,
                                         ConstView v_TG, ConstView out_TH, ConstView lse_TH,
                                         View dq_TH, View dk_TG, View dv_TG) = 0;

  // The most that either takes from scratch for T tokens; linear in T.
  virtual size_t AttentionScratchBytes(int64_t t, const AttentionParams& params) const = 0;

  // ---- products with frozen weights -----------------------------------------------

  // Bytes that PrepareWeight fills for a weight N x K. 0: this backend gains nothing
  // there; use the plain weight in this direction and precision.
  virtual size_t PreparedBytes(int64_t n, int64_t k, DType stored, Direction direction,
                               Precision precision) const = 0;

  // Whether what is prepared for one direction is what the other needs: it is laid out once then,
  // and `direction` alone changed.
  virtual bool prepared_serves_both() const { return false; }

  // Lays w_NK (f32 or bf16, row-major) out for one direction and precision in `storage`
  // (PreparedBytes bytes at a 64-byte boundary). The result refers to storage.
  // Scratch: PrepareScratchBytes.
  virtual absl::StatusOr<FrozenWeight> PrepareWeight(Ctx ctx, ConstView w_NK, Direction direction,
                                                     Precision precision, void* storage,
                                                     size_t storage_bytes) = 0;
  // 0 where the layout holds the type that is stored, or is made without a copy.
  virtual size_t PrepareScratchBytes(int64_t n, int64_t k, DType stored,
                                     Precision precision) const = 0;

  // y_TN (=|+=) x_TK · W_NKᵀ. The output matrix too: logits of few rows are this.
  // Scratch: MatmulScratchBytes.
  virtual absl::Status FrozenMatmul(Ctx ctx, ConstView x_TK, const FrozenWeight& w_NK,
                                    Precision precision, Write write, View y_TN) = 0;

  // dx_TK (=|+=) dy_TN · W_NK. Scratch: MatmulScratchBytes.
  virtual absl::Status FrozenMatmulBackward(Ctx ctx, ConstView dy_TN, const FrozenWeight& w_NK,
                                            Precision precision, Write write, View dx_TK) = 0;

  // The most that either product takes from scratch for T tokens.
  virtual size_t MatmulScratchBytes(int64_t t, const FrozenWeight& w_NK,
                                    Precision precision) const = 0;

  // ---- LoRA: y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ, s = alpha/rank or alpha/sqrt(rank) --------------
  // Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
  // Everything f32. Several A's with the same input may be stacked along R; each B then
  // takes its columns of h_TR.

  // h_TR = x_TK · a_RKᵀ.
  virtual absl::Status LoraDown(Ctx ctx, ConstView x_TK, ConstView a_RK, View h_TR) = 0;

  // y_TN += scale · h_TR · b_NRᵀ.
  virtual absl::Status LoraUp(Ctx ctx, ConstView h_TR, ConstView b_NR, float scale, View y_TN) = 0;

  // dh_TR = scale · dy_TN · b_NR;  db_NR += scale · dy_TNᵀ · h_TR.
  // Scratch: 4 bytes · N · R.
  virtual absl::Status LoraUpBackward(Ctx ctx, ConstView dy_TN, ConstView h_TR, ConstView b_NR,
                                      float scale, View dh_TR, View db_NR) = 0;

  // da_RK += dh_TRᵀ · x_TK;  dx_TK += dh_TR · a_RK, left out when dx is View::None().
  virtual absl::Status LoraDownBackward(Ctx ctx, ConstView dh_TR, ConstView x_TK, ConstView a_RK,
                                        View da_RK, View dx_TK) = 0;

  // out_TK (=|+=) x_TK · mask / (1 − probability). Forward makes the input of LoraDown (kSet);
  // backward sends that input's gradient on to dx (kAdd) with the same key.
  // data_row_T, position_T: i32, the token's row in the data set and its position there.
  // out may be x with kSet. Source of the numbers: Philox4x32-10, common/philox.h.
  virtual absl::Status Dropout(Ctx ctx, ConstView x_TK, const DropoutKey& key, ConstView data_row_T,
                               ConstView position_T, Write write, View out_TK) = 0;

  // ---- loss -------------------------------------------------------------------------

  // loss (f64, one number) = Σ_t −log softmax(hidden_t · Wᵀ)[targets_t] over tokens with
  // targets_t >= 0 (−1 is ignored), added in order in double; and, unless dhidden is
  // View::None(), dhidden_TD = its gradient (zeros for ignored tokens). The sum, not the
  // mean. Runs in chunks of chunk_tokens targets: logits are never stored whole nor made for
  // ignored tokens, and bits don't depend on the chunk.
  // Errors: kInvalidArgument for targets outside [−1, V) or of another number than `count`.
  // w_backward may be the same plain weight.
  // Scratch: LossScratchBytes.
  virtual absl::Status CrossEntropy(Ctx ctx, ConstView hidden_TD, const FrozenWeight& w_VD_forward,
                                    const FrozenWeight& w_VD_backward, Precision precision,
                                    const Targets& targets, int64_t chunk_tokens, View loss,
                                    View dhidden_TD) = 0;
  virtual size_t LossScratchBytes(int64_t chunk_tokens, const FrozenWeight& w_VD_forward,
                                  const FrozenWeight& w_VD_backward, Precision precision) const = 0;

  // ---- gradients and the optimizer ----------------------------------------------------

  // One micro-batch's gradients join the sums, tensor by tensor, for tensor s with
  // scale = scales_S[s] (f64, a power of two, exact: worker/train/exact_sum.h):
  //   largest_S[s] (f32) := max(largest_S[s], max |grad|), NaN above all numbers;
  //   sum (i64) += Quantize(grad, scale) of worker/ops/quantise.h, modulo 2^64.
  // Beyond ±2^62 it saturates and NaN counts as 0: `largest` tells, and the step is redone or
  // skipped. With scale 0 only the largest is found.
  virtual absl::Status AddGradients(Ctx ctx, const Tensors& tensors, ConstView grad,
                                    ConstView scales_S, View largest_S, View sum) = 0;

  // The step's gradients from the sums: grad (f32) = float(double(sum) / scale / divisor), zeros
  // where scale is 0; and norm2_S[s] (f64) = Σ grad² over tensor s in double, in blocks of
  // kNormBlock elements, each summed in one order, and blocks added in order.
  // divisor > 0: the step's target tokens.
  // Scratch: MeanScratchBytes.
  virtual absl::Status MeanGradients(Ctx ctx, const Tensors& tensors, ConstView sum,
                                     ConstView scales_S, double divisor, View grad,
                                     View norm2_S) = 0;

  // x := x · factor; f32.
  virtual absl::Status Scale(Ctx ctx, float factor, View x) = 0;

  // One update of a tensor, elementwise in f32; scalars in double, rounded to f32 once:
  //   w := w · (1 − lr · weight_decay)
  //   m := m + (1 − β1) · (g − m);   v := β2 · v + (1 − β2) · g · g
  //   w := w − (lr / (1 − β1^t) · m) / (√v / √(1 − β2^t) + ε)
  // Source: Loshchilov & Hutter 2017, arXiv:1711.05101; torch.optim.AdamW.
  virtual absl::Status AdamW(Ctx ctx, const AdamWParams& params, ConstView grad, View weight,
                             View moment1, View moment2) = 0;
};

// The CPU's operations. `device` must be a CPU device and outlive them.
absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(Device* device);

}  // namespace tundra
