#include "worker/transfers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include "common/files.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/rpc.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra::worker {
namespace {

constexpr size_t kChunkBytes = 256 << 10;

// Whether another try may help.
bool Passing(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded ||
         status.code() == absl::StatusCode::kAborted;
}

}  // namespace

Transfers::Transfers(std::string worker_id, std::string dir, std::shared_ptr<grpc::ChannelInterface> channel,
                     std::function<bool()> stopped)
    : worker_id_(std::move(worker_id)),
      dir_(std::move(dir)),
      channel_(std::move(channel)),
      stopped_(std::move(stopped)) {}

absl::Status Transfers::Retry(const std::string& what, const std::function<absl::Status()>& once) {
  absl::Duration pause = absl::Milliseconds(100);
  while (true) {
    const absl::Status status = once();
    if (status.ok() || !Passing(status)) return status;
    if (stopped_()) return absl::CancelledError("the worker stops");
    LogInfo("{}: {}; again in {}", what, std::string(status.message()), absl::FormatDuration(pause));
    absl::SleepFor(pause);
    pause = std::min(2 * pause, absl::Seconds(5));
  }
}

absl::StatusOr<std::string> Transfers::Fetch(const tundra::v1::BlobRef& blob) {
  if (!IsSha256Hex(blob.sha256())) return absl::InvalidArgumentError("a blob without a hash");
  RETURN_IF_ERROR(MakeDirs(dir_));
  const std::string path = PathOf(blob.sha256());
  if (FileExists(path)) {
    // Bytes on a disk can rot; reading them all is cheap beside training on them.
    const auto hash = Sha256OfFile(path);
    if (hash.ok() && *hash == blob.sha256()) return path;
    LogWarning("{}: does not match its hash any more, fetched again", path);
    ::unlink(path.c_str());
  }
  RETURN_IF_ERROR(Retry(absl::StrCat("fetching ", blob.display_name(), " (", blob.sha256(), ")"),
                        [&] { return FetchOnce(blob); }));
  return path;
}

absl::Status Transfers::FetchOnce(const tundra::v1::BlobRef& blob) {
  // A name of its own: two fetches of one blob must not write one file.
  const std::string partial = PathOf(blob.sha256()) + "." + NewIdValue("part");
  Fd file(::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) return ErrnoStatus(errno, partial);
  const auto fetch = [&]() -> absl::Status {
    auto stub = tundra::v1::WorkerService::NewStub(channel_);
    grpc::ClientContext context;
    tundra::v1::FetchBlobRequest request;
    request.set_worker_id(worker_id_);
    request.set_sha256(blob.sha256());
    auto reader = stub->FetchBlob(&context, request);
    tundra::v1::FetchBlobResponse response;
    Sha256 hash;
    while (reader->Read(&response)) {
      hash.Update(response.chunk());
      const absl::Status written = WriteAll(file.get(), response.chunk(), partial);
      if (!written.ok()) {
        context.TryCancel();
        return written;
      }
    }
    RETURN_IF_ERROR(FromGrpc(reader->Finish()));
    if (hash.Finish() != blob.sha256()) {
      return absl::DataLossError(absl::StrCat("the fetched bytes of ", blob.sha256(), " (",
                                              blob.display_name(), ") do not match their hash"));
    }
    if (::fsync(file.get()) != 0) return ErrnoStatus(errno, partial);
    if (::rename(partial.c_str(), PathOf(blob.sha256()).c_str()) != 0) {
      return ErrnoStatus(errno, partial);
    }
    return absl::OkStatus();
  };
  const absl::Status status = fetch();
  if (!status.ok()) ::unlink(partial.c_str());
  return status;
}

absl::Status Transfers::Put(const std::string& path, const std::string& sha256,
                            int64_t size_bytes) {
  return Retry(absl::StrCat("sending ", path), [&] { return PutOnce(path, sha256, size_bytes); });
}

absl::Status Transfers::PutOnce(const std::string& path, const std::string& sha256,
                                int64_t size_bytes) {
  auto stub = tundra::v1::WorkerService::NewStub(channel_);
  tundra::v1::GetBlobUploadResponse upload;
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    tundra::v1::GetBlobUploadRequest request;
    request.set_worker_id(worker_id_);
    request.set_sha256(sha256);
    RETURN_IF_ERROR(FromGrpc(stub->GetBlobUpload(&context, request, &upload)));
  }
  if (upload.complete()) return absl::OkStatus();

  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, path);
  if (::lseek(file.get(), upload.received_bytes(), SEEK_SET) < 0) return ErrnoStatus(errno, path);
  grpc::ClientContext context;
  tundra::v1::PutBlobResponse response;
  auto writer = stub->PutBlob(&context, &response);
  tundra::v1::PutBlobRequest request;
  auto* header = request.mutable_header();
  header->set_worker_id(worker_id_);
  header->set_sha256(sha256);
  header->set_size_bytes(size_bytes);
  header->set_offset(upload.received_bytes());
  bool open = writer->Write(request);
  std::vector<char> buffer(kChunkBytes);
  while (open) {
    const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const absl::Status failed = ErrnoStatus(errno, path);
      context.TryCancel();
      writer->Finish().ok();
      return failed;
    }
    if (n == 0) break;
    request.set_chunk(buffer.data(), static_cast<size_t>(n));
    open = writer->Write(request);
  }
  writer->WritesDone();
  return FromGrpc(writer->Finish());
}

}  // namespace tundra::worker
