// The adapters of one group of modules that share their input: without dropout one
// product x·Aᵀ serves the stacked A's; with dropout each module has a mask, hence an
// input, of its own.
#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "worker/model/layer.h"

namespace tundra {
namespace {

constexpr LayerTensor kQkv[] = {kQ, kK, kV};
constexpr LayerTensor kOutput[] = {kO};
constexpr LayerTensor kGateUp[] = {kGate, kUp};
constexpr LayerTensor kDownOnly[] = {kDown};

// The matrix of tensors [first, first + count) of the adapter, which lie end to end
// and have equal rows.
template <typename AnyView>
AnyView Stacked(AnyView flat, const LoraLayout& layout, int first, int64_t count, int64_t base) {
  const LoraTensor& tensor = layout.tensors()[static_cast<size_t>(first)];
  return AnyView::Matrix(flat.At(0, tensor.offset - base), DType::kF32, count * tensor.shape[0],
                         tensor.shape[1]);
}

int Place(LoraGroup group, LayerTensor module) {
  const std::span<const LayerTensor> modules = GroupModules(group);
  return static_cast<int>(std::find(modules.begin(), modules.end(), module) - modules.begin());
}

DropoutKey KeyOf(const LayerContext& context, LayerTensor module) {
  DropoutKey key = context.dropout;
  key.layer = static_cast<uint32_t>(context.layer);
  key.module = static_cast<uint32_t>(module);
  return key;
}

// x with the module's mask on, in arena memory.
absl::StatusOr<View> Dropped(const LayerContext& c, const DeviceBatch& batch, LayerTensor module,
                             ConstView x_TK) {
  ASSIGN_OR_RETURN(View dropped, c.arena->Allocate(DType::kF32, x_TK.rows, x_TK.cols));
  RETURN_IF_ERROR(c.ops->Dropout(c.ctx, x_TK, KeyOf(c, module), batch.data_rows_T,
                                 batch.positions_T, Write::kSet, dropped));
  return dropped;
}

}  // namespace

ConstView AdapterView::Tensor(int index) const {
  return Stacked(weights, *layout, index, 1, 0);
}

std::span<const LayerTensor> GroupModules(LoraGroup group) {
  switch (group) {
    case kGroupQkv:
      return kQkv;
    case kGroupO:
      return kOutput;
    case kGroupGateUp:
      return kGateUp;
    case kGroupDown:
      return kDownOnly;
    case kLoraGroups:
      break;
  }
  TUNDRA_CHECK(false) << "no such group";
  return {};
}

absl::Status LoraGroupForward(const LayerContext& c, const DeviceBatch& batch, LoraGroup group,
                              ConstView x_TK, std::span<const View> y, View down_TR) {
  if (c.adapter.layout == nullptr) return absl::OkStatus();
  const LoraLayout& layout = *c.adapter.layout;
  const std::vector<LayerTensor> modules = layout.Adapted(c.layer, group);
  if (modules.empty()) return absl::OkStatus();
  const int64_t rank = layout.rank();
  const bool dropping = c.dropout.probability > 0;
  if (!dropping) {
    const ConstView a = Stacked(c.adapter.weights, layout, layout.a(c.layer, modules[0]),
                                static_cast<int64_t>(modules.size()), 0);
    RETURN_IF_ERROR(c.ops->LoraDown(c.ctx, x_TK, a, down_TR));
  }
  for (size_t i = 0; i < modules.size(); ++i) {
    const View down = down_TR.Cols(static_cast<int64_t>(i) * rank, rank);
    if (dropping) {
      ArenaScope scope(c.arena);
      ASSIGN_OR_RETURN(const View dropped, Dropped(c, batch, modules[i], x_TK));
      const ConstView a = c.adapter.Tensor(layout.a(c.layer, modules[i]));
      RETURN_IF_ERROR(c.ops->LoraDown(c.ctx, dropped, a, down));
    }
    const ConstView b = c.adapter.Tensor(layout.b(c.layer, modules[i]));
    const View& out = y[static_cast<size_t>(Place(group, modules[i]))];
    RETURN_IF_ERROR(c.ops->LoraUp(c.ctx, down, b, layout.scale(), out));
  }
  return absl::OkStatus();
}

absl::Status LoraGroupBackward(const LayerContext& c, const DeviceBatch& batch, LoraGroup group,
                               ConstView x_TK, ConstView down_TR, std::span<const View> dy,
                               View dx_TK, View grad) {
  if (c.adapter.layout == nullptr) return absl::OkStatus();
  const LoraLayout& layout = *c.adapter.layout;
  const std::vector<LayerTensor> modules = layout.Adapted(c.layer, group);
  if (modules.empty()) return absl::OkStatus();
  ArenaScope scope(c.arena);
  const int64_t rank = layout.rank();
  const int64_t count = static_cast<int64_t>(modules.size());
  // grad starts at the layer's first tensor.
  int64_t base = 0;
  for (const LoraTensor& tensor : layout.tensors()) {
    if (tensor.layer == c.layer) {
      base = tensor.offset;
      break;
    }
  }
  ASSIGN_OR_RETURN(const View ddown_TR, c.arena->Allocate(DType::kF32, x_TK.rows, count * rank));
  for (int64_t i = 0; i < count; ++i) {
    const LayerTensor module = modules[static_cast<size_t>(i)];
    const int index = layout.b(c.layer, module);
    RETURN_IF_ERROR(c.ops->LoraUpBackward(
        c.ctx, dy[static_cast<size_t>(Place(group, module))], down_TR.Cols(i * rank, rank),
        c.adapter.Tensor(index), layout.scale(), ddown_TR.Cols(i * rank, rank),
        Stacked(grad, layout, index, 1, base)));
  }
  if (!(c.dropout.probability > 0)) {
    const int first = layout.a(c.layer, modules[0]);
    return c.ops->LoraDownBackward(c.ctx, ddown_TR, x_TK,
                                   Stacked(c.adapter.weights, layout, first, count, 0),
                                   Stacked(grad, layout, first, count, base), dx_TK);
  }
  for (int64_t i = 0; i < count; ++i) {
    ArenaScope inner(c.arena);
    const LayerTensor module = modules[static_cast<size_t>(i)];
    const int index = layout.a(c.layer, module);
    ASSIGN_OR_RETURN(const View dropped, Dropped(c, batch, module, x_TK));
    View ddropped = View::None();
    if (!dx_TK.empty()) {
      ASSIGN_OR_RETURN(ddropped, c.arena->Allocate(DType::kF32, x_TK.rows, x_TK.cols));
      RETURN_IF_ERROR(c.ops->device()->Zero(c.ctx, ddropped.data, ddropped.bytes()));
    }
    RETURN_IF_ERROR(c.ops->LoraDownBackward(c.ctx, ddown_TR.Cols(i * rank, rank), dropped,
                                            c.adapter.Tensor(index),
                                            Stacked(grad, layout, index, 1, base), ddropped));
    if (dx_TK.empty()) continue;
    RETURN_IF_ERROR(c.ops->Dropout(c.ctx, ddropped, KeyOf(c, module), batch.data_rows_T,
                                   batch.positions_T, Write::kAdd, dx_TK));
  }
  return absl::OkStatus();
}

}  // namespace tundra
