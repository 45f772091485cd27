// Giving up long work: whoever starts it on a thread says when it is no longer
// wanted (the caller went away, the process stops), and the loops deep inside ask.
// The thread is the link, so that what lies between need not pass anything on.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace tundra {

// While it lives, Interrupted() on this thread asks `unwanted`. Scopes nest; the
// innermost is asked.
class InterruptScope {
 public:
  explicit InterruptScope(std::function<bool()> unwanted);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  friend bool Interrupted();
  const std::function<bool()> unwanted_;
  InterruptScope* const outer_;
  uint32_t calls_ = 0;
  bool interrupted_ = false;
};

// Whether this thread's work is no longer wanted; false outside any scope. Cheap: most
// calls only count, and once true it stays so.
bool Interrupted();

// What such work returns: kCancelled.
absl::Status InterruptedError();

}  // namespace tundra
