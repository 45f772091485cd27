// How a base is laid out in memory and cut over the ranks that hold it.
//
// The base is a list of units, the pieces that are gathered one at a time: the
// embedding, each decoder layer, and the head (final norm and, unless it is the
// embedding, the output matrix). A unit's tensors lie end to end, each at a
// multiple of 64 bytes, as they are stored in the files: same precision, row-major
// [out, in]. The unit is cut into `shards` equal slices of whole pages, and shard s
// holds slice s of every unit, one after another:
//
//   unit u:   | slice 0 | slice 1 | … |        shard s: | u0 slice s | u1 slice s | …
//
// Whole pages let ranks of one host map each other's slices side by side, so that
// a unit appears in one piece without a copy (weights.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/base_files.h"
#include "worker/model/config.h"

namespace tundra {

inline constexpr uint64_t kPageBytes = 4096;

// Where a layer's tensors stand in its unit; the linear ones are those that LoRA
// can adapt, in this order everywhere.
enum LayerTensor : int {
  kAttentionNorm = 0,
  kQ,
  kK,
  kV,
  kO,
  kMlpNorm,
  kGate,
  kUp,
  kDown,
  kLayerTensors
};
// In the embedding's unit, and the head's.
inline constexpr int kEmbeddingTensor = 0;
inline constexpr int kFinalNormTensor = 0;
inline constexpr int kOutputTensor = 1;

struct UnitTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  Shape shape;
  // Bytes from the unit's start, a multiple of 64.
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct Unit {
  std::vector<UnitTensor> tensors;
  // All tensors with their padding.
  uint64_t bytes = 0;
  // Of one shard; a multiple of kPageBytes, shards × slice_bytes >= bytes.
  uint64_t slice_bytes = 0;
  // Of the slice in every shard.
  uint64_t offset_in_shard = 0;
};

// A value type: equal bases and shard counts give equal plans.
class ShardPlan {
 public:
  // shards >= 1. Errors: kNotFound for a tensor that the architecture needs,
  // kInvalidArgument for one of a wrong shape, with names and sizes.
  static absl::StatusOr<ShardPlan> Make(const ModelConfig& config, const BaseFiles& base,
                                        int shards);

  int shards() const { return shards_; }
  // Embedding, layers, head: layers + 2 units.
  const std::vector<Unit>& units() const { return units_; }
  // Whether any tensor is stored as f16, which is widened on a host before a device computes with
  // it.
  bool has_half() const;
  int embedding_unit() const { return 0; }
  int layer_unit(int64_t layer) const { return static_cast<int>(layer) + 1; }
  int head_unit() const { return static_cast<int>(units_.size()) - 1; }
  // The unit and tensor of the output matrix: the embedding when tied.
  int output_unit() const { return tied_ ? embedding_unit() : head_unit(); }
  const UnitTensor& output_tensor() const {
    return tied_ ? units_[0].tensors[kEmbeddingTensor] : units_.back().tensors[kOutputTensor];
  }

  // Bytes that one rank keeps.
  uint64_t shard_bytes() const;
  // Bytes of all tensors, without padding.
  uint64_t base_bytes() const;
  // The largest shards × slice_bytes: what a gathered unit takes.
  uint64_t largest_unit_bytes() const;

 private:
  int shards_ = 1;
  bool tied_ = false;
  std::vector<Unit> units_;
};

// The file's name of a layer's tensor: "model.layers.3.self_attn.q_proj.weight".
std::string LayerTensorName(int64_t layer, LayerTensor tensor);

// Reads shard `shard` from the files into `to` (exactly plan.shard_bytes()): its
// own slices and nothing else. Padding becomes zero.
// Errors: those of BaseFiles::Read.
absl::Status LoadShard(const ShardPlan& plan, const BaseFiles& base, int shard,
                       std::span<std::byte> to);

}  // namespace tundra
