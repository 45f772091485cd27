// TokenizerConfig: what Tundra needs of `tokenizer_config.json` and the files
// that may stand beside it: the names of the special tokens, whether BOS and
// EOS are added, and the chat templates. Everything else in those files is
// left alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tundra {

struct NamedChatTemplate {
  std::string name;  // "default", "tool_use", "rag", …
  std::string source;
};

// Contents of the files of a base folder; nullopt where a file is not there.
struct TokenizerConfigFiles {
  std::optional<std::string_view> tokenizer_config_json;
  std::optional<std::string_view> special_tokens_map_json;
  std::optional<std::string_view> chat_template_jinja;  // chat_template.jinja
  std::optional<std::string_view> chat_template_json;   // chat_template.json
};

struct TokenizerConfig {
  // Token strings, or nullopt where the files name none (null counts as none).
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<std::string> pad_token;
  std::optional<std::string> unk_token;
  std::vector<std::string> additional_special_tokens;

  // nullopt: not stated; the post-processor of tokenizer.json decides.
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;

  // Tokens; nullopt when absent or the "very large integer" that Transformers
  // writes for "no limit".
  std::optional<int64_t> model_max_length;

  // chat_template.jinja wins over chat_template.json wins over the key
  // `chat_template` of tokenizer_config.json, as in Transformers. A single
  // template has the name "default". Empty: the base has none.
  std::vector<NamedChatTemplate> chat_templates;

  // The template of that name, or nullptr.
  const std::string* FindChatTemplate(std::string_view template_name) const;
  // "default", or the only one there is; nullptr when there is none.
  const std::string* DefaultChatTemplate() const;

  static constexpr size_t kMaxFileBytes = size_t{64} << 20;

  // `folder` is named in messages. No file at all gives an empty configuration.
  // Errors: kInvalidArgument naming file, key and remedy.
  static absl::StatusOr<TokenizerConfig> FromFiles(const TokenizerConfigFiles& files,
                                                   std::string_view folder);
};

}  // namespace tundra
