// Bounds how many refused calls of one caller are stored: nobody may push the
// record of what was done out of the audit log by being refused.
#pragma once

#include <map>
#include <string>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace tundra::coordinator {

// Thread-safe.
class RefusalLimit {
 public:
  static constexpr int kMostAMinute = 20;
  // Whether one more of the actor's is stored. `now` is of the monotonic clock.
  bool Allow(const std::string& actor, absl::Duration now);

 private:
  absl::Mutex mu_;
  absl::Duration window_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int> counts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra::coordinator
