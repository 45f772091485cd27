// What of a gRPC call tells who makes it.
#pragma once

#include <grpcpp/server_context.h>

#include "coordinator/access/authenticator.h"

namespace tundra::coordinator {

Credentials CredentialsOf(const grpc::ServerContextBase& call);

}  // namespace tundra::coordinator
