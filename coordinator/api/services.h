// The gRPC services, as opaque objects: gRPC's headers stay in few files.
#pragma once

#include <memory>

#include "coordinator/api/context.h"

namespace grpc {
class Service;
}

namespace tundra::coordinator {

// `context` outlives them.
std::unique_ptr<grpc::Service> NewJobService(const Context* context);
std::unique_ptr<grpc::Service> NewDatasetService(const Context* context);
std::unique_ptr<grpc::Service> NewBaseService(const Context* context);
std::unique_ptr<grpc::Service> NewArtifactService(const Context* context);
std::unique_ptr<grpc::Service> NewGenerateService(const Context* context);
std::unique_ptr<grpc::Service> NewFleetService(const Context* context);
std::unique_ptr<grpc::Service> NewAccessService(const Context* context);
std::unique_ptr<grpc::Service> NewWorkerService(const Context* context);

}  // namespace tundra::coordinator
