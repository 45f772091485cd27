// Request ids: the same id with the same request answers with what was made the
// first time.
#pragma once

#include <google/protobuf/message_lite.h>

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

// SHA-256 of the message, the same for equal messages.
std::string HashRequest(const google::protobuf::MessageLite& request);

// What a method's request ids stand under in the store: they are each tenant's own.
std::string RequestKey(const TenantId& tenant, std::string_view method);

// The resource made under the id in the last 24 hours, "" when there is none.
// Errors: kAlreadyExists when it was used for another request.
absl::StatusOr<std::string> FindRequest(ReadTxn& txn, const std::string& key,
                                        const std::string& request_id, const std::string& hash,
                                        absl::Time now);

}  // namespace tundra::coordinator
