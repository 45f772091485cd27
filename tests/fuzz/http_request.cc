// What a client of the web server may send on one connection.
#include <grpcpp/create_channel.h>

#include "common/rpc.h"
#include "coordinator/http/web_server.h"
#include "tests/fuzz/loopback.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra::coordinator;
  static WebServer* const server = [] {
    tundra::RouteProtobufLog();
    WebOptions options;
    options.address = "127.0.0.1:0";
    options.api = grpc::CreateChannel("nowhere", nullptr);
    options.threads = 2;
    auto started = StartWebServer(std::move(options));
    EXPECT_FUZZ(started.ok());
    return started->release();
  }();
  const std::string answer = tundra::fuzz::Exchange(server->port(), tundra::fuzz::View(data, size));
  EXPECT_FUZZ(answer.empty() || answer.starts_with("HTTP/1.1 "));
  return 0;
}
