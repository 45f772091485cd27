// TUNDRA_CHECK: a broken invariant of our own code ends the process with the
// place and the reason. Never for bad input, which is an absl::Status.
#pragma once

#include <sstream>

namespace tundra::internal {

// Prints "file:line: check failed: text: more" on destruction and aborts.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* text);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

struct CheckVoidify {
  void operator&(std::ostream&) {}
};

}  // namespace tundra::internal

#define TUNDRA_CHECK(condition)                           \
  (condition) ? (void)0                                   \
              : ::tundra::internal::CheckVoidify() &      \
                    ::tundra::internal::CheckFailure(__FILE__, __LINE__, #condition).stream()
