#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/files.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/blobs/blob_store.h"

namespace tundra::coordinator {
namespace {

namespace fs = std::filesystem;

// A file over the limit of the process or file system is a disk that is too
// small, to whoever uploads.
absl::Status DiskStatus(int error, const std::string& path) {
  if (error == EFBIG) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": larger than the file system allows"));
  }
  return ErrnoStatus(error, path);
}

absl::Status WriteFully(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return DiskStatus(errno, path);
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

// Who may write a partial file: the writer with the latest ticket.
struct UploadSlot {
  absl::Mutex mu;
  uint64_t ticket ABSL_GUARDED_BY(mu) = 0;
};

struct Paths {
  std::string partial;
  std::string folder;
  std::string blob;
};

class DirectoryWriter : public BlobWriter {
 public:
  DirectoryWriter(BlobId id, int64_t size, int64_t offset, Paths paths, Fd fd,
                  std::shared_ptr<UploadSlot> slot, uint64_t ticket, bool keep_partial)
      : id_(std::move(id)),
        size_(size),
        received_(offset),
        hashed_from_start_(offset == 0),
        paths_(std::move(paths)),
        fd_(std::move(fd)),
        slot_(std::move(slot)),
        ticket_(ticket),
        keep_partial_(keep_partial) {}

  ~DirectoryWriter() override {
    if (!keep_partial_ && !committed_) unlink(paths_.partial.c_str());
  }

  absl::Status Append(std::string_view bytes) override {
    absl::MutexLock lock(&slot_->mu);
    RETURN_IF_ERROR(CheckTicket());
    if (sealed_) return absl::InternalError("bytes came after the end");
    if (static_cast<int64_t>(bytes.size()) > size_ - received_) {
      return absl::InvalidArgumentError(absl::StrCat("blob ", id_.value, ": more than the ", size_,
                                                     " bytes that were announced"));
    }
    RETURN_IF_ERROR(WriteFully(fd_.get(), bytes, paths_.partial));
    if (hashed_from_start_) hash_.Update(bytes);
    received_ += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }

  absl::Status Seal() override {
    absl::MutexLock lock(&slot_->mu);
    return SealLocked();
  }

  absl::Status Commit() override {
    absl::MutexLock lock(&slot_->mu);
    if (committed_) return absl::OkStatus();
    RETURN_IF_ERROR(SealLocked());
    RETURN_IF_ERROR(MakeDirs(paths_.folder));
    if (rename(paths_.partial.c_str(), paths_.blob.c_str()) != 0) {
      return DiskStatus(errno, paths_.blob);
    }
    committed_ = true;
    return SyncDir(paths_.folder);
  }

 private:
  absl::Status SealLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(slot_->mu) {
    RETURN_IF_ERROR(CheckTicket());
    if (sealed_) return absl::OkStatus();
    if (received_ != size_) {
      return absl::DataLossError(
          absl::StrCat("blob ", id_.value, ": ", received_, " of ", size_, " bytes came"));
    }
    std::string hash;
    if (hashed_from_start_) {
      hash = hash_.Finish();
    } else {
      ASSIGN_OR_RETURN(hash, Sha256OfFile(paths_.partial));
    }
    if (hash != id_.value) {
      unlink(paths_.partial.c_str());
      return absl::DataLossError(absl::StrCat("the bytes hash to ", hash, ", not to ", id_.value,
                                              ": they were changed on the way; send them again"));
    }
    if (fsync(fd_.get()) != 0) return DiskStatus(errno, paths_.partial);
    sealed_ = true;
    return absl::OkStatus();
  }

  absl::Status CheckTicket() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(slot_->mu) {
    if (slot_->ticket == ticket_) return absl::OkStatus();
    return absl::AbortedError(absl::StrCat("blob ", id_.value, ": a newer upload of it took over"));
  }

  const BlobId id_;
  const int64_t size_;
  int64_t received_;
  const bool hashed_from_start_;
  const Paths paths_;
  Fd fd_;
  Sha256 hash_;
  const std::shared_ptr<UploadSlot> slot_;
  const uint64_t ticket_;
  const bool keep_partial_;
  bool sealed_ = false;
  bool committed_ = false;
};

class DirectoryBlobStore : public BlobStore {
 public:
  explicit DirectoryBlobStore(const std::string& dir)
      : blobs_(dir + "/blobs"), partial_(dir + "/partial") {}

  absl::Status Open() {
    RETURN_IF_ERROR(MakeDirs(blobs_));
    RETURN_IF_ERROR(MakeDirs(partial_));
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Size(const BlobId& id) override {
    RETURN_IF_ERROR(CheckId(id));
    struct stat st {};
    if (stat(BlobPath(id).c_str(), &st) != 0) {
      if (errno == ENOENT) return absl::NotFoundError(absl::StrCat("there is no blob ", id.value));
      return ErrnoStatus(errno, BlobPath(id));
    }
    return static_cast<int64_t>(st.st_size);
  }

  absl::StatusOr<int64_t> ReceivedBytes(const std::string& uploader, const BlobId& id) override {
    RETURN_IF_ERROR(CheckId(id));
    struct stat st {};
    if (stat(PartialPath(uploader, id).c_str(), &st) != 0) return 0;
    return static_cast<int64_t>(st.st_size);
  }

  absl::StatusOr<std::unique_ptr<BlobWriter>> Resume(const std::string& uploader, const BlobId& id,
                                                     int64_t size_bytes, int64_t offset) override {
    RETURN_IF_ERROR(CheckHeader(id, size_bytes));
    const std::string path = PartialPath(uploader, id);
    const std::shared_ptr<UploadSlot> slot = Slot(path);
    absl::MutexLock lock(&slot->mu);
    ASSIGN_OR_RETURN(const int64_t received, ReceivedBytes(uploader, id));
    if (offset < 0 || offset > received || offset > size_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("blob ", id.value, ": offset ", offset,
                                                     " is not within the ", received,
                                                     " bytes that are here"));
    }
    Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (!fd.valid()) return ErrnoStatus(errno, path);
    if (ftruncate(fd.get(), offset) != 0 || lseek(fd.get(), offset, SEEK_SET) < 0) {
      return DiskStatus(errno, path);
    }
    return std::make_unique<DirectoryWriter>(id, size_bytes, offset, PathsOf(id, path),
                                             std::move(fd), slot, ++slot->ticket,
                                             /*keep_partial=*/true);
  }

  absl::StatusOr<std::unique_ptr<BlobWriter>> Create(const BlobId& id,
                                                     int64_t size_bytes) override {
    RETURN_IF_ERROR(CheckHeader(id, size_bytes));
    const std::string path = absl::StrCat(partial_, "/", NewIdValue("upload"));
    Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd.valid()) return ErrnoStatus(errno, path);
    return std::make_unique<DirectoryWriter>(id, size_bytes, 0, PathsOf(id, path), std::move(fd),
                                             std::make_shared<UploadSlot>(), 0,
                                             /*keep_partial=*/false);
  }

  absl::StatusOr<std::string> Read(const BlobId& id, int64_t offset, int64_t max_bytes) override {
    ASSIGN_OR_RETURN(const int64_t size, Size(id));
    if (offset < 0 || offset > size) {
      return absl::OutOfRangeError(
          absl::StrCat("blob ", id.value, " has ", size, " bytes: there is no offset ", offset));
    }
    const std::string path = BlobPath(id);
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return ErrnoStatus(errno, path);
    std::string bytes(static_cast<size_t>(std::min(max_bytes, size - offset)), '\0');
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = pread(fd.get(), bytes.data() + done, bytes.size() - done,
                              offset + static_cast<int64_t>(done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoStatus(errno, path);
      if (n == 0) return absl::DataLossError(absl::StrCat(path, " became shorter"));
      done += static_cast<size_t>(n);
    }
    return bytes;
  }

  absl::StatusOr<MappedFile> Map(const BlobId& id) override {
    RETURN_IF_ERROR(Size(id).status());
    return MappedFile::Open(BlobPath(id));
  }

  absl::Status Remove(const BlobId& id) override {
    RETURN_IF_ERROR(CheckId(id));
    if (unlink(BlobPath(id).c_str()) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, BlobPath(id));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<BlobId>> ListBefore(absl::Time before) override {
    std::vector<BlobId> ids;
    std::error_code error;
    for (fs::recursive_directory_iterator it(blobs_, error), end; !error && it != end;
         it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (IsSha256Hex(name) && WrittenBefore(it->path().string(), before)) ids.push_back({name});
    }
    if (error) return absl::InternalError(absl::StrCat(blobs_, ": ", error.message()));
    return ids;
  }

  absl::Status RemovePartialsBefore(absl::Time before) override {
    std::error_code error;
    for (fs::directory_iterator it(partial_, error), end; !error && it != end;
         it.increment(error)) {
      const std::string path = it->path().string();
      if (WrittenBefore(path, before)) unlink(path.c_str());
    }
    if (error) return absl::InternalError(absl::StrCat(partial_, ": ", error.message()));
    return absl::OkStatus();
  }

 private:
  // Ids come from requests and become file names: nothing but hex may pass.
  static absl::Status CheckId(const BlobId& id) {
    if (IsSha256Hex(id.value)) return absl::OkStatus();
    return absl::InvalidArgumentError("a blob is named by 64 lower-case hex characters");
  }

  static absl::Status CheckHeader(const BlobId& id, int64_t size_bytes) {
    RETURN_IF_ERROR(CheckId(id));
    if (size_bytes >= 0 && size_bytes <= kMaxBlobBytes) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("blob ", id.value, ": a size of ", size_bytes, " bytes is out of range"));
  }

  static bool WrittenBefore(const std::string& path, absl::Time before) {
    struct stat st {};
    return stat(path.c_str(), &st) == 0 && absl::TimeFromTimespec(st.st_mtim) < before;
  }

  std::string Folder(const BlobId& id) const { return blobs_ + "/" + id.value.substr(0, 2); }
  std::string BlobPath(const BlobId& id) const { return Folder(id) + "/" + id.value; }
  std::string PartialPath(const std::string& uploader, const BlobId& id) const {
    return absl::StrCat(partial_, "/", Sha256Hex(uploader).substr(0, 32), "-", id.value);
  }
  Paths PathsOf(const BlobId& id, const std::string& partial) const {
    return {.partial = partial, .folder = Folder(id), .blob = BlobPath(id)};
  }

  std::shared_ptr<UploadSlot> Slot(const std::string& partial) {
    absl::MutexLock lock(&mu_);
    std::weak_ptr<UploadSlot>& weak = slots_[partial];
    std::shared_ptr<UploadSlot> slot = weak.lock();
    if (slot == nullptr) {
      std::erase_if(slots_, [](const auto& entry) { return entry.second.expired(); });
      slot = std::make_shared<UploadSlot>();
      slots_[partial] = slot;
    }
    return slot;
  }

  const std::string blobs_;
  const std::string partial_;
  absl::Mutex mu_;
  // By partial file.
  std::map<std::string, std::weak_ptr<UploadSlot>> slots_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlobStore>> OpenDirectoryBlobStore(const std::string& dir) {
  auto store = std::make_unique<DirectoryBlobStore>(dir);
  RETURN_IF_ERROR(store->Open());
  return store;
}

}  // namespace tundra::coordinator
