#include "worker/model/resident_shard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra {
namespace {

absl::Status MemoryError(int error, const std::string& what) {
  if (error == ENOMEM || error == EAGAIN) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": not enough memory; use more shards or a smaller base"));
  }
  return ErrnoStatus(error, what);
}

absl::Status CheckSize(int fd, uint64_t bytes) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return ErrnoStatus(errno, "memory of a shard");
  if (static_cast<uint64_t>(info.st_size) != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the memory of a shard has ", info.st_size, " bytes, but the plan's have ",
                     bytes, "; the ranks do not hold the same base"));
  }
  return absl::OkStatus();
}

// Takes every seal that the system knows. True when all were taken.
bool Seal(int fd) {
  bool all = true;
  for (const int seal : {F_SEAL_FUTURE_WRITE, F_SEAL_WRITE, F_SEAL_SHRINK | F_SEAL_GROW}) {
    all = ::fcntl(fd, F_ADD_SEALS, seal) == 0 && all;
  }
  return all;
}

}  // namespace

absl::StatusOr<ResidentShard> ResidentShard::Load(const ShardPlan& plan, const BaseFiles& base,
                                                  int shard) {
  ResidentShard resident;
  resident.bytes_ = plan.shard_bytes();
  const std::string what = absl::StrCat("memory of ", resident.bytes_, " bytes for shard ", shard,
                                        " of ", plan.shards(), " of ", base.dir());
  resident.fd_ = Fd(::memfd_create("tundra-shard", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!resident.fd_.valid()) return MemoryError(errno, what);
  // Taken now, so that a lack of memory is an error here and not a SIGBUS later.
  const int taken = ::posix_fallocate(resident.fd(), 0, static_cast<off_t>(resident.bytes_));
  if (taken != 0) return MemoryError(taken == ENOSPC ? ENOMEM : taken, what);
  void* memory = ::mmap(nullptr, resident.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED,
                        resident.fd(), 0);
  if (memory == MAP_FAILED) return MemoryError(errno, what);
  const absl::Status loaded =
      LoadShard(plan, base, shard, {static_cast<std::byte*>(memory), resident.bytes_});
  ::munmap(memory, resident.bytes_);
  RETURN_IF_ERROR(loaded);
  resident.sealed_ = Seal(resident.fd());
  if (!resident.sealed_) {
    LogWarning("{}: this kernel seals memory only in part; it is still mapped read-only", what);
  }
  return resident;
}

absl::StatusOr<std::string> ResidentShard::Hash() const {
  ASSIGN_OR_RETURN(const MappedShard mapped, MappedShard::Map(fd(), bytes_));
  return Sha256Hex({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()});
}

MappedShard::~MappedShard() {
  if (start_ != nullptr) ::munmap(start_, bytes_);
}

MappedShard::MappedShard(MappedShard&& other) noexcept { *this = std::move(other); }

MappedShard& MappedShard::operator=(MappedShard&& other) noexcept {
  std::swap(start_, other.start_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

absl::StatusOr<MappedShard> MappedShard::Map(int fd, uint64_t bytes) {
  RETURN_IF_ERROR(CheckSize(fd, bytes));
  void* memory = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  if (memory == MAP_FAILED) return MemoryError(errno, "mapping a shard");
  MappedShard mapped;
  mapped.start_ = static_cast<std::byte*>(memory);
  mapped.bytes_ = bytes;
  return mapped;
}

MappedBase::~MappedBase() {
  if (start_ != nullptr) ::munmap(start_, bytes_);
}

MappedBase::MappedBase(MappedBase&& other) noexcept { *this = std::move(other); }

MappedBase& MappedBase::operator=(MappedBase&& other) noexcept {
  std::swap(start_, other.start_);
  std::swap(bytes_, other.bytes_);
  std::swap(shards_, other.shards_);
  return *this;
}

absl::StatusOr<MappedBase> MappedBase::Map(const ShardPlan& plan, std::span<const int> fds) {
  TUNDRA_CHECK(static_cast<int>(fds.size()) == plan.shards());
  for (const int fd : fds) RETURN_IF_ERROR(CheckSize(fd, plan.shard_bytes()));
  MappedBase mapped;
  mapped.shards_ = plan.shards();
  const uint64_t total = plan.shard_bytes() * fds.size();
  void* region = ::mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) return MemoryError(errno, "address space for the base");
  mapped.start_ = static_cast<std::byte*>(region);
  mapped.bytes_ = total;
  for (const Unit& unit : plan.units()) {
    for (size_t s = 0; s < fds.size(); ++s) {
      std::byte* at = mapped.start_ + unit.offset_in_shard * fds.size() + s * unit.slice_bytes;
      // Private and never written: the pages are the memory file's own.
      void* piece = ::mmap(at, unit.slice_bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fds[s],
                           static_cast<off_t>(unit.offset_in_shard));
      if (piece == MAP_FAILED) return MemoryError(errno, absl::StrCat("mapping shard ", s));
    }
  }
  return mapped;
}

}  // namespace tundra
