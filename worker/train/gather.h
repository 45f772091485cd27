// A group's collective as the gather of a weight source.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "worker/collective/collective.h"
#include "worker/model/weights.h"

namespace tundra {

// Gathers on channel kGather of a group whose rank s holds shard s. The collective
// must outlive the result.
inline ShardGather GatherOver(Collective* collective, absl::Duration timeout) {
  return [=](Stream* stream, std::span<const std::byte> mine, std::span<std::byte> all) {
    return collective->AllGather(
        mine, all, {.timeout = timeout, .channel = Channel::kGather, .stream = stream->native()});
  };
}

}  // namespace tundra
