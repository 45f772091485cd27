// What gRPC clients and servers share: the status of one world in the other,
// channels with keepalive, and the rule on which addresses may be used while
// there is no authentication.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace tundra {

// The codes of both are the same numbers. Details stay with the gRPC status.
absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

// A channel without encryption to "HOST:PORT", with keepalive pings, so that a
// peer that vanished is noticed within 20 s, and unlimited reconnects.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

// OK for "HOST:PORT" with a port from 0 to 65535, and for "unix:…". Errors: kInvalidArgument.
absl::Status CheckAddress(const std::string& address);

// Protocol Buffers reports bad input of peers to stderr; from now on to the log, as debug.
void RouteProtobufLog();

// Until there is authentication, servers listen and clients connect on loopback
// only. OK for "127.…:PORT", "localhost:PORT", "[::1]:PORT" and "unix:…", or
// when `insecure`. Errors: kInvalidArgument with the remedy.
absl::Status CheckLoopback(const std::string& address, bool insecure);

}  // namespace tundra
