// Launches a layer's work as one graph, on devices that have graphs.
//
// A layer is some sixty short kernels, forward or backward; with a small model or a short
// micro-batch the host takes longer to launch them than the device to run them. Shapes repeat:
// micro-batches are padded to multiples of 128 tokens, and memory comes from arenas, so that the
// same shapes lie in the same places. What was done before with the same operands is captured
// the second time and put on the stream as one piece from then on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/device.h"
#include "worker/model/layer.h"

namespace tundra {

// Everything that the launches of a layer's work depend on: where its operands lie, their
// shapes, how weights are laid out, which modules are adapted. Two pieces of work of one model
// with equal keys are the same launches.
using WorkKey = std::vector<uint64_t>;

enum class LayerWork : uint64_t { kForward, kBackward };

// x, and y of the forward or the gradients dx and grad of the backward.
WorkKey KeyOfLayer(LayerWork work, const LayerContext& context, const DeviceBatch& batch,
                   const LayerActs& acts, ConstView x_TD, ConstView y_TD, ConstView grad);

// Used by one thread.
class LayerGraphs {
 public:
  // `device` outlives them.
  explicit LayerGraphs(Device* device) : device_(device) {}

  // At least so many graphs are kept from now on; of more, those that were not used for longest
  // go. Fewer than one round of a pass takes are of no use: each would go before it comes again.
  void Reserve(size_t capacity) { capacity_ = std::max(capacity_, capacity); }

  // Does the work, which may only put operations on ctx's stream: itself, or by the graph of
  // the same key. Without graphs on the device it just does it.
  absl::Status Run(Ctx ctx, WorkKey key, const std::function<absl::Status()>& work);

  // Forgets all, after waiting for the stream: the memory that keys speak of goes.
  absl::Status Clear(Ctx ctx);

  // Of all runs, how many were a graph's launch.
  int64_t launches() const { return launches_; }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::unique_ptr<Graph> graph;  // from the second time on
    uint64_t used = 0;
  };

  absl::StatusOr<std::unique_ptr<Graph>> Capture(Ctx ctx,
                                                 const std::function<absl::Status()>& work);
  absl::Status MakeRoom(Ctx ctx);

  Device* const device_;
  size_t capacity_ = 1;
  std::map<WorkKey, Entry> entries_;
  uint64_t clock_ = 0;
  int64_t launches_ = 0;
};

}  // namespace tundra
