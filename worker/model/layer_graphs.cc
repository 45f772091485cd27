#include "worker/model/layer_graphs.h"

#include <algorithm>
#include <bit>

#include "common/status.h"

namespace tundra {
namespace {

class KeyBuilder {
 public:
  void Add(int64_t number) { key_.push_back(static_cast<uint64_t>(number)); }
  void Add(const void* place) { key_.push_back(reinterpret_cast<uintptr_t>(place)); }
  void Add(const ConstView& view) {
    Add(view.data);
    Add(view.rows);
    Add(view.cols);
    Add(view.stride);
    Add(static_cast<int64_t>(view.dtype));
  }
  void Add(const FrozenWeight& weight) {
    Add(weight.view_NK);
    Add(static_cast<int64_t>(weight.layout));
    Add(static_cast<int64_t>(weight.direction));
    Add(static_cast<int64_t>(weight.precision));
  }
  WorkKey Take() { return std::move(key_); }

 private:
  WorkKey key_;
};

void AddUnit(const UnitView& unit, KeyBuilder& key) {
  for (const ConstView& tensor : unit.tensors) key.Add(tensor);
  for (const FrozenWeight& weight : unit.forward) key.Add(weight);
  for (const FrozenWeight& weight : unit.backward) key.Add(weight);
}

// What the adapter of this layer is, by content: layouts come and go at one address.
void AddAdapter(const AdapterView& adapter, int64_t layer, KeyBuilder& key) {
  key.Add(adapter.weights);
  if (adapter.layout == nullptr) return;
  key.Add(static_cast<int64_t>(std::bit_cast<uint32_t>(adapter.layout->scale())));
  key.Add(adapter.layout->lowest_layer());
  key.Add(static_cast<int64_t>(adapter.layout->lowest_group()));
  for (const LoraTensor& tensor : adapter.layout->tensors()) {
    if (tensor.layer != layer) continue;
    key.Add(static_cast<int64_t>(tensor.module));
    key.Add(static_cast<int64_t>(tensor.is_a));
    key.Add(tensor.offset);
    key.Add(tensor.shape[0]);
    key.Add(tensor.shape[1]);
  }
}

void AddActs(const LayerActs& acts, KeyBuilder& key) {
  for (const View* view :
       {&acts.inv_rms1_T, &acts.q_TH, &acts.k_TG, &acts.v_TG, &acts.attention_TH, &acts.lse_TH,
        &acts.mid_TD, &acts.inv_rms2_T, &acts.gate_TF, &acts.up_TF}) {
    key.Add(*view);
  }
  for (const View& view : acts.down_TR) key.Add(view);
}

}  // namespace

WorkKey KeyOfLayer(LayerWork work, const LayerContext& context, const DeviceBatch& batch,
                   const LayerActs& acts, ConstView x_TD, ConstView y_TD, ConstView grad) {
  KeyBuilder key;
  key.Add(static_cast<int64_t>(work));
  key.Add(context.layer);
  key.Add(static_cast<int64_t>(context.precision));
  key.Add(context.ctx.scratch);
  key.Add(static_cast<int64_t>(context.arena->mark()));  // temporaries start here
  key.Add(batch.positions_T);
  key.Add(batch.data_rows_T);
  key.Add(batch.rows.offsets);
  key.Add(batch.rows.num_rows);
  key.Add(batch.rows.max_length);
  key.Add(batch.tokens);
  key.Add(x_TD);
  key.Add(y_TD);
  key.Add(grad);
  AddActs(acts, key);
  AddAdapter(context.adapter, context.layer, key);
  AddUnit(*context.weights, key);
  return key.Take();
}

absl::Status LayerGraphs::Run(Ctx ctx, WorkKey key, const std::function<absl::Status()>& work) {
  if (!device_->has_graphs()) return work();
  const auto [found, first] = entries_.try_emplace(std::move(key));
  Entry& entry = found->second;
  entry.used = ++clock_;
  if (first) {
    // By itself: kernels are loaded now, which a capture can't wait for, and what is never
    // done again is never captured.
    const absl::Status done = work();
    if (!done.ok()) entries_.erase(found);
    RETURN_IF_ERROR(done);
    return MakeRoom(ctx);
  }
  if (entry.graph == nullptr) {
    ASSIGN_OR_RETURN(entry.graph, Capture(ctx, work));
  }
  ++launches_;
  return device_->Launch(ctx, *entry.graph);
}

absl::StatusOr<std::unique_ptr<Graph>> LayerGraphs::Capture(
    Ctx ctx, const std::function<absl::Status()>& work) {
  RETURN_IF_ERROR(device_->BeginCapture(ctx));
  const absl::Status done = work();
  absl::StatusOr<std::unique_ptr<Graph>> graph = device_->EndCapture(ctx);
  RETURN_IF_ERROR(done);
  return graph;
}

// A quarter at once, so that it is seldom.
absl::Status LayerGraphs::MakeRoom(Ctx ctx) {
  if (entries_.size() <= capacity_) return absl::OkStatus();
  RETURN_IF_ERROR(device_->Synchronize(ctx));
  std::vector<uint64_t> times;
  for (const auto& [key, entry] : entries_) times.push_back(entry.used);
  const auto cut = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 4);
  std::nth_element(times.begin(), cut, times.end());
  const uint64_t oldest_kept = *cut;
  std::erase_if(entries_, [&](const auto& item) { return item.second.used <= oldest_kept; });
  return absl::OkStatus();
}

absl::Status LayerGraphs::Clear(Ctx ctx) {
  if (entries_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(device_->Synchronize(ctx));
  entries_.clear();
  return absl::OkStatus();
}

}  // namespace tundra
