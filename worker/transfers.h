// Blobs between this node and the coordinator: chunked, resumed after a break,
// checked by hash. Fetched blobs are kept in a folder, named by their hash.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tundra/v1/worker.grpc.pb.h"

namespace tundra::worker {

// Thread-safe; calls block.
class Transfers {
 public:
  // `dir` is made if missing. `stopped` is asked between tries.
  Transfers(std::string worker_id, std::string dir, std::shared_ptr<grpc::ChannelInterface> channel,
            std::function<bool()> stopped);

  // Local path of the blob; fetches it when it is not here. Tries until it
  // succeeds, the blob does not exist, or the worker stops.
  // Errors: kNotFound, kDataLoss, kResourceExhausted, kCancelled.
  absl::StatusOr<std::string> Fetch(const tundra::v1::BlobRef& blob);

  // Makes the coordinator hold the file's bytes. Tries as Fetch does.
  // Errors: kDataLoss when the file's bytes are not those of the hash.
  absl::Status Put(const std::string& path, const std::string& sha256, int64_t size_bytes);

 private:
  std::string PathOf(const std::string& sha256) const { return dir_ + "/" + sha256; }
  absl::Status FetchOnce(const tundra::v1::BlobRef& blob);
  absl::Status PutOnce(const std::string& path, const std::string& sha256, int64_t size_bytes);
  absl::Status Retry(const std::string& what, const std::function<absl::Status()>& once);

  const std::string worker_id_;
  const std::string dir_;
  const std::shared_ptr<grpc::ChannelInterface> channel_;
  const std::function<bool()> stopped_;
};

}  // namespace tundra::worker
