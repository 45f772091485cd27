// AccessService over gRPC.
#include "coordinator/api/access.h"
#include "coordinator/api/call.h"
#include "coordinator/api/services.h"
#include "tundra/v1/access.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using google::protobuf::Empty;
using Call = grpc::CallbackServerContext;

class AccessServiceImpl : public v1::AccessService::CallbackService {
 public:
  explicit AccessServiceImpl(const Context* context) : context_(context), access_(context) {}

  grpc::ServerUnaryReactor* GetCaller(Call* call, const v1::GetCallerRequest* in,
                                      v1::Caller* out) override {
    return RunUnary(context_, "GetCaller", call, in, out, &access_, &Access::GetCaller);
  }
  grpc::ServerUnaryReactor* CreateTenant(Call* call, const v1::CreateTenantRequest* in,
                                         v1::Tenant* out) override {
    return RunUnary(context_, "CreateTenant", call, in, out, &access_, &Access::CreateTenant);
  }
  grpc::ServerUnaryReactor* GetTenant(Call* call, const v1::GetTenantRequest* in,
                                      v1::Tenant* out) override {
    return RunUnary(context_, "GetTenant", call, in, out, &access_, &Access::GetTenant);
  }
  grpc::ServerUnaryReactor* ListTenants(Call* call, const v1::ListTenantsRequest* in,
                                        v1::ListTenantsResponse* out) override {
    return RunUnary(context_, "ListTenants", call, in, out, &access_, &Access::ListTenants);
  }
  grpc::ServerUnaryReactor* UpdateTenant(Call* call, const v1::UpdateTenantRequest* in,
                                         v1::Tenant* out) override {
    return RunUnary(context_, "UpdateTenant", call, in, out, &access_, &Access::UpdateTenant);
  }
  grpc::ServerUnaryReactor* DeleteTenant(Call* call, const v1::DeleteTenantRequest* in,
                                         Empty* out) override {
    return RunUnary(context_, "DeleteTenant", call, in, out, &access_, &Access::DeleteTenant);
  }
  grpc::ServerUnaryReactor* CreateToken(Call* call, const v1::CreateTokenRequest* in,
                                        v1::Token* out) override {
    return RunUnary(context_, "CreateToken", call, in, out, &access_, &Access::CreateToken);
  }
  grpc::ServerUnaryReactor* ListTokens(Call* call, const v1::ListTokensRequest* in,
                                       v1::ListTokensResponse* out) override {
    return RunUnary(context_, "ListTokens", call, in, out, &access_, &Access::ListTokens);
  }
  grpc::ServerUnaryReactor* DeleteToken(Call* call, const v1::DeleteTokenRequest* in,
                                        Empty* out) override {
    return RunUnary(context_, "DeleteToken", call, in, out, &access_, &Access::DeleteToken);
  }
  grpc::ServerUnaryReactor* ListAuditEntries(Call* call, const v1::ListAuditEntriesRequest* in,
                                             v1::ListAuditEntriesResponse* out) override {
    return RunUnary(context_, "ListAuditEntries", call, in, out, &access_,
                    &Access::ListAuditEntries);
  }

 private:
  const Context* const context_;
  Access access_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewAccessService(const Context* context) {
  return std::make_unique<AccessServiceImpl>(context);
}

}  // namespace tundra::coordinator
