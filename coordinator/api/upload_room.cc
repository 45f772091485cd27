#include "coordinator/api/upload_room.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra::coordinator {
namespace {

absl::Status Check(ReadTxn& txn, const TenantId& tenant, int64_t under_way, int64_t more) {
  ASSIGN_OR_RETURN(const TenantRecord record, txn.GetTenant(tenant));
  if (!record.quota.has_dataset_bytes()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const TenantCounts counts, txn.CountTenant(tenant));
  const int64_t left = record.quota.dataset_bytes() - counts.dataset_bytes - under_way;
  if (more <= left) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "tenant ", tenant.value, " has ", counts.dataset_bytes, " bytes of data sets and uploaded ",
      "adapters", under_way > 0 ? absl::StrCat(", ", under_way, " more are on their way") : "",
      ", of at most ", record.quota.dataset_bytes(), ", and this one has ", more,
      "; delete data sets (tundra datasets delete), or ask an admin for more; uploaded adapters "
      "go by themselves after 24 hours"));
}

}  // namespace

absl::StatusOr<UploadRoom::Share> UploadRoom::Take(Store& store, const TenantId& tenant,
                                                   int64_t bytes) {
  // Held over the read: an upload that ends is either still under way here or in the store there.
  absl::MutexLock lock(&mu_);
  int64_t& under_way = under_way_[tenant];
  const absl::Status fits = store.Read([&](ReadTxn& txn) {
    mu_.AssertHeld();
    return Check(txn, tenant, under_way, bytes);
  });
  if (!fits.ok()) {
    if (under_way == 0) under_way_.erase(tenant);
    return fits;
  }
  under_way += bytes;
  return Share(this, tenant, bytes);
}

void UploadRoom::GiveBack(const TenantId& tenant, int64_t bytes) {
  absl::MutexLock lock(&mu_);
  const auto it = under_way_.find(tenant);
  it->second -= bytes;
  if (it->second == 0) under_way_.erase(it);
}

absl::Status CheckByteQuota(ReadTxn& txn, const TenantId& tenant, int64_t more) {
  return Check(txn, tenant, 0, more);
}

}  // namespace tundra::coordinator
