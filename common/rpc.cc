#include "common/rpc.h"

#include <arpa/inet.h>
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status.h"

namespace tundra {

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // The minimum is left as it is: gRPC takes it for how long connecting may take, too.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetMaxReceiveMessageSize(16 << 20);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, 64 << 10);  // errors travel there
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void RouteProtobufLog() {
  google::protobuf::SetLogHandler(
      [](google::protobuf::LogLevel level, const char*, int, const std::string& message) {
        if (level == google::protobuf::LOGLEVEL_FATAL) return LogError("protobuf: {}", message);
        LogDebug("protobuf: {}", message);
      });
}

absl::Status CheckAddress(const std::string& address) {
  if (address.starts_with("unix:")) return absl::OkStatus();
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == 0 || colon == std::string::npos ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "' is not HOST:PORT with a port from 0 to 65535"));
  }
  return absl::OkStatus();
}

absl::Status CheckLoopback(const std::string& address, bool insecure) {
  RETURN_IF_ERROR(CheckAddress(address));
  if (insecure) return absl::OkStatus();
  std::string_view host = address;
  if (host.starts_with("unix:")) return absl::OkStatus();
  host = host.substr(0, host.rfind(':'));
  if (host == "localhost" || host == "[::1]") return absl::OkStatus();
  // As a number: "127.example.org" is a name, and may lead anywhere.
  in_addr number{};
  if (::inet_pton(AF_INET, std::string(host).c_str(), &number) == 1 &&
      (ntohl(number.s_addr) >> 24) == 127) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("address '", address,
                   "' is not on loopback, and there is no authentication yet: use 127.0.0.1, or "
                   "give --insecure to accept that anybody who reaches it can use it"));
}

}  // namespace tundra
