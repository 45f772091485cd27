// FleetService over gRPC.
#include "coordinator/api/call.h"
#include "coordinator/api/services.h"
#include "coordinator/api/workers.h"
#include "tundra/v1/fleet.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using Call = grpc::CallbackServerContext;

class FleetServiceImpl : public v1::FleetService::CallbackService {
 public:
  explicit FleetServiceImpl(const Context* context) : context_(context), workers_(context) {}

  grpc::ServerUnaryReactor* ListWorkers(Call* call, const v1::ListWorkersRequest* in,
                                        v1::ListWorkersResponse* out) override {
    return RunUnary(context_, "ListWorkers", call, in, out, &workers_, &Workers::List);
  }
  grpc::ServerUnaryReactor* ListGroups(Call* call, const v1::ListGroupsRequest* in,
                                       v1::ListGroupsResponse* out) override {
    return RunUnary(context_, "ListGroups", call, in, out, &workers_, &Workers::ListGroups);
  }
  grpc::ServerUnaryReactor* DrainWorker(Call* call, const v1::DrainWorkerRequest* in,
                                        v1::Worker* out) override {
    return RunUnary(context_, "DrainWorker", call, in, out, &workers_, &Workers::Drain);
  }
  grpc::ServerUnaryReactor* UndrainWorker(Call* call, const v1::UndrainWorkerRequest* in,
                                          v1::Worker* out) override {
    return RunUnary(context_, "UndrainWorker", call, in, out, &workers_, &Workers::Undrain);
  }

 private:
  const Context* const context_;
  Workers workers_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewFleetService(const Context* context) {
  return std::make_unique<FleetServiceImpl>(context);
}

}  // namespace tundra::coordinator
