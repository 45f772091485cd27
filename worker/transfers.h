// Blobs between this node and the coordinator: chunked, resumed after a break,
// checked by hash. Fetched blobs are kept in a folder, named by their hash, as
// long as there is room for them.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc.h"
#include "tundra/v1/worker.grpc.pb.h"

namespace tundra::worker {

// Thread-safe; calls block.
class Transfers {
 public:
  // `dir` is made if missing; what an earlier process left half-fetched goes.
  Transfers(std::string worker_id, std::string dir, std::shared_ptr<ChannelSource> channels);

  // Local path of the blob; fetches it when it is not here. Tries until it
  // succeeds, the blob does not exist, or Stop() is called; a broken stream goes
  // on where it broke.
  // Errors: kNotFound, kDataLoss, kResourceExhausted, kCancelled.
  absl::StatusOr<std::string> Fetch(const tundra::v1::BlobRef& blob);

  // Makes the coordinator hold the file's bytes. Tries as Fetch does.
  // Errors: kDataLoss when the file's bytes are not those of the hash.
  absl::Status Put(const std::string& path, const std::string& sha256, int64_t size_bytes);

  // Ends the calls in progress, and those to come, with kCancelled.
  void Stop();

  // Removes fetched blobs, least recently fetched first, until those that stay
  // take at most `max_bytes`. Never one of `in_use` (hashes).
  void Prune(int64_t max_bytes, const std::set<std::string>& in_use);

 private:
  class Call;
  struct Partial;

  std::string PathOf(const std::string& sha256) const { return dir_ + "/" + sha256; }
  absl::Status FetchMore(const tundra::v1::BlobRef& blob, Partial& partial);
  absl::Status PutOnce(const std::string& path, const std::string& sha256, int64_t size_bytes);
  absl::Status Retry(const std::string& what, const std::function<absl::Status()>& once);

  const std::string worker_id_;
  const std::string dir_;
  const std::shared_ptr<ChannelSource> channels_;
  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra::worker
