#include "common/text/chat_template.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/template.h"
#include "common/text/jinja/unicode.h"
#include "common/text/jinja/value.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;

absl::Status ToStatus(const jinja::Error& error, const std::string& name, int line) {
  const std::string message =
      jinja::Cat(name, ":", error.line > 0 ? error.line : line, ": ", error.message);
  return error.over_limit ? absl::ResourceExhaustedError(message)
                          : absl::InvalidArgumentError(message);
}

// The names that a message's reasoning goes by. As Transformers, "reasoning_content"
// is filled from the others, and "thinking" too.
Json AliasReasoning(const Json& message) {
  const Json* reasoning = nullptr;
  for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
    const auto it = message.find(key);
    if (it != message.end() && !it->is_null()) {
      reasoning = &*it;
      break;
    }
  }
  if (reasoning == nullptr) return message;
  Json aliased = Json::object();
  aliased["thinking"] = *reasoning;
  for (const auto& [key, value] : message.items()) aliased[key] = value;
  aliased["reasoning_content"] = *reasoning;
  return aliased;
}

// Copying and walking JSON recurses, so its depth is bounded first.
bool TooDeep(const Json& json, int left) {
  if (!json.is_structured()) return false;
  if (left == 0) return true;
  for (const Json& item : json) {
    if (TooDeep(item, left - 1)) return true;
  }
  return false;
}

absl::StatusOr<Json> PrepareMessages(const ChatInput& input) {
  if (!input.messages.is_array()) return absl::InvalidArgumentError("messages must be a list");
  Json prepared = Json::array();
  for (const Json& message : input.messages) {
    if (!message.is_object()) return absl::InvalidArgumentError("each message must be an object");
    Json kept = Json::object();
    for (const auto& [key, value] : message.items()) {
      if (!input.drop_null_keys || !value.is_null()) kept[key] = value;
    }
    prepared.push_back(AliasReasoning(kept));
  }
  return prepared;
}

absl::Status CheckList(const Json& list, const char* what) {
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return absl::InvalidArgumentError(jinja::Cat(what, " must be a list"));
  for (const Json& item : list) {
    if (!item.is_object()) {
      return absl::InvalidArgumentError(jinja::Cat(what, " must be a list of objects"));
    }
  }
  return absl::OkStatus();
}

void SetVariables(const ChatInput& input, const Json& messages, jinja::Interpreter* interpreter) {
  for (const auto& [key, token] : input.special_tokens) {
    interpreter->SetVariable(key, jinja::Value::String(token));
  }
  if (input.variables.is_object()) {
    for (const auto& [key, value] : input.variables.items()) {
      interpreter->SetVariable(key, jinja::Value::FromJson(value));
    }
  }
  interpreter->SetVariable("messages", jinja::Value::FromJson(messages));
  interpreter->SetVariable("tools", jinja::Value::FromJson(input.tools));
  interpreter->SetVariable("documents", jinja::Value::FromJson(input.documents));
  interpreter->SetVariable("add_generation_prompt",
                           jinja::Value::Bool(input.add_generation_prompt));
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const jinja::Template> parsed)
    : template_(std::move(parsed)) {}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string source, std::string name) {
  try {
    return ChatTemplate(jinja::Template::Compile(std::move(source), name));
  } catch (const jinja::Error& error) {
    return ToStatus(error, name, 1);
  }
}

absl::StatusOr<RenderedChat> ChatTemplate::Render(const ChatInput& input,
                                                  const RenderLimits& limits,
                                                  uint64_t* steps_left) const {
  constexpr int kMaxInputDepth = 100;
  for (const Json* json : {&input.messages, &input.tools, &input.documents, &input.variables}) {
    if (TooDeep(*json, kMaxInputDepth)) {
      return absl::InvalidArgumentError("the conversation is nested more than 100 deep");
    }
  }
  absl::StatusOr<Json> messages = PrepareMessages(input);
  if (!messages.ok()) return messages.status();
  if (absl::Status status = CheckList(input.tools, "tools"); !status.ok()) return status;
  if (absl::Status status = CheckList(input.documents, "documents"); !status.ok()) return status;
  const absl::Time now = input.now == absl::InfinitePast() ? absl::Now() : input.now;
  const uint64_t max_steps = steps_left != nullptr ? *steps_left : limits.max_steps;
  const jinja::Budget budget(max_steps, limits.max_work_bytes, limits.max_output_bytes);
  const absl::Cleanup account = [&] {
    if (steps_left == nullptr) return;
    const uint64_t made = (limits.max_work_bytes - budget.work_bytes_left()) / 1024;
    *steps_left = budget.steps_left() - std::min(budget.steps_left(), made);
  };
  jinja::Interpreter interpreter(*template_, now, input.zone, limits.max_depth);
  try {
    SetVariables(input, *messages, &interpreter);
    RenderedChat rendered;
    rendered.text = interpreter.Run();
    rendered.generation_spans = interpreter.GenerationSpans(rendered.text);
    return rendered;
  } catch (const jinja::Error& error) {
    return ToStatus(error, template_->name(), interpreter.line());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(jinja::Cat(template_->name(), ": out of memory"));
  }
}

bool ChatTemplate::has_generation_blocks() const { return template_->has_generation(); }

const std::string& ChatTemplate::source() const { return template_->source(); }

}  // namespace tundra
