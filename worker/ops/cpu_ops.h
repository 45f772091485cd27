// The CPU's operations. One class; each operation lies in a file of its own.
#pragma once

#include <memory>

#include "worker/device/device_cpu.h"
#include "worker/ops/ops.h"

namespace tundra {

class OneDnnMatmul;

// Which library runs products with frozen weights in f32. Products in bf16, where the
// machine has them, are oneDNN's; f32 is ours, because its bits must depend neither on
// rows nor on threads (gemm_cpu.h). kOneDnn is for tests and measurements.
enum class ProductBackend { kAuto, kOneDnn };

class CpuOps final : public Ops {
 public:
  CpuOps(CpuDevice* device, ProductBackend products);
  ~CpuOps() override;

  Device* device() const override { return device_; }
  size_t preferred_logits_bytes() const override { return size_t{64} << 20; }
  size_t workspace_bytes() const override;

  absl::Status EmbeddingLookup(Ctx ctx, ConstView tokens_T, ConstView table_VD,
                               View out_TD) override;
  absl::Status GatherRows(Ctx ctx, ConstView x_TD, ConstView index_N, View out_ND) override;
  absl::Status RmsNorm(Ctx ctx, ConstView x_TD, ConstView weight_D, RmsNormParams params, View y_TD,
                       View inv_rms_T) override;
  absl::Status AddRmsNorm(Ctx ctx, ConstView residual_TD, View x_TD, ConstView weight_D,
                          RmsNormParams params, View y_TD, View inv_rms_T) override;
  absl::Status RmsNormBackward(Ctx ctx, ConstView dy_TD, ConstView x_TD, ConstView weight_D,
                               ConstView inv_rms_T, RmsNormParams params, Write write,
                               View dx_TD) override;
  absl::Status Rope(Ctx ctx, Direction direction, ConstView positions_T, ConstView cos_PR,
                    ConstView sin_PR, int num_heads, int head_dim, View x_TH) override;
  absl::Status Glu(Ctx ctx, Activation activation, ConstView gate_TF, ConstView up_TF,
                   View act_TF) override;
  absl::Status GluBackward(Ctx ctx, Activation activation, ConstView dact_TF, ConstView gate_TF,
                           ConstView up_TF, View dgate_TF, View dup_TF) override;
  absl::Status Add(Ctx ctx, ConstView x, View y) override;
  absl::Status Cast(Ctx ctx, ConstView from, View to) override;

  absl::Status Attention(Ctx ctx, PackedRows rows, AttentionParams params, ConstView q_TH,
                         ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH) override;
  absl::Status AttentionBackward(Ctx ctx, PackedRows rows, AttentionParams params,
                                 ConstView dout_TH, ConstView q_TH, ConstView k_TG, ConstView v_TG,
                                 ConstView out_TH, ConstView lse_TH, View dq_TH, View dk_TG,
                                 View dv_TG) override;
  size_t AttentionScratchBytes(int64_t t, const AttentionParams& params) const override;

  size_t PreparedBytes(int64_t n, int64_t k, DType stored, Direction direction,
                       Precision precision) const override;
  absl::StatusOr<FrozenWeight> PrepareWeight(Ctx ctx, ConstView w_NK, Direction direction,
                                             Precision precision, void* storage,
                                             size_t storage_bytes) override;
  size_t PrepareScratchBytes(int64_t n, int64_t k, DType stored,
                             Precision precision) const override;
  absl::Status FrozenMatmul(Ctx ctx, ConstView x_TK, const FrozenWeight& w_NK, Precision precision,
                            Write write, View y_TN) override;
  absl::Status FrozenMatmulBackward(Ctx ctx, ConstView dy_TN, const FrozenWeight& w_NK,
                                    Precision precision, Write write, View dx_TK) override;
  size_t MatmulScratchBytes(int64_t t, const FrozenWeight& w_NK,
                            Precision precision) const override;

  absl::Status LoraDown(Ctx ctx, ConstView x_TK, ConstView a_RK, View h_TR) override;
  absl::Status LoraUp(Ctx ctx, ConstView h_TR, ConstView b_NR, float scale, View y_TN) override;
  absl::Status LoraUpBackward(Ctx ctx, ConstView dy_TN, ConstView h_TR, ConstView b_NR, float scale,
                              View dh_TR, View db_NR) override;
  absl::Status LoraDownBackward(Ctx ctx, ConstView dh_TR, ConstView x_TK, ConstView a_RK,
                                View da_RK, View dx_TK) override;
  absl::Status Dropout(Ctx ctx, ConstView x_TK, const DropoutKey& key, ConstView data_row_T,
                       ConstView position_T, Write write, View out_TK) override;

  absl::Status CrossEntropy(Ctx ctx, ConstView hidden_TD, const FrozenWeight& w_VD_forward,
                            const FrozenWeight& w_VD_backward, Precision precision,
                            const Targets& targets, int64_t chunk_tokens, View loss,
                            View dhidden_TD) override;
  size_t LossScratchBytes(int64_t chunk_tokens, const FrozenWeight& w_VD_forward,
                          const FrozenWeight& w_VD_backward, Precision precision) const override;

  absl::Status AddGradients(Ctx ctx, const Tensors& tensors, ConstView grad, ConstView scales_S,
                            View largest_S, View sum) override;
  absl::Status MeanGradients(Ctx ctx, const Tensors& tensors, ConstView sum, ConstView scales_S,
                             double divisor, View grad, View norm2_S) override;
  absl::Status Scale(Ctx ctx, float factor, View x) override;
  absl::Status AdamW(Ctx ctx, const AdamWParams& params, ConstView grad, View weight, View moment1,
                     View moment2) override;

 private:
  int threads() const { return device_->threads(); }
  // Whether a product runs in bf16 / goes to oneDNN.
  bool RunsInBf16(Precision precision) const;
  bool UsesOneDnn(Precision precision) const;
  absl::Status FrozenProduct(Ctx ctx, Direction direction, ConstView in, const FrozenWeight& w_NK,
                             Precision precision, Write write, View out);
  absl::Status OneDnnProduct(Ctx ctx, Direction direction, ConstView in, const FrozenWeight& w_NK,
                             bool bf16, Write write, View out);

  CpuDevice* device_;
  ProductBackend products_;
  std::unique_ptr<OneDnnMatmul> onednn_;
};

// As CreateCpuOps, with the choice of the products' library.
absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(Device* device, ProductBackend products);

}  // namespace tundra
