// What anybody may send to the port of /metrics, /healthz and /readyz.
#include "coordinator/http/probe_server.h"
#include "tests/fuzz/loopback.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra::coordinator;
  static ProbeServer* const server = [] {
    auto started = StartProbeServer("127.0.0.1:0", {.metrics = [] { return "tundra_leader 1\n"; },
                                                    .ready = [] { return true; }});
    EXPECT_FUZZ(started.ok());
    return started->release();
  }();
  const std::string answer = tundra::fuzz::Exchange(server->port(), tundra::fuzz::View(data, size));
  EXPECT_FUZZ(answer.empty() || answer.starts_with("HTTP/1.1 "));
  return 0;
}
