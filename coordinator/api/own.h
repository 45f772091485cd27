// Looks up what belongs to tenants. What is another tenant's is kNotFound, in the
// same words as what does not exist.
#pragma once

#include "absl/status/statusor.h"
#include "coordinator/access/caller.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

absl::StatusOr<JobRecord> GetOwnJob(ReadTxn& txn, const Caller& caller, const JobId& id);
absl::StatusOr<DatasetRecord> GetOwnDataset(ReadTxn& txn, const Caller& caller,
                                            const DatasetId& id);
absl::StatusOr<UploadRecord> GetOwnUpload(ReadTxn& txn, const Caller& caller,
                                          const std::string& id);

}  // namespace tundra::coordinator
