#include "common/text/chat_template.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "common/interrupt.h"
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

absl::StatusOr<jinja::Value> PrepareMessage(const Json& message, bool drop_null_keys) {
  if (!message.is_object()) return absl::InvalidArgumentError("each message must be an object");
  Json kept = Json::object();
  for (const auto& [key, value] : message.items()) {
    if (!drop_null_keys || !value.is_null()) kept[key] = value;
  }
  return jinja::Value::FromJson(AliasReasoning(kept));
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

constexpr int kMaxInputDepth = 100;

absl::Status TooDeepError() {
  return absl::InvalidArgumentError("the conversation is nested more than 100 deep");
}

}  // namespace

struct PreparedChat::Parts {
  std::vector<jinja::Value> messages;
  // Named; of two of one name the later counts.
  std::vector<std::pair<std::string, jinja::Value>> variables;
  bool drop_null_keys = true;
  absl::Time now;
  absl::TimeZone zone;
};

PreparedChat::PreparedChat(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<PreparedChat> PreparedChat::Make(const ChatInput& input) {
  for (const Json* json : {&input.messages, &input.tools, &input.documents, &input.variables}) {
    if (TooDeep(*json, kMaxInputDepth)) return TooDeepError();
  }
  if (!input.messages.is_array()) return absl::InvalidArgumentError("messages must be a list");
  if (absl::Status status = CheckList(input.tools, "tools"); !status.ok()) return status;
  if (absl::Status status = CheckList(input.documents, "documents"); !status.ok()) return status;
  auto parts = std::make_shared<Parts>();
  try {
    for (const Json& message : input.messages) {
      absl::StatusOr<jinja::Value> value = PrepareMessage(message, input.drop_null_keys);
      if (!value.ok()) return value.status();
      parts->messages.push_back(*std::move(value));
    }
    for (const auto& [key, token] : input.special_tokens) {
      parts->variables.emplace_back(key, jinja::Value::String(token));
    }
    if (input.variables.is_object()) {
      for (const auto& [key, value] : input.variables.items()) {
        parts->variables.emplace_back(key, jinja::Value::FromJson(value));
      }
    }
    parts->variables.emplace_back("tools", jinja::Value::FromJson(input.tools));
    parts->variables.emplace_back("documents", jinja::Value::FromJson(input.documents));
  } catch (const jinja::Error& error) {
    return absl::InvalidArgumentError(error.message);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("the conversation does not fit into memory");
  }
  parts->drop_null_keys = input.drop_null_keys;
  parts->now = input.now == absl::InfinitePast() ? absl::Now() : input.now;
  parts->zone = input.zone;
  return PreparedChat(std::move(parts));
}

absl::StatusOr<PreparedChat> PreparedChat::Replaced(size_t i, const Json& message) const {
  if (TooDeep(message, kMaxInputDepth)) return TooDeepError();
  auto parts = std::make_shared<Parts>(*parts_);
  absl::StatusOr<jinja::Value> value = PrepareMessage(message, parts->drop_null_keys);
  if (!value.ok()) return value.status();
  parts->messages.at(i) = *std::move(value);
  return PreparedChat(std::move(parts));
}

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
  const absl::StatusOr<PreparedChat> chat = PreparedChat::Make(input);
  if (!chat.ok()) return chat.status();
  return Render(*chat, chat->parts_->messages.size(), input.add_generation_prompt, limits,
                steps_left);
}

absl::StatusOr<RenderedChat> ChatTemplate::Render(const PreparedChat& chat, size_t messages,
                                                  bool add_generation_prompt,
                                                  const RenderLimits& limits,
                                                  uint64_t* steps_left) const {
  if (Interrupted()) return absl::ResourceExhaustedError("given up");
  const PreparedChat::Parts& parts = *chat.parts_;
  const uint64_t max_steps = steps_left != nullptr ? *steps_left : limits.max_steps;
  const jinja::Budget budget(max_steps, limits.max_work_bytes, limits.max_output_bytes);
  const absl::Cleanup account = [&] {
    if (steps_left == nullptr) return;
    const uint64_t made = (limits.max_work_bytes - budget.work_bytes_left()) / 1024;
    *steps_left = budget.steps_left() - std::min(budget.steps_left(), made);
  };
  jinja::Interpreter interpreter(*template_, parts.now, parts.zone, limits.max_depth);
  try {
    for (const auto& [name, value] : parts.variables) interpreter.SetVariable(name, value);
    const auto end =
        parts.messages.begin() + static_cast<ptrdiff_t>(std::min(messages, parts.messages.size()));
    interpreter.SetVariable("messages", jinja::Value::List({parts.messages.begin(), end}));
    interpreter.SetVariable("add_generation_prompt", jinja::Value::Bool(add_generation_prompt));
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
