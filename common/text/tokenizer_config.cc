#include "common/text/tokenizer_config.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/json_view.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

// A token is a string, or an object (AddedToken) with the string in `content`.
absl::StatusOr<std::string> ParseToken(const JsonView& json) {
  if (json.IsObject()) return json.GetString("content");
  if (!json.IsString()) return json.Invalid("a string, or an object with 'content', is expected");
  return json.AsString();
}

absl::Status ReadToken(const JsonView& root, std::string_view key,
                       std::optional<std::string>& out) {
  if (out) return absl::OkStatus();  // named by an earlier file
  const auto value = root.Find(key);
  if (!value) return absl::OkStatus();
  ASSIGN_OR_RETURN(out, ParseToken(*value));
  return absl::OkStatus();
}

// The members that tokenizer_config.json and special_tokens_map.json share.
absl::Status ReadTokens(const JsonView& root, TokenizerConfig& config) {
  RETURN_IF_ERROR(ReadToken(root, "bos_token", config.bos_token));
  RETURN_IF_ERROR(ReadToken(root, "eos_token", config.eos_token));
  RETURN_IF_ERROR(ReadToken(root, "pad_token", config.pad_token));
  RETURN_IF_ERROR(ReadToken(root, "unk_token", config.unk_token));
  // Transformers 5 writes `extra_special_tokens`, a list too; older releases
  // use that name for an object of named tokens.
  for (const std::string_view key : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto list = root.Find(key);
    if (!list || !list->IsArray() || !config.additional_special_tokens.empty()) continue;
    for (size_t i = 0; i < list->size(); ++i) {
      ASSIGN_OR_RETURN(const JsonView element, list->At(i));
      ASSIGN_OR_RETURN(std::string token, ParseToken(element));
      config.additional_special_tokens.push_back(std::move(token));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NamedChatTemplate>> ParseChatTemplates(const JsonView& json) {
  std::vector<NamedChatTemplate> templates;
  if (json.IsString()) {
    ASSIGN_OR_RETURN(std::string source, json.AsString());
    templates.push_back({"default", std::move(source)});
    return templates;
  }
  if (json.IsObject()) {  // {name: template}
    RETURN_IF_ERROR(json.ForEachMember([&](const std::string& name, const JsonView& value) {
      ASSIGN_OR_RETURN(std::string source, value.AsString());
      templates.push_back({name, std::move(source)});
      return absl::OkStatus();
    }));
    return templates;
  }
  if (!json.IsArray()) {
    return json.Invalid("a string, or a list of {name, template}, is expected");
  }
  for (size_t i = 0; i < json.size(); ++i) {
    ASSIGN_OR_RETURN(const JsonView element, json.At(i));
    ASSIGN_OR_RETURN(std::string name, element.GetString("name"));
    ASSIGN_OR_RETURN(std::string source, element.GetString("template"));
    for (const NamedChatTemplate& other : templates) {
      if (other.name == name) {
        return element.Invalid(
            absl::StrCat("the template '", name, "' is given twice; remove one"));
      }
    }
    templates.push_back({std::move(name), std::move(source)});
  }
  return templates;
}

absl::Status ReadTokenizerConfig(const JsonView& root, TokenizerConfig& config) {
  if (!root.IsObject()) return root.Invalid("an object is expected");
  RETURN_IF_ERROR(ReadTokens(root, config));
  for (const auto& [key, out] : {std::pair{"add_bos_token", &config.add_bos_token},
                                 std::pair{"add_eos_token", &config.add_eos_token}}) {
    if (const auto value = root.Find(key)) {
      ASSIGN_OR_RETURN(*out, value->AsBool());
    }
  }
  if (const auto value = root.Find("model_max_length")) {
    if (!value->IsNumber()) return value->Invalid("a number is expected");
    // "No limit" is written as int(1e30), which no integer here holds.
    const auto length = value->AsInteger(1, int64_t{1} << 48);
    if (length.ok()) config.model_max_length = *length;
  }
  if (const auto value = root.Find("chat_template")) {
    ASSIGN_OR_RETURN(config.chat_templates, ParseChatTemplates(*value));
  }
  return absl::OkStatus();
}

}  // namespace

const std::string* TokenizerConfig::FindChatTemplate(std::string_view template_name) const {
  for (const NamedChatTemplate& t : chat_templates) {
    if (t.name == template_name) return &t.source;
  }
  return nullptr;
}

const std::string* TokenizerConfig::DefaultChatTemplate() const {
  if (const std::string* found = FindChatTemplate("default")) return found;
  return chat_templates.size() == 1 ? &chat_templates[0].source : nullptr;
}

absl::StatusOr<TokenizerConfig> TokenizerConfig::FromFiles(const TokenizerConfigFiles& files,
                                                           std::string_view folder) {
  TokenizerConfig config;
  const auto path = [&](std::string_view file) {
    return absl::StrCat(Absl(folder), "/", Absl(file));
  };
  if (files.tokenizer_config_json) {
    const std::string name = path("tokenizer_config.json");
    ASSIGN_OR_RETURN(const JsonDocument document,
                     JsonDocument::Parse(*files.tokenizer_config_json, name, kMaxFileBytes));
    RETURN_IF_ERROR(ReadTokenizerConfig(document.root(), config));
  }
  if (files.special_tokens_map_json) {
    const std::string name = path("special_tokens_map.json");
    ASSIGN_OR_RETURN(const JsonDocument document,
                     JsonDocument::Parse(*files.special_tokens_map_json, name, kMaxFileBytes));
    if (!document.root().IsObject()) return document.root().Invalid("an object is expected");
    RETURN_IF_ERROR(ReadTokens(document.root(), config));
  }
  if (files.chat_template_jinja) {
    const std::string_view source = *files.chat_template_jinja;
    const std::string name = path("chat_template.jinja");
    if (source.size() > kMaxFileBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", source.size(), " bytes; at most ", kMaxFileBytes, " are read"));
    }
    if (const size_t valid = ValidUtf8Prefix(source); valid != source.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": not valid UTF-8 at byte ", valid, "; convert it to UTF-8"));
    }
    config.chat_templates = {{"default", std::string(source)}};
  } else if (files.chat_template_json) {
    const std::string name = path("chat_template.json");
    ASSIGN_OR_RETURN(const JsonDocument document,
                     JsonDocument::Parse(*files.chat_template_json, name, kMaxFileBytes));
    ASSIGN_OR_RETURN(const JsonView value, document.root().Get("chat_template"));
    ASSIGN_OR_RETURN(config.chat_templates, ParseChatTemplates(value));
  }
  return config;
}

}  // namespace tundra
