#include "common/rpc.h"

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/client_interceptor.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/logging.h"
#include "common/secret.h"
#include "common/status.h"

namespace tundra {

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

namespace {

// The token of a file or a text, as a header's value; empty for none.
class TokenHeader {
 public:
  TokenHeader(std::string file, const std::string& token) : file_(std::move(file)) {
    if (!token.empty()) value_ = "Bearer " + token;
  }

  std::string Value() {
    absl::MutexLock lock(&mu_);
    if (file_.empty()) return value_;
    std::string stamp = FileStamp(file_);
    if (stamp != stamp_) {
      const absl::StatusOr<std::string> secret = ReadSecretFile(file_);
      if (secret.ok()) {
        value_ = "Bearer " + *secret;
      } else {
        LogWarning("keeps the former token: {}", std::string(secret.status().message()));
      }
      stamp_ = std::move(stamp);
    }
    return value_;
  }

 private:
  const std::string file_;
  absl::Mutex mu_;
  std::string value_ ABSL_GUARDED_BY(mu_);
  std::string stamp_ ABSL_GUARDED_BY(mu_);
};

// Adds the token to every call. gRPC's call credentials would be dropped in silence on channels
// without TLS, loopback's among them.
class TokenInterceptor : public grpc::experimental::Interceptor {
 public:
  explicit TokenInterceptor(std::shared_ptr<TokenHeader> header) : header_(std::move(header)) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      value_ = header_->Value();
      if (!value_.empty()) {
        methods->GetSendInitialMetadata()->emplace("authorization", value_);
      }
    }
    methods->Proceed();
  }

 private:
  const std::shared_ptr<TokenHeader> header_;
  std::string value_;
};

class TokenInterceptorFactory : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenInterceptorFactory(std::shared_ptr<TokenHeader> header)
      : header_(std::move(header)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new TokenInterceptor(header_);
  }

 private:
  const std::shared_ptr<TokenHeader> header_;
};

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // The minimum is left as it is: gRPC takes it for how long connecting may take, too.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetMaxReceiveMessageSize(16 << 20);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, 64 << 10);  // errors travel there
  // Else a channel with a new certificate could use the connection of the one before, and one
  // made anew after a restart of the server would wait for the back-off of its forerunner.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

}  // namespace

absl::StatusOr<std::shared_ptr<ChannelSource>> ChannelSource::Open(const std::string& address,
                                                                   const ClientSecurity& security) {
  RETURN_IF_ERROR(CheckLoopback(address, security.tls, security.insecure));
  std::shared_ptr<ChannelSource> source(new ChannelSource(address, security));
  if (security.tls) {
    ASSIGN_OR_RETURN(source->tls_, TlsSource::Open(security.files));
  } else if (security.files != TlsFiles()) {
    return absl::InvalidArgumentError(
        "a TLS certificate was given, and TLS is off: say what to trust with --tls-ca FILE, or "
        "--tls "
        "for the system's roots");
  }
  if (!security.token_file.empty()) RETURN_IF_ERROR(ReadSecretFile(security.token_file).status());
  if (!security.token.empty()) {
    // What a header may not have in it would end the process.
    RETURN_IF_ERROR(CheckSecret(security.token, "the token").status());
  }
  absl::MutexLock lock(&source->mu_);
  source->channel_ = source->Make();
  return source;
}

std::shared_ptr<ChannelSource> ChannelSource::Plain(const std::string& address) {
  std::shared_ptr<ChannelSource> source(new ChannelSource(address, ClientSecurity{}));
  absl::MutexLock lock(&source->mu_);
  source->channel_ = source->Make();
  return source;
}

std::shared_ptr<grpc::Channel> ChannelSource::Get() {
  absl::MutexLock lock(&mu_);
  if (tls_ != nullptr && tls_->Refresh()) channel_ = Make();
  return channel_;
}

absl::Time ChannelSource::CertExpiry() const {
  return tls_ == nullptr ? absl::InfiniteFuture() : tls_->Get().first->not_after;
}

std::shared_ptr<grpc::Channel> ChannelSource::Make() const {
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  grpc::ChannelArguments arguments = Arguments();
  if (tls_ != nullptr) {
    const auto material = tls_->Get().first;
    credentials = grpc::SslCredentials({.pem_root_certs = material->ca,
                                        .pem_private_key = material->key,
                                        .pem_cert_chain = material->cert});
  } else {
    credentials = grpc::InsecureChannelCredentials();
    // Else $http_proxy would be handed calls and token, in the clear.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  }
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!security_.token.empty() || !security_.token_file.empty()) {
    interceptors.push_back(std::make_unique<TokenInterceptorFactory>(
        std::make_shared<TokenHeader>(security_.token_file, security_.token)));
  }
  return grpc::experimental::CreateCustomChannelWithInterceptors(address_, credentials, arguments,
                                                                 std::move(interceptors));
}

void RouteProtobufLog() {
  google::protobuf::SetLogHandler(
      [](google::protobuf::LogLevel level, const char*, int, const std::string& message) {
        if (level == google::protobuf::LOGLEVEL_FATAL) return LogError("protobuf: {}", message);
        LogDebug("protobuf: {}", message);
      });
}

absl::Status CheckLoopback(const std::string& address, bool tls, bool insecure) {
  RETURN_IF_ERROR(CheckAddress(address));
  if (tls || insecure || IsLoopbackAddress(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("address '", address,
                   "' is not on loopback, and nothing would be encrypted: turn TLS on (--tls-ca "
                   "FILE, or --tls for the system's roots), or say --insecure if the network is "
                   "yours alone"));
}

}  // namespace tundra
