#include "coordinator/api/server_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

namespace tundra::coordinator {
namespace {

// gRPC's C++ API at 1.51 has no certificates that can be replaced, other than an experimental
// watcher of files, which also takes a pair that doesn't match. Its C API asks for the
// certificate at each handshake; this class brings that to C++.
class ReloadingCredentials : public grpc::ServerCredentials {
 public:
  explicit ReloadingCredentials(std::shared_ptr<TlsSource> source) : source_(std::move(source)) {
    const bool ask = !source_->Get().first->ca.empty();
    grpc_ssl_server_credentials_options* const options =
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            ask ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY
                : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            &ReloadingCredentials::Fetch, this);
    credentials_ = grpc_ssl_server_credentials_create_with_options(options);
  }
  ~ReloadingCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    // Tokens are checked by the handlers.
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<ReloadingCredentials*>(self)->Fetch(config);
  }

  grpc_ssl_certificate_config_reload_status Fetch(grpc_ssl_server_certificate_config** config) {
    const auto [material, number] = source_->Get();
    absl::MutexLock lock(&mu_);
    if (number == served_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair = {material->key.c_str(), material->cert.c_str()};
    // gRPC 1.51 aborts without roots, although no client is asked for a certificate then.
    const std::string& roots = material->ca.empty() ? material->cert : material->ca;
    *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
    served_ = number;
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const std::shared_ptr<TlsSource> source_;
  grpc_server_credentials* credentials_ = nullptr;
  absl::Mutex mu_;
  uint64_t served_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> ReloadingServerCredentials(
    std::shared_ptr<TlsSource> source) {
  return std::make_shared<ReloadingCredentials>(std::move(source));
}

}  // namespace tundra::coordinator
