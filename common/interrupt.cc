#include "common/interrupt.h"

#include <utility>

namespace tundra {
namespace {

// Every how many calls the predicate is asked, which may lock a mutex.
constexpr uint32_t kAskEvery = 16;

thread_local InterruptScope* innermost = nullptr;

}  // namespace

InterruptScope::InterruptScope(std::function<bool()> unwanted)
    : unwanted_(std::move(unwanted)), outer_(innermost) {
  innermost = this;
}

InterruptScope::~InterruptScope() { innermost = outer_; }

bool Interrupted() {
  InterruptScope* const scope = innermost;
  if (scope == nullptr) return false;
  if (!scope->interrupted_ && scope->calls_++ % kAskEvery == 0) {
    scope->interrupted_ = scope->unwanted_();
  }
  return scope->interrupted_;
}

absl::Status InterruptedError() {
  return absl::CancelledError("given up: nobody waits for the result any more");
}

}  // namespace tundra
