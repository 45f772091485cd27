// The quota of bytes that a tenant uploads: data sets and adapters, those that are
// under way included, so that several at a time pass no quota together, and what
// lies on the disk stays below it.
#pragma once

#include <map>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/ids.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

// Room for uploads under way. Thread-safe; outlives what it lends.
class UploadRoom {
 public:
  // Room for one upload; given back when it goes, which is after its bytes are in the store, or
  // removed.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept { *this = std::move(other); }
    Share& operator=(Share&& other) noexcept {
      std::swap(room_, other.room_);
      std::swap(tenant_, other.tenant_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Share() {
      if (room_ != nullptr) room_->GiveBack(tenant_, bytes_);
    }

   private:
    friend class UploadRoom;
    Share(UploadRoom* room, TenantId tenant, int64_t bytes)
        : room_(room), tenant_(std::move(tenant)), bytes_(bytes) {}
    UploadRoom* room_ = nullptr;
    TenantId tenant_;
    int64_t bytes_ = 0;
  };

  // Before any of `bytes` (0 or more) comes. Errors: kResourceExhausted when they would pass the
  // tenant's quota, with all that it has and uploads; those of the store.
  absl::StatusOr<Share> Take(Store& store, const TenantId& tenant, int64_t bytes);

 private:
  void GiveBack(const TenantId& tenant, int64_t bytes);

  absl::Mutex mu_;
  std::map<TenantId, int64_t> under_way_ ABSL_GUARDED_BY(mu_);
};

// In the transaction that records `more` bytes: the quota may have become smaller since they
// were begun. Errors: kResourceExhausted; those of the store.
absl::Status CheckByteQuota(ReadTxn& txn, const TenantId& tenant, int64_t more);

}  // namespace tundra::coordinator
