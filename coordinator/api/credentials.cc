#include "coordinator/api/credentials.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include "absl/strings/string_view.h"
#include "coordinator/access/in_process.h"

namespace tundra::coordinator {

Credentials CredentialsOf(const grpc::ServerContextBase& call) {
  Credentials credentials;
  credentials.peer = call.peer();
  // The web server calls from within the process, for somebody whose address it tells.
  const auto& metadata = call.client_metadata();
  const auto peer = metadata.find(kPeerMetadata);
  const auto key = metadata.find(kPeerKeyMetadata);
  if (peer != metadata.end() && key != metadata.end() &&
      absl::string_view(key->second.data(), key->second.size()) == PeerKey()) {
    credentials.peer.assign(peer->second.data(), peer->second.size());
  }
  const auto [begin, end] = call.client_metadata().equal_range("authorization");
  if (begin != end) {
    // Two of them are none: which one counts must not depend on who looks.
    credentials.authorization =
        std::next(begin) == end ? std::string(begin->second.data(), begin->second.size()) : "";
  }
  const auto auth = call.auth_context();
  if (auth != nullptr && auth->IsPeerAuthenticated()) {
    std::vector<grpc::string_ref> names = auth->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
    if (names.empty()) names = auth->GetPeerIdentity();
    if (!names.empty()) credentials.certificate.assign(names[0].data(), names[0].size());
    // With OpenSSL a server's view of the chain has no leaf.
    for (const char* const part :
         {GRPC_X509_PEM_CERT_PROPERTY_NAME, GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME}) {
      const auto pem = auth->FindPropertyValues(part);
      if (!pem.empty()) credentials.chain.append(pem[0].data(), pem[0].size());
    }
  }
  return credentials;
}

}  // namespace tundra::coordinator
