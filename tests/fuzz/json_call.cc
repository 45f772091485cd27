// A call of the JSON API: its path and its header fields, a line each, and its body.
#include <grpcpp/create_channel.h>

#include "common/rpc.h"
#include "coordinator/http/json_api.h"
#include "tests/fuzz/target.h"

namespace {

// The line at the front, which is taken off.
std::string TakeLine(std::string_view& text) {
  const size_t end = text.find('\n');
  const std::string line(text.substr(0, end));
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra::coordinator;
  // A channel without credentials leads nowhere: a call that was understood ends there.
  static JsonApi* const api = [] {
    tundra::RouteProtobufLog();
    return new JsonApi(grpc::CreateChannel("nowhere", nullptr), [] { return false; });
  }();
  std::string_view text = tundra::fuzz::View(data, size);
  JsonCall call;
  call.path = TakeLine(text);
  call.caller.authorization = TakeLine(text);
  call.timeout_ms = TakeLine(text);
  call.if_none_match = TakeLine(text);
  call.body = std::string(text);
  const JsonAnswer answer = api->Call(call);
  EXPECT_FUZZ(answer.status >= 400 && answer.status < 600);
  EXPECT_FUZZ(answer.body.starts_with("{\"code\":"));
  return 0;
}
