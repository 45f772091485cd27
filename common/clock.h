// Time as an argument: everything that decides takes a Clock, so that tests
// and the simulation can move it.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace tundra {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Wall time, for people and records. May jump.
  virtual absl::Time Now() = 0;
  // Time since an arbitrary start that never jumps; leases and deadlines use it.
  virtual absl::Duration Monotonic() = 0;

  // The machine's clock; lives for ever.
  static Clock* System();
};

// A clock that moves only when told to.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'700'000'000)) : now_(start) {}
  absl::Time Now() override;
  absl::Duration Monotonic() override;
  // Moves both readings forward by d (>= 0).
  void Advance(absl::Duration d);
  // Moves wall time only, by d of either sign, as a clock jump does.
  void JumpWall(absl::Duration d);

 private:
  absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
  absl::Duration monotonic_ ABSL_GUARDED_BY(mu_) = absl::ZeroDuration();
};

}  // namespace tundra
