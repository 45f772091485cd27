// Workers and groups: what FleetService does, without gRPC.
#pragma once

#include "absl/status/statusor.h"
#include "coordinator/access/caller.h"
#include "coordinator/api/context.h"
#include "tundra/v1/fleet.pb.h"

namespace tundra::coordinator {

class Workers {
 public:
  explicit Workers(const Context* context) : context_(context) {}

  absl::StatusOr<v1::ListWorkersResponse> List(const Caller& caller,
                                               const v1::ListWorkersRequest& request);
  absl::StatusOr<v1::ListGroupsResponse> ListGroups(const Caller& caller,
                                                    const v1::ListGroupsRequest& request);
  absl::StatusOr<v1::Worker> Drain(const Caller& caller, const v1::DrainWorkerRequest& request);
  absl::StatusOr<v1::Worker> Undrain(const Caller& caller, const v1::UndrainWorkerRequest& request);

 private:
  absl::StatusOr<v1::Worker> SetDrained(const Caller& caller, const std::string& name,
                                        bool drained);

  const Context* const context_;
};

}  // namespace tundra::coordinator
