// What gRPC clients and servers share: the status of one world in the other,
// channels with keepalive, TLS and a token, and the rule on which addresses may
// be used without TLS.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/tls.h"

namespace tundra {

// The codes of both are the same numbers. Details stay with the gRPC status.
absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

// How a client secures its calls.
struct ClientSecurity {
  // Encrypts, and checks the server's certificate by `files.ca`, or by the system's roots when
  // that is empty. `files.cert` and `files.key` are the client's own certificate.
  bool tls = false;
  TlsFiles files{};
  // Goes with every call as `authorization: Bearer TOKEN`; from a file, which is read again when
  // it changes, or else as it stands here.
  std::string token_file{};
  std::string token{};
  // Allows an address beyond loopback without TLS.
  bool insecure = false;
};

// The channel to one server, made anew when certificates change. Channels have keepalive pings,
// so that a peer that vanished is noticed within 20 s, and unlimited reconnects. Thread-safe.
class ChannelSource {
 public:
  // Errors: kInvalidArgument for an address beyond loopback without TLS, and for bad files; those
  // of ReadFile.
  static absl::StatusOr<std::shared_ptr<ChannelSource>> Open(const std::string& address,
                                                             const ClientSecurity& security);
  // For tests and loopback: without TLS or token.
  static std::shared_ptr<ChannelSource> Plain(const std::string& address);

  // The channel for calls from now on.
  std::shared_ptr<grpc::Channel> Get();
  // When the client's own certificate ends; infinite without one.
  absl::Time CertExpiry() const;

 private:
  ChannelSource(std::string address, ClientSecurity security)
      : address_(std::move(address)), security_(std::move(security)) {}
  std::shared_ptr<grpc::Channel> Make() const;

  const std::string address_;
  const ClientSecurity security_;
  std::shared_ptr<TlsSource> tls_;
  absl::Mutex mu_;
  std::shared_ptr<grpc::Channel> channel_ ABSL_GUARDED_BY(mu_);
};

// Protocol Buffers reports bad input of peers to stderr; from now on to the log, as debug.
void RouteProtobufLog();

// Without TLS, servers listen and clients connect on loopback only, or when `insecure`.
// Errors: kInvalidArgument with the remedy.
absl::Status CheckLoopback(const std::string& address, bool tls, bool insecure);

}  // namespace tundra
