// The decoder: whole passes over the base for training, loss and logits.
//
// A pass takes its micro-batches through the model layer by layer, all of them
// through one layer before the next, so that each unit of the base is gathered and
// laid out once for all. Training goes up to the loss and down again to the lowest
// adapted layer; gradients leave layer by layer, micro-batch by micro-batch, and are
// never stored for more than one layer.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/batch.h"
#include "worker/model/config.h"
#include "worker/model/layer.h"
#include "worker/model/layer_graphs.h"
#include "worker/model/memory_plan.h"
#include "worker/model/weights.h"
#include "worker/ops/ops.h"

namespace tundra {

// Told the gradient of one micro-batch's summed loss with regard to the tensors
// [first, first + count) of the adapter, which are those of one layer; flat, in
// order, on the device, valid during the call.
using GradientSink =
    std::function<absl::Status(int micro_batch, int first, int count, ConstView grad)>;

struct ModelOptions {
  Precision precision = Precision::kF32;
  // The longest row; at most config.max_positions.
  int64_t max_positions = 0;
  // Layers whose work repeats are launched as graphs, on devices that have them. Bits don't
  // depend on it.
  bool graphs = true;
};

// Used by one thread.
class Llama {
 public:
  // `ops` and `weights` outlive the model.
  static absl::StatusOr<std::unique_ptr<Llama>> Create(const ModelConfig& config, Ops* ops,
                                                       WeightSource* weights,
                                                       const ModelOptions& options);

  ~Llama();

  const ModelConfig& config() const { return config_; }
  Ops* ops() const { return ops_; }
  WeightSource* weights() const { return weights_; }
  int64_t max_positions() const { return options_.max_positions; }
  Ctx ctx() const { return {stream_.get(), scratch_.get()}; }

  // Forward and backward of every micro-batch. losses[m]: nats, summed over targets.
  // dropout: probability 0 for none; seed, step and epoch set.
  // batches may be empty: the rank then only takes part in the gathers.
  // Errors: kResourceExhausted, those of the collective and of the sink.
  absl::Status Train(std::span<const Batch> batches, const AdapterView& adapter,
                     const DropoutKey& dropout, Recompute recompute, const GradientSink& sink,
                     std::span<double> losses);

  // The summed loss of every micro-batch.
  absl::Status Losses(std::span<const Batch> batches, const AdapterView& adapter,
                      std::span<double> losses);

  // logits_NV: of the given tokens of the micro-batch, row-major f32.
  absl::StatusOr<std::vector<float>> Logits(const Batch& batch, const AdapterView& adapter,
                                            std::span<const int32_t> tokens_N);

  // How many layers' work was a graph's launch, on devices that have graphs.
  int64_t graph_launches() const { return graphs_.launches(); }
  // The most that the arena has held, bytes.
  uint64_t peak_arena_bytes() const { return arena_ == nullptr ? 0 : arena_->peak(); }

 private:
  // A micro-batch on its way through the model.
  struct Traveller {
    DeviceBatch batch;
    // The state after the layers so far; in training, also what went into each
    // trained layer, and what it left.
    View x_TD;
    std::vector<View> inputs;
    std::vector<LayerActs> acts;
    View dx_TD;
  };
  enum class Goal { kTrain, kLoss, kLogits };

  Llama(const ModelConfig& config, Ops* ops, WeightSource* weights, const ModelOptions& options);
  absl::Status Init();
  absl::Status EnsureArena(uint64_t bytes);
  // Whether the unit is the head, and of how many tokens logits are wanted.
  struct Head {
    bool any = false;
    int64_t logits = 0;
  };
  absl::Status EnsureScratch(const UnitView& unit, int64_t tokens, Head head);
  std::vector<UnitUse> Uses(Goal goal, const AdapterView& adapter, Recompute recompute) const;
  absl::Status Upload(const Batch& batch, Traveller& to);
  absl::Status Embed(std::vector<Traveller>& travellers);
  LayerContext ContextOf(const AdapterView& adapter, const DropoutKey& dropout, int64_t layer,
                         const UnitView* unit);
  absl::Status Forward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                       LayerActs& acts, View y_TD);
  absl::Status Backward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                        LayerActs& acts, View dx_TD, View grad);
  absl::Status Up(std::vector<Traveller>& travellers, const AdapterView& adapter,
                  const DropoutKey& dropout, Goal goal, Recompute recompute);
  absl::Status KeepFinalNorm(const UnitView& head);
  absl::StatusOr<const UnitView*> NextHead(int64_t logits);
  absl::Status Loss(Traveller& traveller, const UnitView& head, bool train, double* loss);
  absl::Status AllLosses(std::vector<Traveller>& travellers, const UnitView& head, bool train);
  absl::Status Finish(std::span<double> losses);
  void EndPass();
  absl::Status Down(std::vector<Traveller>& travellers, const AdapterView& adapter,
                    const DropoutKey& dropout, Recompute recompute, const GradientSink& sink);
  absl::Status Start(std::span<const Batch> batches, std::vector<Traveller>& travellers);

  const ModelConfig config_;
  Ops* const ops_;
  WeightSource* const weights_;
  const ModelOptions options_;
  int output_index_ = 0;
  int64_t largest_tokens_ = 0;
  int64_t rank_ = 0;  // of the adapter in training
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Arena> scratch_;
  std::unique_ptr<Arena> arena_;
  std::vector<double> losses_;  // of the pass's micro-batches
  LayerGraphs graphs_;
  Buffer rope_;
  ConstView cos_PR_, sin_PR_;
  Buffer final_norm_;
  ConstView final_norm_D_;
};

}  // namespace tundra
