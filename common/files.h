// Files: whole reads, atomic writes, temporary folders, read-only mappings,
// descriptors as values. Every message names the path and the system's reason.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tundra {

// A file descriptor that is closed with its owner.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { Reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset();

 private:
  int fd_ = -1;
};

// A mapping of a whole file, read-only: a write through it ends in SIGSEGV.
class MappedFile {
 public:
  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept;
  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

  // Errors: kNotFound, kInternal.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// An absl::Status for errno, "WHAT: reason". ENOENT is kNotFound, ENOSPC and
// EDQUOT kResourceExhausted, EACCES kPermissionDenied, EEXIST kAlreadyExists,
// else kInternal.
absl::Status ErrnoStatus(int error, std::string_view what);

// The whole file. Errors: kNotFound, kResourceExhausted when over max_bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     uint64_t max_bytes = uint64_t{1} << 40);

// Writes a temporary file beside path, syncs it, renames it over path and syncs
// the folder: after a crash path holds the old bytes or the new, never a mix.
// Errors: kResourceExhausted when the disk is full; the old file is kept.
absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes);

// Appends all of bytes to fd, across short writes and EINTR.
absl::Status WriteAll(int fd, std::string_view bytes, std::string_view name);

// As `mkdir -p`, mode 0700 for what it makes.
absl::Status MakeDirs(const std::string& path);

// Flushes a folder's entries to disk.
absl::Status SyncDir(const std::string& path);

bool FileExists(const std::string& path);

// "$TUNDRA_HOME", else "$XDG_DATA_HOME/tundra", else "$HOME/.local/share/tundra".
std::string DefaultDataDir();

// A folder of its own under $TMPDIR, removed with its owner.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

}  // namespace tundra
