// TLS for the gRPC server, with certificates that can be replaced while it runs.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "common/tls.h"

namespace tundra::coordinator {

// Each new connection gets the source's newest material; those that are open keep theirs. Clients
// may show a certificate; one is let in only if it chains to the material's CA. The source must
// have a certificate.
std::shared_ptr<grpc::ServerCredentials> ReloadingServerCredentials(
    std::shared_ptr<TlsSource> source);

}  // namespace tundra::coordinator
