#include "worker/model/llama.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace tundra {
namespace {

// Targets in one chunk of the loss.
int64_t LossChunk(const Ops& ops, int64_t vocab) {
  const auto bytes = static_cast<int64_t>(ops.preferred_logits_bytes());
  const int64_t tokens = bytes / (vocab * static_cast<int64_t>(sizeof(float)));
  return std::clamp<int64_t>(tokens / 64 * 64, 64, 4096);
}

// Graphs are kept for this many shapes of a pass's micro-batches.
constexpr size_t kGraphShapes = 8;

// What the launches of a micro-batch depend on, made to repeat: empty rows at the end, and few
// bounds on the length of rows.
int PaddedRows(int rows) { return (rows + 7) / 8 * 8; }
int PaddedLength(int length, int64_t most) {
  const int64_t power = std::bit_ceil(static_cast<unsigned>(std::max(length, 128)));
  return static_cast<int>(std::min(power, most));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Llama>> Llama::Create(const ModelConfig& config, Ops* ops,
                                                     WeightSource* weights,
                                                     const ModelOptions& options) {
  if (options.max_positions < 1 || options.max_positions > config.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows of up to ", options.max_positions, " tokens: the base takes from 1 to ",
                     config.max_positions, " positions; lower max_seq_length"));
  }
  std::unique_ptr<Llama> model(new Llama(config, ops, weights, options));
  RETURN_IF_ERROR(model->Init());
  return model;
}

Llama::Llama(const ModelConfig& config, Ops* ops, WeightSource* weights,
             const ModelOptions& options)
    : config_(config), ops_(ops), weights_(weights), options_(options), graphs_(ops->device()) {
  output_index_ = config.tied ? kEmbeddingTensor : kOutputTensor;
}

// Waits for what was launched; an error has nowhere to go.
Llama::~Llama() { (void)graphs_.Clear(ctx()); }

absl::Status Llama::Init() {
  Device* device = ops_->device();
  ASSIGN_OR_RETURN(stream_, device->CreateStream());
  const int64_t half = config_.head_dim / 2;
  const int64_t count = options_.max_positions * half;
  std::vector<float> cos, sin;
  cos.reserve(static_cast<size_t>(count));
  sin.reserve(static_cast<size_t>(count));
  const std::vector<float> frequencies = RopeFrequencies(config_);
  for (int64_t p = 0; p < options_.max_positions; ++p) {
    for (const float frequency : frequencies) {
      // The angle is a float, as in the reference; its cosine is the nearest float.
      const float angle = static_cast<float>(p) * frequency;
      cos.push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
      sin.push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  const size_t second = (bytes + 63) / 64 * 64;
  ASSIGN_OR_RETURN(rope_, device->Allocate(second + bytes));
  RETURN_IF_ERROR(EnsureScratch({}, 1, {}));
  const View cos_PR = rope_.Matrix(DType::kF32, options_.max_positions, half);
  const View sin_PR = rope_.Matrix(DType::kF32, options_.max_positions, half, second);
  RETURN_IF_ERROR(device->CopyIn(ctx(), cos_PR.data, cos.data(), bytes));
  RETURN_IF_ERROR(device->CopyIn(ctx(), sin_PR.data, sin.data(), bytes));
  cos_PR_ = cos_PR;
  sin_PR_ = sin_PR;
  ASSIGN_OR_RETURN(final_norm_,
                   device->Allocate(static_cast<size_t>(config_.hidden) * sizeof(float)));
  return device->Synchronize(ctx());
}

absl::Status Llama::EnsureArena(uint64_t bytes) {
  if (arena_ == nullptr || arena_->capacity() < bytes) {
    RETURN_IF_ERROR(graphs_.Clear(ctx()));
    arena_ = nullptr;
    ASSIGN_OR_RETURN(Arena arena, Arena::Create(ops_->device(), bytes));
    arena_ = std::make_unique<Arena>(std::move(arena));
  }
  arena_->Release(0);
  return absl::OkStatus();
}

// The products' needs depend on how the weights are laid out, so they are asked once
// a unit is there. Nothing lies in the scratch arena between operations.
absl::Status Llama::EnsureScratch(const UnitView& unit, int64_t tokens, Head head) {
  // Attention; the gradient of one B.
  const int64_t widest = std::max({config_.q_width(), config_.hidden, config_.intermediate});
  size_t needed = ops_->workspace_bytes() +
                  ops_->AttentionScratchBytes(tokens, AttentionOf(config_, options_.precision)) +
                  static_cast<size_t>(widest * rank_) * sizeof(float) + 4 * Arena::kAlignment;
  if (head.any) {
    const auto& forward = unit.forward[static_cast<size_t>(output_index_)];
    const auto& backward = unit.backward[static_cast<size_t>(output_index_)];
    needed += ops_->LossScratchBytes(LossChunk(*ops_, config_.vocab), forward, backward,
                                     options_.precision);
    if (head.logits > 0) {
      needed += ops_->MatmulScratchBytes(head.logits, forward, options_.precision);
    }
  } else {
    size_t products = 0;
    for (const std::vector<FrozenWeight>* weights : {&unit.forward, &unit.backward}) {
      for (const FrozenWeight& weight : *weights) {
        if (weight.view_NK.rows == 1) continue;
        products = std::max(products, ops_->MatmulScratchBytes(tokens, weight, options_.precision));
      }
    }
    needed += products;
  }
  if (scratch_ != nullptr && scratch_->capacity() >= needed) return absl::OkStatus();
  RETURN_IF_ERROR(graphs_.Clear(ctx()));
  scratch_ = nullptr;
  ASSIGN_OR_RETURN(Arena arena, Arena::Create(ops_->device(), needed));
  scratch_ = std::make_unique<Arena>(std::move(arena));
  return absl::OkStatus();
}

std::vector<UnitUse> Llama::Uses(Goal goal, const AdapterView& adapter, Recompute recompute) const {
  const ShardPlan& plan = weights_->plan();
  const bool train = goal == Goal::kTrain;
  std::vector<UnitUse> uses = {{.unit = plan.embedding_unit()}};
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    uses.push_back({.unit = plan.layer_unit(layer), .forward = true});
  }
  if (config_.tied) uses.push_back({.unit = plan.head_unit()});
  uses.push_back({.unit = plan.output_unit(), .forward = true, .backward = train});
  if (!train) return uses;
  for (int64_t layer = config_.layers - 1; layer >= adapter.layout->lowest_layer(); --layer) {
    uses.push_back({.unit = plan.layer_unit(layer),
                    .forward = recompute == Recompute::kFull,
                    .backward = true});
  }
  return uses;
}

absl::Status Llama::Upload(const Batch& batch, Traveller& to) {
  const auto put = [&](const std::vector<int32_t>& values, ConstView& view) -> absl::Status {
    const int64_t n = static_cast<int64_t>(values.size());
    ASSIGN_OR_RETURN(const View on_device, arena_->Allocate(DType::kI32, 1, n));
    view = on_device;
    return ops_->device()->CopyIn(ctx(), on_device.data, values.data(), on_device.bytes());
  };
  TUNDRA_CHECK(batch.max_length <= options_.max_positions) << "a row of " << batch.max_length;
  RETURN_IF_ERROR(put(batch.tokens_T, to.batch.tokens_T));
  RETURN_IF_ERROR(put(batch.targets_T, to.batch.targets.ids_T));
  to.batch.targets.count = batch.target_tokens;
  RETURN_IF_ERROR(put(batch.positions_T, to.batch.positions_T));
  RETURN_IF_ERROR(put(batch.data_rows_T, to.batch.data_rows_T));
  std::vector<int32_t> offsets = batch.offsets;
  to.batch.rows.max_length = batch.max_length;
  if (ops_->device()->has_graphs()) {
    offsets.resize(static_cast<size_t>(PaddedRows(batch.num_rows())) + 1, offsets.back());
    to.batch.rows.max_length = PaddedLength(batch.max_length, options_.max_positions);
  }
  RETURN_IF_ERROR(put(offsets, to.batch.rows.offsets));
  to.batch.rows.num_rows = static_cast<int>(offsets.size()) - 1;
  to.batch.tokens = batch.padded_tokens();
  return absl::OkStatus();
}

absl::Status Llama::Start(std::span<const Batch> batches, std::vector<Traveller>& travellers) {
  largest_tokens_ = 1;
  for (const Batch& batch : batches) {
    largest_tokens_ = std::max(largest_tokens_, batch.padded_tokens());
    RETURN_IF_ERROR(Upload(batch, travellers.emplace_back()));
  }
  return absl::OkStatus();
}

absl::Status Llama::Embed(std::vector<Traveller>& travellers) {
  ASSIGN_OR_RETURN(const UnitView* unit, weights_->Next());
  RETURN_IF_ERROR(EnsureScratch({}, largest_tokens_, {}));
  for (Traveller& traveller : travellers) {
    ASSIGN_OR_RETURN(traveller.x_TD,
                     arena_->Allocate(DType::kF32, traveller.batch.tokens, config_.hidden));
    RETURN_IF_ERROR(ops_->EmbeddingLookup(ctx(), traveller.batch.tokens_T,
                                          unit->tensors[kEmbeddingTensor], traveller.x_TD));
  }
  return absl::OkStatus();
}

LayerContext Llama::ContextOf(const AdapterView& adapter, const DropoutKey& dropout, int64_t layer,
                              const UnitView* unit) {
  return {.ops = ops_,
          .ctx = ctx(),
          .arena = arena_.get(),
          .config = &config_,
          .precision = options_.precision,
          .cos_PR = cos_PR_,
          .sin_PR = sin_PR_,
          .adapter = adapter,
          .dropout = dropout,
          .weights = unit,
          .layer = layer};
}

// A mask of dropout is new in every step, so its work is never the same.
absl::Status Llama::Forward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                            LayerActs& acts, View y_TD) {
  const auto work = [&] { return LayerForward(context, batch, x_TD, acts, y_TD); };
  if (!options_.graphs || context.dropout.probability > 0) return work();
  return graphs_.Run(
      context.ctx,
      KeyOfLayer(LayerWork::kForward, context, batch, acts, x_TD, y_TD, ConstView::None()), work);
}

absl::Status Llama::Backward(const LayerContext& context, const DeviceBatch& batch, ConstView x_TD,
                             LayerActs& acts, View dx_TD, View grad) {
  const auto work = [&] { return LayerBackward(context, batch, x_TD, acts, dx_TD, grad); };
  if (!options_.graphs || context.dropout.probability > 0) return work();
  return graphs_.Run(
      context.ctx, KeyOfLayer(LayerWork::kBackward, context, batch, acts, x_TD, dx_TD, grad), work);
}

absl::Status Llama::Up(std::vector<Traveller>& travellers, const AdapterView& adapter,
                       const DropoutKey& dropout, Goal goal, Recompute recompute) {
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    ASSIGN_OR_RETURN(const UnitView* unit, weights_->Next());
    RETURN_IF_ERROR(EnsureScratch(*unit, largest_tokens_, {}));
    const LayerContext context = ContextOf(adapter, dropout, layer, unit);
    const bool trained = goal == Goal::kTrain && layer >= adapter.layout->lowest_layer();
    for (Traveller& traveller : travellers) {
      const View x = traveller.x_TD;
      if (trained) {
        traveller.inputs.push_back(x);
        ASSIGN_OR_RETURN(traveller.x_TD,
                         arena_->Allocate(DType::kF32, traveller.batch.tokens, config_.hidden));
      }
      if (trained && recompute == Recompute::kNone) {
        ASSIGN_OR_RETURN(LayerActs acts, AllocateActs(context, traveller.batch.tokens));
        RETURN_IF_ERROR(Forward(context, traveller.batch, x, acts, traveller.x_TD));
        traveller.acts.push_back(acts);
        continue;
      }
      ArenaScope scope(arena_.get());
      ASSIGN_OR_RETURN(LayerActs acts, AllocateActs(context, traveller.batch.tokens));
      RETURN_IF_ERROR(Forward(context, traveller.batch, x, acts, traveller.x_TD));
    }
  }
  return absl::OkStatus();
}

// The norm outlives its unit: a tied head is two units.
absl::Status Llama::KeepFinalNorm(const UnitView& head) {
  const ConstView norm = head.tensors[kFinalNormTensor];
  RETURN_IF_ERROR(ops_->device()->CopyWithin(ctx(), final_norm_.data(), norm.data, norm.bytes()));
  final_norm_D_ = ConstView::Vector(final_norm_.data(), norm.dtype, norm.cols);
  return absl::OkStatus();
}

absl::StatusOr<const UnitView*> Llama::NextHead(int64_t logits) {
  ASSIGN_OR_RETURN(const UnitView* head, weights_->Next());
  RETURN_IF_ERROR(KeepFinalNorm(*head));
  if (config_.tied) {
    ASSIGN_OR_RETURN(head, weights_->Next());
  }
  RETURN_IF_ERROR(EnsureScratch(*head, largest_tokens_, {.any = true, .logits = logits}));
  return head;
}

absl::Status Llama::Loss(Traveller& traveller, const UnitView& head, bool train, double* loss) {
  if (train) {
    ASSIGN_OR_RETURN(traveller.dx_TD,
                     arena_->Allocate(DType::kF32, traveller.batch.tokens, config_.hidden));
  }
  ArenaScope scope(arena_.get());
  const int64_t tokens = traveller.batch.tokens;
  const RmsNormParams norm{.epsilon = config_.rms_eps};
  ASSIGN_OR_RETURN(const View normed, arena_->Allocate(DType::kF32, tokens, config_.hidden));
  ASSIGN_OR_RETURN(const View inv_rms, arena_->Allocate(DType::kF32, 1, tokens));
  ASSIGN_OR_RETURN(const View sum, arena_->Allocate(DType::kF64, 1, 1));
  RETURN_IF_ERROR(ops_->RmsNorm(ctx(), traveller.x_TD, final_norm_D_, norm, normed, inv_rms));
  const size_t output = static_cast<size_t>(output_index_);
  RETURN_IF_ERROR(ops_->CrossEntropy(ctx(), normed, head.forward[output], head.backward[output],
                                     options_.precision, traveller.batch.targets,
                                     LossChunk(*ops_, config_.vocab), sum,
                                     train ? traveller.dx_TD : View::None()));
  if (train) {
    RETURN_IF_ERROR(ops_->RmsNormBackward(ctx(), traveller.dx_TD, traveller.x_TD, final_norm_D_,
                                          inv_rms, norm, Write::kSet, traveller.dx_TD));
  }
  return ops_->device()->CopyOut(ctx(), loss, sum.data, sizeof(*loss));
}

// The losses of all micro-batches of a pass, and the end of its work: nobody waits in between.
// They come into memory of the model's own, since a pass that breaks off leaves copies under way.
absl::Status Llama::AllLosses(std::vector<Traveller>& travellers, const UnitView& head,
                              bool train) {
  losses_.resize(travellers.size());
  for (size_t m = 0; m < travellers.size(); ++m) {
    RETURN_IF_ERROR(Loss(travellers[m], head, train, &losses_[m]));
  }
  return absl::OkStatus();
}

absl::Status Llama::Finish(std::span<double> losses) {
  RETURN_IF_ERROR(ops_->device()->Synchronize(ctx()));
  std::copy(losses_.begin(), losses_.end(), losses.begin());
  return absl::OkStatus();
}

// Nothing of the pass is under way when it ends, however it ends.
void Llama::EndPass() {
  (void)ops_->device()->Synchronize(ctx());
  weights_->EndPass();
}

absl::Status Llama::Down(std::vector<Traveller>& travellers, const AdapterView& adapter,
                         const DropoutKey& dropout, Recompute recompute, const GradientSink& sink) {
  const std::vector<LoraTensor>& tensors = adapter.layout->tensors();
  size_t end = tensors.size();
  for (int64_t layer = config_.layers - 1; layer >= adapter.layout->lowest_layer(); --layer) {
    ASSIGN_OR_RETURN(const UnitView* unit, weights_->Next());
    RETURN_IF_ERROR(EnsureScratch(*unit, largest_tokens_, {}));
    const LayerContext context = ContextOf(adapter, dropout, layer, unit);
    size_t first = end;
    while (first > 0 && tensors[first - 1].layer == layer) --first;
    const int64_t size =
        first == end ? 0 : tensors[end - 1].offset + tensors[end - 1].size - tensors[first].offset;
    const size_t kept = static_cast<size_t>(layer - adapter.layout->lowest_layer());
    for (size_t m = 0; m < travellers.size(); ++m) {
      Traveller& traveller = travellers[m];
      ArenaScope scope(arena_.get());
      ASSIGN_OR_RETURN(const View grad, arena_->Allocate(DType::kF32, 1, size));
      RETURN_IF_ERROR(ops_->device()->Zero(ctx(), grad.data, grad.bytes()));
      LayerActs acts;
      if (recompute == Recompute::kNone) {
        acts = traveller.acts[kept];
      } else {
        ASSIGN_OR_RETURN(acts, AllocateActs(context, traveller.batch.tokens));
        // The layer's output is known and of no use; x_TD is free after the head.
        RETURN_IF_ERROR(
            Forward(context, traveller.batch, traveller.inputs[kept], acts, traveller.x_TD));
      }
      RETURN_IF_ERROR(
          Backward(context, traveller.batch, traveller.inputs[kept], acts, traveller.dx_TD, grad));
      if (size > 0) {
        RETURN_IF_ERROR(sink(static_cast<int>(m), static_cast<int>(first),
                             static_cast<int>(end - first), grad));
      }
    }
    end = first;
  }
  return absl::OkStatus();
}

absl::Status Llama::Train(std::span<const Batch> batches, const AdapterView& adapter,
                          const DropoutKey& dropout, Recompute recompute, const GradientSink& sink,
                          std::span<double> losses) {
  TUNDRA_CHECK(adapter.layout != nullptr && losses.size() == batches.size());
  rank_ = adapter.layout->rank();
  int64_t tokens = 0;
  for (const Batch& batch : batches) tokens = std::max(tokens, batch.padded_tokens());
  RETURN_IF_ERROR(EnsureArena(TrainPassBytes(config_, *adapter.layout, tokens,
                                             static_cast<int64_t>(batches.size()), recompute)));
  const size_t works = recompute == Recompute::kFull ? 3 : 2;
  graphs_.Reserve(kGraphShapes * works * batches.size() * static_cast<size_t>(config_.layers));
  RETURN_IF_ERROR(weights_->BeginPass(Uses(Goal::kTrain, adapter, recompute), stream_.get()));
  absl::Cleanup end = [this] { EndPass(); };
  std::vector<Traveller> travellers;
  travellers.reserve(batches.size());
  RETURN_IF_ERROR(Start(batches, travellers));
  RETURN_IF_ERROR(Embed(travellers));
  RETURN_IF_ERROR(Up(travellers, adapter, dropout, Goal::kTrain, recompute));
  ASSIGN_OR_RETURN(const UnitView* head, NextHead(0));
  RETURN_IF_ERROR(AllLosses(travellers, *head, true));
  RETURN_IF_ERROR(Down(travellers, adapter, dropout, recompute, sink));
  return Finish(losses);
}

absl::Status Llama::Losses(std::span<const Batch> batches, const AdapterView& adapter,
                           std::span<double> losses) {
  TUNDRA_CHECK(losses.size() == batches.size());
  int64_t tokens = 0;
  for (const Batch& batch : batches) tokens = std::max(tokens, batch.padded_tokens());
  RETURN_IF_ERROR(EnsureArena(
      ForwardPassBytes(config_, adapter.layout, tokens, static_cast<int64_t>(batches.size()))));
  RETURN_IF_ERROR(weights_->BeginPass(Uses(Goal::kLoss, adapter, Recompute::kNone), stream_.get()));
  absl::Cleanup end = [this] { EndPass(); };
  std::vector<Traveller> travellers;
  RETURN_IF_ERROR(Start(batches, travellers));
  RETURN_IF_ERROR(Embed(travellers));
  RETURN_IF_ERROR(Up(travellers, adapter, {}, Goal::kLoss, Recompute::kNone));
  ASSIGN_OR_RETURN(const UnitView* head, NextHead(0));
  RETURN_IF_ERROR(AllLosses(travellers, *head, false));
  return Finish(losses);
}

absl::StatusOr<std::vector<float>> Llama::Logits(const Batch& batch, const AdapterView& adapter,
                                                 std::span<const int32_t> tokens_N) {
  const int64_t n = static_cast<int64_t>(tokens_N.size());
  const uint64_t extra = static_cast<uint64_t>(n * (config_.vocab + config_.hidden + 1) + 64) * 4;
  RETURN_IF_ERROR(
      EnsureArena(ForwardPassBytes(config_, adapter.layout, batch.padded_tokens(), 1) + extra));
  RETURN_IF_ERROR(
      weights_->BeginPass(Uses(Goal::kLogits, adapter, Recompute::kNone), stream_.get()));
  absl::Cleanup end = [this] { EndPass(); };
  std::vector<Traveller> travellers;
  RETURN_IF_ERROR(Start({&batch, 1}, travellers));
  RETURN_IF_ERROR(Embed(travellers));
  RETURN_IF_ERROR(Up(travellers, adapter, {}, Goal::kLogits, Recompute::kNone));
  ASSIGN_OR_RETURN(const UnitView* head, NextHead(n));
  Device* device = ops_->device();
  ASSIGN_OR_RETURN(const View index, arena_->Allocate(DType::kI32, 1, n));
  RETURN_IF_ERROR(device->CopyIn(ctx(), index.data, tokens_N.data(), index.bytes()));
  ASSIGN_OR_RETURN(const View picked, arena_->Allocate(DType::kF32, n, config_.hidden));
  ASSIGN_OR_RETURN(const View inv_rms, arena_->Allocate(DType::kF32, 1, n));
  ASSIGN_OR_RETURN(const View logits, arena_->Allocate(DType::kF32, n, config_.vocab));
  RETURN_IF_ERROR(ops_->GatherRows(ctx(), travellers[0].x_TD, index, picked));
  RETURN_IF_ERROR(
      ops_->RmsNorm(ctx(), picked, final_norm_D_, {.epsilon = config_.rms_eps}, picked, inv_rms));
  RETURN_IF_ERROR(ops_->FrozenMatmul(ctx(), picked,
                                     head->forward[static_cast<size_t>(output_index_)],
                                     options_.precision, Write::kSet, logits));
  std::vector<float> result(static_cast<size_t>(n * config_.vocab));
  RETURN_IF_ERROR(device->CopyOut(ctx(), result.data(), logits.data, logits.bytes()));
  RETURN_IF_ERROR(device->Synchronize(ctx()));
  return result;
}

}  // namespace tundra
