// What the host backends share: the combining functions, argument checks, and
// the counters. Not for users of Collective.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "worker/collective/collective.h"

namespace tundra::internal {

enum class CollectiveKind : uint8_t { kSum, kMaxFloat, kMaxDouble, kGather, kBroadcast, kBarrier };

inline const char* KindName(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kSum:
      return "all-reduce (sum)";
    case CollectiveKind::kMaxFloat:
    case CollectiveKind::kMaxDouble:
      return "all-reduce (max)";
    case CollectiveKind::kGather:
      return "all-gather";
    case CollectiveKind::kBroadcast:
      return "broadcast";
    case CollectiveKind::kBarrier:
      return "barrier";
  }
  return "?";
}

inline size_t ElementBytes(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kSum:
    case CollectiveKind::kMaxDouble:
      return 8;
    case CollectiveKind::kMaxFloat:
      return 4;
    case CollectiveKind::kGather:
    case CollectiveKind::kBroadcast:
    case CollectiveKind::kBarrier:
      return 1;
  }
  return 1;
}

template <typename T>
T MaxNanWins(T a, T b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<T>::quiet_NaN();
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

// into[i] := combine(into[i], from[i]) for the bytes of `count` elements. Commutative
// and associative to the bit, for every kind.
inline void Combine(CollectiveKind kind, void* into, const void* from, size_t count) {
  switch (kind) {
    case CollectiveKind::kSum: {
      auto* a = static_cast<int64_t*>(into);
      auto* b = static_cast<const int64_t*>(from);
      for (size_t i = 0; i < count; ++i) {
        a[i] = static_cast<int64_t>(static_cast<uint64_t>(a[i]) + static_cast<uint64_t>(b[i]));
      }
      return;
    }
    case CollectiveKind::kMaxFloat: {
      auto* a = static_cast<float*>(into);
      auto* b = static_cast<const float*>(from);
      for (size_t i = 0; i < count; ++i) a[i] = MaxNanWins(a[i], b[i]);
      return;
    }
    case CollectiveKind::kMaxDouble: {
      auto* a = static_cast<double*>(into);
      auto* b = static_cast<const double*>(from);
      for (size_t i = 0; i < count; ++i) a[i] = MaxNanWins(a[i], b[i]);
      return;
    }
    case CollectiveKind::kGather:
    case CollectiveKind::kBroadcast:
    case CollectiveKind::kBarrier:
      return;
  }
}

// Errors: kInvalidArgument.
inline absl::Status CheckCallOptions(const CallOptions& options) {
  if (options.timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("collective call: the timeout must be more than 0");
  }
  const int channel = static_cast<int>(options.channel);
  if (channel < 0 || channel >= kChannels) {
    return absl::InvalidArgumentError(absl::StrCat("collective call: no channel ", channel));
  }
  return absl::OkStatus();
}

inline absl::Status CheckGatherSizes(size_t mine, size_t all, int size) {
  if (mine > std::numeric_limits<size_t>::max() / static_cast<size_t>(size) ||
      mine * static_cast<size_t>(size) != all) {
    return absl::InvalidArgumentError(absl::StrCat("all-gather: ", size, " ranks of ", mine,
                                                   " bytes each don't fill ", all, " bytes"));
  }
  return absl::OkStatus();
}

inline absl::Status CheckRoot(int root, int size) {
  if (root < 0 || root >= size) {
    return absl::InvalidArgumentError(
        absl::StrCat("broadcast: root ", root, " is not one of ", size, " ranks"));
  }
  return absl::OkStatus();
}

// Thread-safe counters behind Collective::stats().
class StatsCounter {
 public:
  // bytes: the payload (for gathers this rank's own).
  void Add(CollectiveKind kind, size_t bytes, int size, absl::Duration elapsed, bool ok) {
    const std::lock_guard<std::mutex> lock(mu_);
    const double seconds = absl::ToDoubleSeconds(elapsed);
    const auto payload = ok ? static_cast<int64_t>(bytes) : 0;
    stats_.calls++;
    switch (kind) {
      case CollectiveKind::kSum:
      case CollectiveKind::kMaxFloat:
      case CollectiveKind::kMaxDouble:
        stats_.bytes_reduced += payload;
        stats_.reduce_seconds += seconds;
        return;
      case CollectiveKind::kGather:
        stats_.bytes_gathered += payload * (size - 1);
        stats_.gather_seconds += seconds;
        return;
      case CollectiveKind::kBroadcast:
        stats_.bytes_broadcast += payload;
        [[fallthrough]];
      case CollectiveKind::kBarrier:
        stats_.other_seconds += seconds;
        return;
    }
  }

  CollectiveStats Get() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return stats_;
  }

 private:
  mutable std::mutex mu_;
  CollectiveStats stats_;
};

}  // namespace tundra::internal
