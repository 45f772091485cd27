// What ties blobs to the store: recording one once its bytes are durable, and
// collecting those that nothing refers to any more.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

// Notes that the blob is here and in use from now on, which starts its grace
// period anew. Errors: kNotFound when its bytes are not there (any more).
absl::Status RecordBlob(Txn& txn, BlobStore& blobs, const BlobId& id, absl::Time now);

// Removes blobs that were referred to and are so no longer; returns how many.
absl::StatusOr<int> CollectDropped(Store& store, BlobStore& blobs);

// Removes uploads and request ids older than a day, and blobs (whole or partial)
// that nothing refers to and nobody touched for `grace`. Returns how many blobs.
absl::StatusOr<int> CollectGarbage(Store& store, BlobStore& blobs, absl::Time now,
                                   absl::Duration grace);

}  // namespace tundra::coordinator
