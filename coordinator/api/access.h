// Tenants, tokens and the audit log: what AccessService does, without gRPC.
#pragma once

#include "absl/status/statusor.h"
#include "coordinator/access/caller.h"
#include "coordinator/api/context.h"
#include "tundra/v1/access.pb.h"

namespace tundra::coordinator {

class Access {
 public:
  explicit Access(const Context* context) : context_(context) {}

  absl::StatusOr<v1::Caller> GetCaller(const Caller& caller, const v1::GetCallerRequest& request);

  absl::StatusOr<v1::Tenant> CreateTenant(const Caller& caller,
                                          const v1::CreateTenantRequest& request);
  absl::StatusOr<v1::Tenant> GetTenant(const Caller& caller, const v1::GetTenantRequest& request);
  absl::StatusOr<v1::ListTenantsResponse> ListTenants(const Caller& caller,
                                                      const v1::ListTenantsRequest& request);
  absl::StatusOr<v1::Tenant> UpdateTenant(const Caller& caller,
                                          const v1::UpdateTenantRequest& request);
  absl::Status DeleteTenant(const Caller& caller, const v1::DeleteTenantRequest& request);

  absl::StatusOr<v1::Token> CreateToken(const Caller& caller,
                                        const v1::CreateTokenRequest& request);
  absl::StatusOr<v1::ListTokensResponse> ListTokens(const Caller& caller,
                                                    const v1::ListTokensRequest& request);
  absl::Status DeleteToken(const Caller& caller, const v1::DeleteTokenRequest& request);

  absl::StatusOr<v1::ListAuditEntriesResponse> ListAuditEntries(
      const Caller& caller, const v1::ListAuditEntriesRequest& request);

 private:
  absl::StatusOr<v1::Tenant> Present(ReadTxn& txn, const TenantRecord& record,
                                     const std::map<TenantId, int32_t>& held);

  const Context* const context_;
};

}  // namespace tundra::coordinator
