// The memory in which a rank keeps its shard of the base, and the view of the whole
// base that ranks of one host get by mapping each other's.
//
// A shard lies in a memory file (memfd): filled once, then sealed, so that no
// process that holds its descriptor can write, shrink or grow it; it is mapped
// read-only, so that a stray write faults. The base never changes: that is checked
// by Hash() before and after a job, and by a test that writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "common/files.h"
#include "worker/model/shard_plan.h"

namespace tundra {

// Movable. Its descriptor may be passed to other processes.
class ResidentShard {
 public:
  // Makes the memory, reads the shard, seals it.
  // Errors: kResourceExhausted when memory is short; those of LoadShard.
  static absl::StatusOr<ResidentShard> Load(const ShardPlan& plan, const BaseFiles& base,
                                            int shard);

  int fd() const { return fd_.get(); }
  uint64_t bytes() const { return bytes_; }
  // Whether the system took all seals (it does since Linux 5.1).
  bool sealed() const { return sealed_; }

  // SHA-256 of what the memory holds now, hex.
  absl::StatusOr<std::string> Hash() const;

 private:
  Fd fd_;
  uint64_t bytes_ = 0;
  bool sealed_ = false;
};

// One shard, mapped read-only. Movable; unmapped with its owner; the descriptor may
// be closed after Map.
class MappedShard {
 public:
  MappedShard() = default;
  ~MappedShard();
  MappedShard(MappedShard&& other) noexcept;
  MappedShard& operator=(MappedShard&& other) noexcept;

  // Errors: kInvalidArgument for a memory of another size than `bytes`.
  static absl::StatusOr<MappedShard> Map(int fd, uint64_t bytes);

  std::span<const std::byte> bytes() const { return {start_, bytes_}; }
  std::span<const std::byte> slice(const Unit& unit) const {
    return {start_ + unit.offset_in_shard, unit.slice_bytes};
  }

 private:
  std::byte* start_ = nullptr;
  uint64_t bytes_ = 0;
};

// All shards of a base, mapped read-only at addresses that make every unit one
// piece. Movable; unmapped with its owner; the descriptors may be closed after Map.
class MappedBase {
 public:
  MappedBase() = default;
  ~MappedBase();
  MappedBase(MappedBase&& other) noexcept;
  MappedBase& operator=(MappedBase&& other) noexcept;

  // fds[s] is the memory of shard s of this plan.
  // Errors: kInvalidArgument for a memory of another size; kResourceExhausted.
  static absl::StatusOr<MappedBase> Map(const ShardPlan& plan, std::span<const int> fds);

  // The unit's bytes, shards × slice_bytes of them.
  const std::byte* unit(const Unit& unit) const {
    return start_ + unit.offset_in_shard * static_cast<uint64_t>(shards_);
  }

 private:
  std::byte* start_ = nullptr;
  uint64_t bytes_ = 0;
  int shards_ = 1;
};

}  // namespace tundra
