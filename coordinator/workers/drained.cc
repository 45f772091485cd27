#include "coordinator/workers/drained.h"

#include "common/status.h"

namespace tundra::coordinator {

absl::Status LoadDrained(Store& store, Fleet& fleet) {
  // Held over the read and what follows from it.
  static absl::Mutex* const mu = new absl::Mutex;
  absl::MutexLock lock(mu);
  std::set<WorkerId> drained;
  RETURN_IF_ERROR(store.Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<WorkerRecord> workers, txn.ListWorkers());
    for (const WorkerRecord& worker : workers) {
      if (worker.drained) drained.insert(worker.id);
    }
    return absl::OkStatus();
  }));
  fleet.SetDrained(std::move(drained));
  return absl::OkStatus();
}

}  // namespace tundra::coordinator
