// What tenants use of what they may.
#pragma once

#include <map>

#include "absl/status/statusor.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

// Devices that each tenant's jobs hold. Errors: those of the store.
absl::StatusOr<std::map<TenantId, int32_t>> DevicesHeld(ReadTxn& txn);

}  // namespace tundra::coordinator
