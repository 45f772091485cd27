// A collective among threads of one process, for tests: any size, no sockets,
// and faults that strike at an exact call of an exact rank.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/collective/collective.h"

namespace tundra {

// What happens to a rank at the start of one of its calls.
enum class LocalFault {
  kHang,   // it never arrives; its call returns at its timeout or when aborted
  kAbort,  // Abort() is called on it
  kDie,    // it is gone, as after SIGKILL: its peers get kUnavailable, and so does it
};

// The ranks of one group. Thread-safe; outlives nothing: bootstraps and
// collectives keep what they share.
class LocalGroup {
 public:
  explicit LocalGroup(int size);  // >= 1
  ~LocalGroup();

  // The bootstrap of a rank; each rank once.
  absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> Bootstrap(int rank);

  // fault strikes rank at its call number `call` (from 0, over both channels).
  void Inject(int rank, int64_t call, LocalFault fault);

  struct Shared;

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace tundra
