#include "coordinator/api/access.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/printable.h"
#include "common/secret.h"
#include "common/status.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/names.h"
#include "coordinator/workers/quota_use.h"

namespace tundra::coordinator {
namespace {

constexpr size_t kMostTenants = 10'000;
constexpr size_t kMostTokens = 100'000;

bool IsTenantId(const std::string& id) {
  return !id.empty() && id.size() <= 40 &&
         id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

void CheckQuota(const v1::Quota& quota, Violations& v) {
  v.Require(!quota.has_devices() || quota.devices() >= 1, "tenant.quota.devices",
            "must be 1 or more");
  v.Require(!quota.has_active_jobs() || quota.active_jobs() >= 0, "tenant.quota.active_jobs",
            "must be 0 or more");
  v.Require(!quota.has_dataset_bytes() || quota.dataset_bytes() >= 0, "tenant.quota.dataset_bytes",
            "must be 0 or more");
}

v1::Token Present(const TokenRecord& record) {
  v1::Token token;
  token.set_name(absl::StrCat("tokens/", record.id.value));
  token.set_display_name(record.display_name);
  token.set_tenant(absl::StrCat("tenants/", record.tenant.value));
  token.set_role(record.role);
  *token.mutable_create_time() = ToProto(record.create_time);
  if (record.expire_time != absl::InfiniteFuture()) {
    *token.mutable_expire_time() = ToProto(record.expire_time);
  }
  return token;
}

absl::StatusOr<absl::Time> ExpiryOf(const v1::CreateTokenRequest& request, absl::Time now) {
  if (!request.has_lifetime()) return absl::InfiniteFuture();
  const absl::Duration lifetime = absl::Seconds(request.lifetime().seconds());
  Violations v;
  v.Require(lifetime >= absl::Minutes(1) && lifetime <= absl::Hours(24 * 3660), "lifetime",
            "must be a minute to ten years");
  RETURN_IF_ERROR(v.ToStatus());
  return now + lifetime;
}

}  // namespace

absl::StatusOr<v1::Caller> Access::GetCaller(const Caller& caller, const v1::GetCallerRequest&) {
  v1::Caller out;
  out.set_tenant(absl::StrCat("tenants/", caller.tenant.value));
  out.set_role(caller.role);
  if (caller.actor.starts_with("tokens/")) out.set_token(caller.actor);
  out.set_display_name(caller.display_name);
  return out;
}

absl::StatusOr<v1::Tenant> Access::Present(ReadTxn& txn, const TenantRecord& record,
                                           const std::map<TenantId, int32_t>& held) {
  v1::Tenant tenant;
  tenant.set_name(absl::StrCat("tenants/", record.id.value));
  *tenant.mutable_quota() = record.quota;
  ASSIGN_OR_RETURN(const TenantCounts counts, txn.CountTenant(record.id));
  const auto devices = held.find(record.id);
  v1::Usage* const usage = tenant.mutable_usage();
  usage->set_devices(devices == held.end() ? 0 : devices->second);
  usage->set_active_jobs(static_cast<int32_t>(counts.active_jobs));
  usage->set_dataset_bytes(counts.dataset_bytes);
  // "default" was never made by anybody.
  if (record.create_time > absl::UnixEpoch()) {
    *tenant.mutable_create_time() = ToProto(record.create_time);
  }
  return tenant;
}

absl::StatusOr<v1::Tenant> Access::CreateTenant(const Caller& caller,
                                                const v1::CreateTenantRequest& request) {
  Violations v;
  v.Require(IsTenantId(request.tenant_id()), "tenant_id", "must be 1 to 40 of a-z, 0-9 and -");
  CheckQuota(request.tenant().quota(), v);
  RETURN_IF_ERROR(v.ToStatus());
  const TenantRecord record{.id = {request.tenant_id()},
                            .quota = request.tenant().quota(),
                            .create_time = context_->clock->Now()};
  v1::Tenant tenant;
  RETURN_IF_ERROR(WriteAudited(*context_, caller, [&](Txn& txn) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(const std::vector<TenantRecord> all, txn.ListTenants());
    if (all.size() >= kMostTenants) {
      return absl::ResourceExhaustedError(absl::StrCat("at most ", kMostTenants, " tenants"));
    }
    if (txn.GetTenant(record.id).ok()) {
      return absl::AlreadyExistsError(
          absl::StrCat("tenants/", record.id.value, " is there already"));
    }
    RETURN_IF_ERROR(txn.PutTenant(record));
    ASSIGN_OR_RETURN(const auto held, DevicesHeld(txn));
    ASSIGN_OR_RETURN(tenant, Present(txn, record, held));
    return tenant.name();
  }));
  return tenant;
}

absl::StatusOr<v1::Tenant> Access::GetTenant(const Caller& caller,
                                             const v1::GetTenantRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "tenants", "name"));
  if (!caller.Sees({id})) {
    return absl::NotFoundError(absl::StrCat("there is no tenant tenants/", id));
  }
  v1::Tenant tenant;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const TenantRecord record, txn.GetTenant({id}));
    ASSIGN_OR_RETURN(const auto held, DevicesHeld(txn));
    ASSIGN_OR_RETURN(tenant, Present(txn, record, held));
    return absl::OkStatus();
  }));
  return tenant;
}

absl::StatusOr<v1::ListTenantsResponse> Access::ListTenants(const Caller& caller,
                                                            const v1::ListTenantsRequest& request) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 100, 1000));
  ASSIGN_OR_RETURN(const int64_t start,
                   context_->page_tokens->Parse(request.page_token(), "tenants", "", 0));
  v1::ListTenantsResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(std::vector<TenantRecord> tenants, txn.ListTenants());
    ASSIGN_OR_RETURN(const auto held, DevicesHeld(txn));
    std::erase_if(tenants, [&](const TenantRecord& tenant) { return !caller.Sees(tenant.id); });
    for (auto i = static_cast<size_t>(start); i < tenants.size(); ++i) {
      if (response.tenants_size() == size) {
        response.set_next_page_token(
            context_->page_tokens->Make("tenants", "", static_cast<int64_t>(i)));
        break;
      }
      ASSIGN_OR_RETURN(*response.add_tenants(), Present(txn, tenants[i], held));
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<v1::Tenant> Access::UpdateTenant(const Caller& caller,
                                                const v1::UpdateTenantRequest& request) {
  ASSIGN_OR_RETURN(const std::string id,
                   ParseName(request.tenant().name(), "tenants", "tenant.name"));
  Violations v;
  CheckQuota(request.tenant().quota(), v);
  RETURN_IF_ERROR(v.ToStatus());
  v1::Tenant tenant;
  RETURN_IF_ERROR(WriteAudited(*context_, caller, [&](Txn& txn) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(TenantRecord record, txn.GetTenant({id}));
    record.quota = request.tenant().quota();
    RETURN_IF_ERROR(txn.PutTenant(record));
    ASSIGN_OR_RETURN(const auto held, DevicesHeld(txn));
    ASSIGN_OR_RETURN(tenant, Present(txn, record, held));
    return tenant.name();
  }));
  context_->controller->Kick();
  return tenant;
}

absl::Status Access::DeleteTenant(const Caller& caller, const v1::DeleteTenantRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "tenants", "name"));
  return WriteAudited(*context_, caller, [&](Txn& txn) -> absl::StatusOr<std::string> {
    RETURN_IF_ERROR(txn.GetTenant({id}).status());
    if (id == kDefaultTenant) {
      return absl::FailedPreconditionError("the tenant \"default\" is always there");
    }
    ASSIGN_OR_RETURN(const TenantCounts counts, txn.CountTenant({id}));
    if (counts.jobs + counts.datasets + counts.tokens > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("tenants/", id, " has ", counts.jobs, " jobs, ", counts.datasets,
                       " data sets and ", counts.tokens, " tokens; delete them first"));
    }
    RETURN_IF_ERROR(txn.DeleteTenant({id}));
    return request.name();
  });
}

absl::StatusOr<v1::Token> Access::CreateToken(const Caller& caller,
                                              const v1::CreateTokenRequest& request) {
  const v1::Token& wanted = request.token();
  Violations v;
  v.Require(!wanted.display_name().empty() && wanted.display_name().size() <= 128,
            "token.display_name", "must have 1 to 128 characters");
  v.Require(!HasControlCharacters(wanted.display_name()), "token.display_name",
            "must have no control characters or line breaks");
  v.Require(wanted.role() != v1::ROLE_UNSPECIFIED && v1::Role_IsValid(wanted.role()), "token.role",
            "must be ROLE_VIEWER, ROLE_USER or ROLE_ADMIN");
  const absl::StatusOr<std::string> tenant = ParseName(wanted.tenant(), "tenants", "token.tenant");
  v.Require(tenant.ok(), "token.tenant", "must have the form tenants/ID");
  RETURN_IF_ERROR(v.ToStatus());
  TokenRecord record;
  record.create_time = context_->clock->Now();
  ASSIGN_OR_RETURN(record.expire_time, ExpiryOf(request, record.create_time));
  const std::string secret = NewSecret();
  record.id.value = NewIdValue("token");
  record.secret_hash = HashSecret(secret);
  record.tenant.value = *tenant;
  record.role = wanted.role();
  record.display_name = wanted.display_name();
  RETURN_IF_ERROR(WriteAudited(*context_, caller, [&](Txn& txn) -> absl::StatusOr<std::string> {
    RETURN_IF_ERROR(txn.GetTenant(record.tenant).status());
    ASSIGN_OR_RETURN(const std::vector<TokenRecord> tokens, txn.ListTokens());
    if (tokens.size() >= kMostTokens) {
      return absl::ResourceExhaustedError(
          absl::StrCat("at most ", kMostTokens, " tokens; delete some"));
    }
    RETURN_IF_ERROR(txn.InsertToken(record));
    return absl::StrCat("tokens/", record.id.value);
  }));
  RETURN_IF_ERROR(context_->authenticator->Reload());
  v1::Token token = coordinator::Present(record);
  token.set_secret(secret);
  return token;
}

absl::StatusOr<v1::ListTokensResponse> Access::ListTokens(const Caller&,
                                                          const v1::ListTokensRequest& request) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 100, 1000));
  ASSIGN_OR_RETURN(
      const int64_t before,
      context_->page_tokens->Parse(request.page_token(), "tokens", request.tenant(), INT64_MAX));
  v1::ListTokensResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<TokenRecord> tokens, txn.ListTokens());
    for (const TokenRecord& record : tokens) {
      const v1::Token token = coordinator::Present(record);
      if (record.key >= before) continue;
      if (!request.tenant().empty() && token.tenant() != request.tenant()) continue;
      if (response.tokens_size() == size) {
        response.set_next_page_token(
            context_->page_tokens->Make("tokens", request.tenant(), record.key + 1));
        break;
      }
      *response.add_tokens() = token;
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::Status Access::DeleteToken(const Caller& caller, const v1::DeleteTokenRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "tokens", "name"));
  bool unknown = false;
  const absl::Status deleted =
      WriteAudited(*context_, caller, [&](Txn& txn) -> absl::StatusOr<std::string> {
        ASSIGN_OR_RETURN(const std::vector<TokenRecord> tokens, txn.ListTokens());
        const auto found =
            std::find_if(tokens.begin(), tokens.end(),
                         [&](const TokenRecord& token) { return token.id.value == id; });
        if (found == tokens.end()) {
          unknown = true;
          return absl::NotFoundError(absl::StrCat("there is no token tokens/", id));
        }
        const bool another =
            std::any_of(tokens.begin(), tokens.end(), [&](const TokenRecord& token) {
              return token.role == v1::ROLE_ADMIN && token.id != found->id &&
                     token.expire_time == absl::InfiniteFuture();
            });
        if (found->role == v1::ROLE_ADMIN && !another) {
          return absl::FailedPreconditionError(
              "without this token no admin's token that never expires would be left; make another "
              "one first (tundra admin tokens create --role admin)");
        }
        RETURN_IF_ERROR(txn.DeleteToken({id}));
        return request.name();
      });
  // Also when it was deleted before: the list in memory may have been left behind then.
  if (deleted.ok() || unknown) RETURN_IF_ERROR(context_->authenticator->Reload());
  return deleted;
}

absl::StatusOr<v1::ListAuditEntriesResponse> Access::ListAuditEntries(
    const Caller&, const v1::ListAuditEntriesRequest& request) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 100, 1000));
  ASSIGN_OR_RETURN(const int64_t before,
                   context_->page_tokens->Parse(request.page_token(), "audit", "", INT64_MAX));
  v1::ListAuditEntriesResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<v1::AuditEntry> entries, txn.ListAudit(before, size + 1));
    for (const v1::AuditEntry& entry : entries) {
      if (response.entries_size() == size) {
        response.set_next_page_token(
            context_->page_tokens->Make("audit", "", entry.sequence() + 1));
        break;
      }
      *response.add_entries() = entry;
    }
    return absl::OkStatus();
  }));
  return response;
}

}  // namespace tundra::coordinator
