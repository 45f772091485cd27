#include "coordinator/blobs/garbage.h"

#include "common/status.h"

namespace tundra::coordinator {
namespace {

constexpr int kBlobsPerWrite = 100;
constexpr absl::Duration kDay = absl::Hours(24);

// Rows and files go in one write: the store runs one write at a time, so that no
// upload of the same blob is recorded in between.
absl::StatusOr<int> CollectSome(Store& store, BlobStore& blobs, absl::Time before) {
  int removed = 0;
  RETURN_IF_ERROR(store.Write([&](Txn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<BlobId> ids, txn.UnreferencedBlobs(before, kBlobsPerWrite));
    for (const BlobId& id : ids) {
      RETURN_IF_ERROR(txn.DeleteBlob(id));
      RETURN_IF_ERROR(blobs.Remove(id));
      ++removed;
    }
    return absl::OkStatus();
  }));
  return removed;
}

// Whole files without a row: their upload ended before it could be recorded.
absl::Status CollectStrays(Store& store, BlobStore& blobs, absl::Time before, int& removed) {
  ASSIGN_OR_RETURN(const std::vector<BlobId> ids, blobs.ListBefore(before));
  std::vector<BlobId> strays;
  RETURN_IF_ERROR(store.Read([&](ReadTxn& txn) -> absl::Status {
    for (const BlobId& id : ids) {
      const absl::Status found = txn.GetBlob(id).status();
      if (absl::IsNotFound(found)) {
        strays.push_back(id);
      } else {
        RETURN_IF_ERROR(found);
      }
    }
    return absl::OkStatus();
  }));
  for (const BlobId& id : strays) {
    RETURN_IF_ERROR(store.Write([&](Txn& txn) -> absl::Status {
      const absl::Status found = txn.GetBlob(id).status();
      if (!absl::IsNotFound(found)) return found;
      ++removed;
      return blobs.Remove(id);
    }));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RecordBlob(Txn& txn, BlobStore& blobs, const BlobId& id, absl::Time now) {
  ASSIGN_OR_RETURN(const int64_t size, blobs.Size(id));
  return txn.PutBlob({id, size, now});
}

absl::StatusOr<int> CollectDropped(Store& store, BlobStore& blobs) {
  // DropRefs marks them so.
  const absl::Time dropped = absl::UnixEpoch() + absl::Microseconds(1);
  int removed = 0;
  for (;;) {
    ASSIGN_OR_RETURN(const int some, CollectSome(store, blobs, dropped));
    removed += some;
    if (some < kBlobsPerWrite) return removed;
  }
}

absl::StatusOr<int> CollectGarbage(Store& store, BlobStore& blobs, absl::Time now,
                                   absl::Duration grace) {
  RETURN_IF_ERROR(store.Write([&](Txn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<std::string> uploads, txn.UploadsBefore(now - kDay));
    for (const std::string& id : uploads) RETURN_IF_ERROR(txn.DeleteUpload(id));
    return txn.DeleteRequestsBefore(now - kDay);
  }));
  int removed = 0;
  for (;;) {
    ASSIGN_OR_RETURN(const int some, CollectSome(store, blobs, now - grace));
    removed += some;
    if (some < kBlobsPerWrite) break;
  }
  RETURN_IF_ERROR(CollectStrays(store, blobs, now - grace, removed));
  RETURN_IF_ERROR(blobs.RemovePartialsBefore(now - grace));
  return removed;
}

}  // namespace tundra::coordinator
