// The set of drained workers, from the store to the fleet.
#pragma once

#include "absl/status/status.h"
#include "coordinator/store/store.h"
#include "coordinator/workers/fleet.h"

namespace tundra::coordinator {

// Tells the fleet which workers are drained: at the start, and after each change of the store.
// The newest state wins, however calls cross. Errors: those of the store.
absl::Status LoadDrained(Store& store, Fleet& fleet);

}  // namespace tundra::coordinator
