// The record of every call that changed something, written in the transaction
// that made the change, and of those known callers' calls that were refused.
#pragma once

#include <google/protobuf/message.h>

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/access/caller.h"
#include "coordinator/api/context.h"

namespace tundra::coordinator {

// Runs fn in a transaction that also records the call, on the resource that fn returns the name
// of. Errors: those of fn and of the store.
absl::Status WriteAudited(const Context& context, const Caller& caller,
                          const std::function<absl::StatusOr<std::string>(Txn&)>& fn);

// Records, soon, that the call was refused, if its method changes something and the caller is
// known. Calls of unknown callers are counted and logged only: they would fill the disk.
// Returns at once.
void RecordRefusal(const Context& context, const Caller& caller,
                   const google::protobuf::Message& request, const absl::Status& status);
// As above, for a stream, whose request is not at hand.
void RecordRefusal(const Context& context, const Caller& caller, const std::string& resource,
                   const absl::Status& status);

}  // namespace tundra::coordinator
