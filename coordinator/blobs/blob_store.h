// Bytes named by their SHA-256: data sets, checkpoints, adapters, the text files
// of bases. A blob is whole or it is not there: bytes arrive in a partial file,
// are hashed, synced and only then renamed into place.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/files.h"
#include "common/ids.h"

namespace tundra::coordinator {

// One upload under way. Not thread-safe.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  // Errors: kResourceExhausted when the disk is full; kInvalidArgument when more
  // bytes come than were announced; kAborted when a newer upload of the same
  // blob took over.
  virtual absl::Status Append(std::string_view bytes) = 0;
  // All bytes have come: checks size and hash, and writes them through to the disk. Errors:
  // kDataLoss, after which the partial file is gone; also those of Append.
  virtual absl::Status Seal() = 0;
  // Makes the blob be there, durably; seals it first where that is yet to be done. Quick after
  // Seal: it may be called in a transaction, so that what is refused there never becomes a blob.
  // May be called again. Errors: those of Seal.
  virtual absl::Status Commit() = 0;
};

// Thread-safe. All calls may block on the disk.
class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // Bytes of a whole blob. Errors: kNotFound.
  virtual absl::StatusOr<int64_t> Size(const BlobId& id) = 0;
  // Bytes of an uploader's resumable upload that are already here; 0 when there is none. Others'
  // are not seen: they may hold what the uploader never had.
  virtual absl::StatusOr<int64_t> ReceivedBytes(const std::string& uploader, const BlobId& id) = 0;

  // Goes on with the uploader's resumable upload of a blob at offset, 0 to ReceivedBytes;
  // bytes after it are dropped. Destroying the writer keeps what came.
  // The uploader's older writer of the same blob ends with kAborted.
  // Errors: kInvalidArgument for a malformed id, size or offset.
  virtual absl::StatusOr<std::unique_ptr<BlobWriter>> Resume(const std::string& uploader,
                                                             const BlobId& id, int64_t size_bytes,
                                                             int64_t offset) = 0;
  // A new upload of its own; destroying the writer before Commit keeps nothing.
  virtual absl::StatusOr<std::unique_ptr<BlobWriter>> Create(const BlobId& id,
                                                             int64_t size_bytes) = 0;

  // At most max_bytes from offset on; empty at the end. Errors: kNotFound,
  // kOutOfRange for an offset past the end.
  virtual absl::StatusOr<std::string> Read(const BlobId& id, int64_t offset, int64_t max_bytes) = 0;
  // The whole blob, mapped. Errors: kNotFound.
  virtual absl::StatusOr<MappedFile> Map(const BlobId& id) = 0;

  // OK also when it is not there.
  virtual absl::Status Remove(const BlobId& id) = 0;
  // Whole blobs last written before a time.
  virtual absl::StatusOr<std::vector<BlobId>> ListBefore(absl::Time before) = 0;
  // Drops partial files last written before a time.
  virtual absl::Status RemovePartialsBefore(absl::Time before) = 0;
};

// Blobs in DIR/blobs/ab/abcd…, partial files in DIR/partial. Makes the folders.
// Errors: kPermissionDenied, kInternal.
absl::StatusOr<std::unique_ptr<BlobStore>> OpenDirectoryBlobStore(const std::string& dir);

// Largest blob, in bytes (1 TiB): bounds what a header may announce.
inline constexpr int64_t kMaxBlobBytes = int64_t{1} << 40;

}  // namespace tundra::coordinator
