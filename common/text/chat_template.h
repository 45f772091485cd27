// A base's chat template: the Jinja text beside its tokenizer that turns a
// conversation into the exact text the model was trained on. Renders as
// Transformers' render_jinja_template does (trim_blocks, lstrip_blocks, loop
// controls, {% generation %}, tojson, raise_exception, strftime_now, and a
// sandbox that sees data only). The language itself lives in common/text/jinja.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tundra {

namespace jinja {
class Template;
}

// What a template sees. A field that is null is passed as none.
struct ChatInput {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  nlohmann::ordered_json tools;      // null or a list of JSON schemas
  nlohmann::ordered_json documents;  // null or a list of objects
  bool add_generation_prompt = false;

  // Named special tokens (bos_token, eos_token, pad_token, …) as Transformers'
  // special_tokens_map passes them: a token the tokenizer lacks is not a variable.
  std::map<std::string, std::string> special_tokens;

  // Further variables (Transformers' chat_template_kwargs), an object. They
  // replace special tokens of the same name.
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();

  // As apply_chat_template does before rendering: keys of a message whose value
  // is null are dropped. False passes the messages as they are.
  bool drop_null_keys = true;

  // What strftime_now formats, in `zone`. The default is the time of the call.
  absl::Time now = absl::InfinitePast();
  absl::TimeZone zone = absl::LocalTimeZone();
};

struct RenderedChat {
  std::string text;
  // What {% generation %} blocks wrote: [begin, end) byte offsets into text, in
  // the order Transformers reports them.
  std::vector<std::pair<size_t, size_t>> generation_spans;
};

// Bounds on one rendering, so that a hostile template can neither hang nor
// exhaust the process. Exceeding one is kResourceExhausted.
struct RenderLimits {
  uint64_t max_steps = 20'000'000;              // expressions and statements evaluated
  uint64_t max_output_bytes = 64u << 20;        // of the text, and of any one string
  uint64_t max_work_bytes = uint64_t{1} << 30;  // of all strings and lists made
  int max_depth = 200;                          // macro calls and recursive loops within each other
};

// A conversation as templates see it, made once and rendered any number of times.
// Immutable; copies share what they hold.
class PreparedChat {
 public:
  // Errors: kInvalidArgument for what is no conversation, or is nested too deeply.
  static absl::StatusOr<PreparedChat> Make(const ChatInput& input);
  // With another message in place i.
  absl::StatusOr<PreparedChat> Replaced(size_t i, const nlohmann::ordered_json& message) const;

 private:
  friend class ChatTemplate;
  struct Parts;
  explicit PreparedChat(std::shared_ptr<const Parts> parts);
  std::shared_ptr<const Parts> parts_;
};

// Immutable and thread-safe; copies share the parsed template.
class ChatTemplate {
 public:
  // `name` appears in errors, as "NAME:LINE: what".
  // Errors: kInvalidArgument for what Jinja would refuse to compile.
  static absl::StatusOr<ChatTemplate> Parse(std::string source, std::string name);

  // Errors: kInvalidArgument when the template raises (raise_exception included,
  // its message kept) or misuses a value; kResourceExhausted over a limit.
  // steps_left, where given, stands for limits.max_steps and is lowered by what this took,
  // errors included; 1 KiB of data made counts as a step there. So one allowance can serve
  // many renderings.
  absl::StatusOr<RenderedChat> Render(const ChatInput& input,
                                      const RenderLimits& limits = RenderLimits(),
                                      uint64_t* steps_left = nullptr) const;
  // The same of the first messages of a conversation.
  absl::StatusOr<RenderedChat> Render(const PreparedChat& chat, size_t messages,
                                      bool add_generation_prompt, const RenderLimits& limits,
                                      uint64_t* steps_left = nullptr) const;

  // Whether a {% generation %} block occurs: then its spans are the assistant's.
  bool has_generation_blocks() const;
  const std::string& source() const;

 private:
  explicit ChatTemplate(std::shared_ptr<const jinja::Template> parsed);
  std::shared_ptr<const jinja::Template> template_;
};

}  // namespace tundra
