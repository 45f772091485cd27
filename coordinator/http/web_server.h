// The web page and the JSON API, on a port of their own.
//
//   GET  /                                   the page, and its files beneath /assets/
//   POST /tundra.v1.SERVICE/METHOD           json_api.h
//   GET  /v1/ADAPTER/files/FILENAME          a file of "jobs/ID/adapter" or
//                                            "jobs/ID/checkpoints/STEP"
//
// Every answer carries headers that keep scripts of others out. Tokens travel in the
// `authorization` header alone, never in a cookie, so no other site can make a browser use one.
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "coordinator/http/json_api.h"
#include "coordinator/http/web_connection.h"

namespace tundra::coordinator {

struct WebOptions {
  // HOST:PORT; port 0 takes any. On a loopback address only requests whose Host header says
  // so are served: a page of the web that has its name resolved to this machine (DNS
  // rebinding) has another.
  std::string address;
  // To the coordinator's own gRPC server.
  std::shared_ptr<grpc::Channel> api;
  // Whether a caller of the method, by its name without the service, is anybody's: asked before a
  // body is read, so that only who is known makes the service read one. What they may do the gRPC
  // server decides.
  std::function<absl::Status(const WebCaller& caller, std::string_view method)> authorize;
  // Set for TLS: the context for the next connection, so that certificates can change.
  std::function<std::shared_ptr<SSL_CTX>()> tls;
  ConnectionLimits limits;
  // Connections served at once.
  size_t threads = 128;
};

class WebServer {
 public:
  virtual ~WebServer() = default;
  virtual int port() const = 0;
  // Ends calls and connections. Idempotent. The gRPC server must still be there.
  virtual void Stop() = 0;
};

// Errors: kAlreadyExists when the port is taken, kInvalidArgument for a malformed address.
absl::StatusOr<std::unique_ptr<WebServer>> StartWebServer(WebOptions options);

}  // namespace tundra::coordinator
