#include "coordinator/api/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/service_type.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/api/server_credentials.h"
#include "coordinator/api/services.h"

namespace tundra::coordinator {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
// Clients may ping this often: workers notice a dead connection by it.
constexpr int kMinPingIntervalMs = 5'000;

class ApiServerImpl : public ApiServer {
 public:
  explicit ApiServerImpl(const Context* context) {
    services_.push_back(NewJobService(context));
    services_.push_back(NewDatasetService(context));
    services_.push_back(NewBaseService(context));
    services_.push_back(NewArtifactService(context));
    services_.push_back(NewGenerateService(context));
    services_.push_back(NewFleetService(context));
    services_.push_back(NewAccessService(context));
    services_.push_back(NewWorkerService(context));
  }
  ~ApiServerImpl() override { Stop(absl::ZeroDuration()); }

  absl::Status Start(const std::string& address, std::shared_ptr<TlsSource> tls) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    // Else a second server on the same port would start without an error, and
    // get half of the connections.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kMinPingIntervalMs);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.SetMaxSendMessageSize(kMaxMessageBytes);
    credentials_ = tls == nullptr ? grpc::InsecureServerCredentials()
                                  : ReloadingServerCredentials(std::move(tls));
    builder.AddListeningPort(address, credentials_, &port_);
    for (const auto& service : services_) builder.RegisterService(service.get());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ <= 0) {
      return absl::AlreadyExistsError(absl::StrCat(
          "cannot listen on ", address,
          ": the port is taken or the address is not this machine's; choose another --listen"));
    }
    server_->GetHealthCheckService()->SetServingStatus(true);
    return absl::OkStatus();
  }

  int port() const override { return port_; }
  std::shared_ptr<grpc::Channel> InProcessChannel() override {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
    return server_->InProcessChannel(arguments);
  }

  void Stop(absl::Duration grace) override {
    if (server_ == nullptr) return;
    server_->GetHealthCheckService()->SetServingStatus(false);
    server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
    server_.reset();
  }

 private:
  std::vector<std::unique_ptr<grpc::Service>> services_;
  // gRPC asks it for certificates as long as the server is there.
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ApiServer>> StartApiServer(const std::string& address,
                                                          std::shared_ptr<TlsSource> tls,
                                                          const Context* context) {
  auto server = std::make_unique<ApiServerImpl>(context);
  absl::Status status = server->Start(address, std::move(tls));
  if (!status.ok()) return status;
  return server;
}

}  // namespace tundra::coordinator
