#include "worker/transfers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
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

// Whether another try may help. kCancelled comes from a coordinator that shuts
// down as well as from Stop(), which Retry tells apart.
bool Passing(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded ||
         status.code() == absl::StatusCode::kAborted ||
         status.code() == absl::StatusCode::kCancelled;
}

}  // namespace

// A call that Stop() can end.
class Transfers::Call {
 public:
  explicit Call(Transfers* transfers) : transfers_(transfers) {
    absl::MutexLock lock(&transfers_->mu_);
    transfers_->calls_.insert(&context_);
    // Also ends a call that is made later.
    if (transfers_->stopped_) context_.TryCancel();
  }
  ~Call() {
    absl::MutexLock lock(&transfers_->mu_);
    transfers_->calls_.erase(&context_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  grpc::ClientContext* context() { return &context_; }

 private:
  Transfers* const transfers_;
  grpc::ClientContext context_;
};

// A blob on its way: a file of its own, since two fetches of one blob must not
// write one file, and the hash of what it holds.
struct Transfers::Partial {
  std::string path;
  Fd file;
  Sha256 hash;
  int64_t size = 0;
  // Its bytes come from more than one stream.
  bool resumed = false;

  absl::Status Restart() {
    if (::ftruncate(file.get(), 0) != 0 || ::lseek(file.get(), 0, SEEK_SET) < 0) {
      return ErrnoStatus(errno, path);
    }
    hash = Sha256();
    size = 0;
    resumed = false;
    return absl::OkStatus();
  }
};

Transfers::Transfers(std::string worker_id, std::string dir,
                     std::shared_ptr<ChannelSource> channels)
    : worker_id_(std::move(worker_id)), dir_(std::move(dir)), channels_(std::move(channels)) {
  std::error_code error;
  std::vector<std::filesystem::path> left;
  std::filesystem::directory_iterator entry(dir_, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension().string().starts_with(".part-")) left.push_back(entry->path());
  }
  for (const auto& path : left) std::filesystem::remove(path, error);
}

void Transfers::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  for (grpc::ClientContext* context : calls_) context->TryCancel();
}

absl::Status Transfers::Retry(const std::string& what, const std::function<absl::Status()>& once) {
  absl::Duration pause = absl::Milliseconds(100);
  while (true) {
    const absl::Status status = once();
    if (status.ok() || !Passing(status)) return status;
    LogInfo("{}: {}; again in {}", what, std::string(status.message()),
            absl::FormatDuration(pause));
    absl::MutexLock lock(&mu_);
    if (mu_.AwaitWithTimeout(absl::Condition(&stopped_), pause)) {
      return absl::CancelledError("the worker stops");
    }
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
    if (hash.ok() && *hash == blob.sha256()) {
      // Prune() goes by this time.
      ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
      return path;
    }
    LogWarning("{}: does not match its hash any more, fetched again", path);
    ::unlink(path.c_str());
  }
  Partial partial;
  partial.path = path + "." + NewIdValue("part");
  partial.file = Fd(::open(partial.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!partial.file.valid()) return ErrnoStatus(errno, partial.path);
  absl::Status status =
      Retry(absl::StrCat("fetching ", blob.display_name(), " (", blob.sha256(), ")"),
            [&] { return FetchMore(blob, partial); });
  if (status.ok() && ::fsync(partial.file.get()) != 0) status = ErrnoStatus(errno, partial.path);
  if (status.ok() && ::rename(partial.path.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, partial.path);
  }
  if (!status.ok()) {
    ::unlink(partial.path.c_str());
    return status;
  }
  return path;
}

absl::Status Transfers::FetchMore(const tundra::v1::BlobRef& blob, Partial& partial) {
  auto stub = tundra::v1::WorkerService::NewStub(channels_->Get());
  Call call(this);
  tundra::v1::FetchBlobRequest request;
  request.set_worker_id(worker_id_);
  request.set_sha256(blob.sha256());
  request.set_offset(partial.size);
  partial.resumed |= partial.size > 0;
  auto reader = stub->FetchBlob(call.context(), request);
  tundra::v1::FetchBlobResponse response;
  absl::Status local;
  while (local.ok() && reader->Read(&response)) {
    const auto bytes = static_cast<int64_t>(response.chunk().size());
    if (blob.size_bytes() > 0 && partial.size + bytes > blob.size_bytes()) {
      local = absl::DataLossError(absl::StrCat("more than the ", blob.size_bytes(), " bytes of ",
                                               blob.sha256(), " (", blob.display_name(), ") came"));
      break;
    }
    local = WriteAll(partial.file.get(), response.chunk(), partial.path);
    partial.hash.Update(response.chunk());
    partial.size += bytes;
  }
  if (!local.ok()) call.context()->TryCancel();
  const absl::Status finished = FromGrpc(reader->Finish());
  RETURN_IF_ERROR(local);
  RETURN_IF_ERROR(finished);
  if (partial.hash.Finish() == blob.sha256()) return absl::OkStatus();
  const bool resumed = partial.resumed;
  RETURN_IF_ERROR(partial.Restart());
  const std::string fault = absl::StrCat("the fetched bytes of ", blob.sha256(), " (",
                                         blob.display_name(), ") do not match their hash");
  // Pieces of different streams may not fit together; one whole stream must.
  return resumed ? absl::AbortedError(fault) : absl::DataLossError(fault);
}

absl::Status Transfers::Put(const std::string& path, const std::string& sha256,
                            int64_t size_bytes) {
  return Retry(absl::StrCat("sending ", path), [&] { return PutOnce(path, sha256, size_bytes); });
}

absl::Status Transfers::PutOnce(const std::string& path, const std::string& sha256,
                                int64_t size_bytes) {
  auto stub = tundra::v1::WorkerService::NewStub(channels_->Get());
  tundra::v1::GetBlobUploadResponse upload;
  {
    Call call(this);
    call.context()->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    tundra::v1::GetBlobUploadRequest request;
    request.set_worker_id(worker_id_);
    request.set_sha256(sha256);
    RETURN_IF_ERROR(FromGrpc(stub->GetBlobUpload(call.context(), request, &upload)));
  }
  if (upload.complete()) return absl::OkStatus();

  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, path);
  if (::lseek(file.get(), upload.received_bytes(), SEEK_SET) < 0) return ErrnoStatus(errno, path);
  Call call(this);
  tundra::v1::PutBlobResponse response;
  auto writer = stub->PutBlob(call.context(), &response);
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
      call.context()->TryCancel();
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

void Transfers::Prune(int64_t max_bytes, const std::set<std::string>& in_use) {
  namespace fs = std::filesystem;
  struct Entry {
    fs::file_time_type used;
    int64_t bytes = 0;
    fs::path path;
  };
  std::vector<Entry> entries;
  int64_t total = 0;
  std::error_code error;
  fs::directory_iterator it(dir_, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!IsSha256Hex(name)) continue;  // On its way.
    std::error_code gone;
    Entry entry{it->last_write_time(gone), static_cast<int64_t>(it->file_size(gone)), it->path()};
    if (gone) continue;
    total += entry.bytes;
    if (!in_use.contains(name)) entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= max_bytes) return;
    if (!fs::remove(entry.path, error)) continue;
    total -= entry.bytes;
    LogInfo("{}: removed to make room", entry.path.string());
  }
}

}  // namespace tundra::worker
