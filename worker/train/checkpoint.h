// A job's whole mutable state, as a value and as bytes.
//
// The bytes are a safetensors file: adapter, both moments (tensor by tensor, under
// the adapter's names), exponents; counters and identities in the metadata, and
// there also the SHA-256 of the file itself (taken with zeros in its place), so that
// a torn or flipped file is never loaded. What a state belongs to (job spec, base,
// numerics class) is checked too: resuming is exact or refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/lora.h"

namespace tundra {

// What a state is the state of. All three must be equal to resume.
struct JobIdentity {
  // Hash of spec and data (SpecHash).
  std::string spec_hash;
  std::string base_hash;
  std::string numerics_class;
  bool operator==(const JobIdentity&) const = default;
};

// Everything that changes from step to step. A value type.
struct JobState {
  JobIdentity identity;
  // Steps done; the cursor in the data follows from it.
  int64_t step = 0;
  // Of them, those that updated the weights.
  int64_t updates = 0;
  // Steps skipped for a gradient that was not finite: in all, and since the last good one.
  int64_t non_finite = 0;
  int64_t non_finite_in_row = 0;
  // Passes done again with new exponents.
  int64_t redone = 0;
  // Tokens and target tokens trained on.
  int64_t tokens = 0;
  int64_t target_tokens = 0;
  // layout.parameters() each.
  std::vector<float> weights;
  std::vector<float> moment1;
  std::vector<float> moment2;
  // One a tensor (exact_sum.h).
  std::vector<int32_t> exponents;
};

// Equal states give equal bytes.
std::string EncodeCheckpoint(const LoraLayout& layout, const JobState& state);

// `source` names the bytes in messages.
// Errors: kDataLoss for bytes that are torn or altered, kFailedPrecondition for a
// state of another job, base or numerics class; each with the reason and what to do.
absl::StatusOr<JobState> DecodeCheckpoint(std::string_view bytes, std::string_view source,
                                          const LoraLayout& layout, const JobIdentity& expected);

// Only what the metadata says, from checked bytes; for whoever chooses among states.
struct CheckpointInfo {
  JobIdentity identity;
  int64_t step = 0;
};
absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(std::string_view bytes, std::string_view source);

// "checkpoint-00000020.safetensors".
std::string CheckpointFileName(int64_t step);

// The newest state in a folder that is whole and of this job. Those that aren't are
// logged, left alone and passed over.
// Errors: kNotFound when there is none.
absl::StatusOr<JobState> LoadNewestCheckpoint(const std::string& dir, const LoraLayout& layout,
                                              const JobIdentity& expected);

// Removes all but the `keep` newest checkpoint files of a folder. keep >= 1.
absl::Status PruneCheckpoints(const std::string& dir, int keep);

}  // namespace tundra
