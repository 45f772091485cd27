// A chat template, and the conversation that it renders: {"messages": [...], "tools": [...], ...}.
#include "common/text/chat_template.h"

#include "tests/fuzz/target.h"

namespace {

using namespace tundra;
using Json = nlohmann::ordered_json;

// Small, so that a template that uses all of them is quick: steps and bytes must bound the time.
constexpr RenderLimits kLimits = {
    .max_steps = 20'000, .max_output_bytes = 1 << 20, .max_work_bytes = 8 << 20, .max_depth = 200};

ChatInput Conversation(const std::string& text) {
  ChatInput input;
  // As the reader of rows bounds it, which is a target of its own.
  int depth = 0;
  const Json parsed = Json::parse(
      text,
      [&](int at, Json::parse_event_t, Json&) {
        depth = std::max(depth, at);
        return true;
      },
      /*allow_exceptions=*/false);
  if (!parsed.is_object() || depth > 90) return input;
  if (parsed.contains("messages")) input.messages = parsed["messages"];
  if (parsed.contains("tools")) input.tools = parsed["tools"];
  if (parsed.contains("documents")) input.documents = parsed["documents"];
  if (parsed.contains("variables") && parsed["variables"].is_object()) {
    input.variables = parsed["variables"];
  }
  input.add_generation_prompt = parsed.contains("add_generation_prompt");
  input.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  input.now = absl::UnixEpoch();
  input.zone = absl::UTCTimeZone();
  return input;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = tundra::fuzz::Parts(tundra::fuzz::View(data, size), 2);
  const auto chat_template = ChatTemplate::Parse(parts[0], "template");
  if (!chat_template.ok()) return 0;
  const auto rendered = chat_template->Render(Conversation(parts[1]), kLimits);
  if (!rendered.ok()) return 0;
  EXPECT_FUZZ(rendered->text.size() <= kLimits.max_output_bytes);
  for (const auto& [begin, end] : rendered->generation_spans) {
    EXPECT_FUZZ(begin <= end && end <= rendered->text.size());
  }
  return 0;
}
