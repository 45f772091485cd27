// Renders chat templates for comparisons with Transformers
// (tests/parity/template_live.py). Reads JSON lines on standard input, each
//   {"template", "messages", "tools", "documents", "add_generation_prompt",
//    "variables", "now" (seconds), "drop_null_keys"}
// and answers each with {"rendered", "spans" (byte offsets)} or {"error"}.
#include <iostream>
#include <string>

#include "common/text/chat_template.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;

Json Answer(const Json& request) {
  ChatInput input;
  input.messages = request.value("messages", Json::array());
  if (request.contains("tools")) input.tools = request["tools"];
  if (request.contains("documents")) input.documents = request["documents"];
  input.add_generation_prompt = request.value("add_generation_prompt", false);
  input.variables = request.value("variables", Json::object());
  input.drop_null_keys = request.value("drop_null_keys", true);
  if (request.contains("now")) input.now = absl::FromUnixSeconds(request["now"].get<int64_t>());
  input.zone = absl::UTCTimeZone();
  auto parsed = ChatTemplate::Parse(request.at("template"), request.value("name", "template"));
  if (!parsed.ok()) return {{"error", std::string(parsed.status().message())}};
  auto rendered = parsed->Render(input);
  if (!rendered.ok()) return {{"error", std::string(rendered.status().message())}};
  Json spans = Json::array();
  for (const auto& [begin, end] : rendered->generation_spans) spans.push_back({begin, end});
  return {{"rendered", rendered->text}, {"spans", spans}};
}

}  // namespace
}  // namespace tundra

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    try {
      std::cout << tundra::Answer(nlohmann::ordered_json::parse(line)).dump() << "\n" << std::flush;
    } catch (const std::exception& error) {
      std::cerr << "bad request: " << error.what() << "\n";
      return 2;
    }
  }
  return 0;
}
