#include "common/text/base_text.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/status.h"
#include "common/text/tokenizer.h"
#include "common/text/tokenizer_config.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;
using Files = std::map<std::string, std::string>;

std::optional<std::string_view> FindFile(const Files& files, const std::string& name) {
  const auto it = files.find(name);
  if (it == files.end()) return std::nullopt;
  return it->second;
}

absl::StatusOr<Json> ParseObject(std::string_view bytes, const std::string& path) {
  Json json = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a JSON object; copy the file anew"));
  }
  return json;
}

// An eos_token_id: one id or a list; null and absent give none.
absl::StatusOr<std::vector<int32_t>> ReadIds(const Json& json, const std::string& path) {
  std::vector<int32_t> ids;
  const auto it = json.find("eos_token_id");
  if (it == json.end() || it->is_null()) return ids;
  const Json list = it->is_array() ? *it : Json::array({*it});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": eos_token_id must be an id or a list of ids"));
    }
    ids.push_back(static_cast<int32_t>(id.get<int64_t>()));
  }
  return ids;
}

}  // namespace

BaseText::~BaseText() = default;

const std::vector<std::string>& BaseText::FileNames() {
  static const auto* const names = new std::vector<std::string>{
      "tokenizer.json",      "tokenizer_config.json", "special_tokens_map.json",
      "chat_template.jinja", "chat_template.json",    "generation_config.json",
      "config.json"};
  return *names;
}

std::string_view BaseText::Special(const std::string& key) const {
  const auto it = special_tokens_.find(key);
  return it == special_tokens_.end() ? std::string_view() : std::string_view(it->second);
}

absl::Status BaseText::ReadTokenizerConfig(const Files& files) {
  const TokenizerConfigFiles config_files{
      FindFile(files, "tokenizer_config.json"), FindFile(files, "special_tokens_map.json"),
      FindFile(files, "chat_template.jinja"), FindFile(files, "chat_template.json")};
  ASSIGN_OR_RETURN(const TokenizerConfig config, TokenizerConfig::FromFiles(config_files, name_));
  const auto keep = [&](const char* key, const std::optional<std::string>& token) {
    if (token.has_value()) special_tokens_[key] = *token;
  };
  keep("bos_token", config.bos_token);
  keep("eos_token", config.eos_token);
  keep("pad_token", config.pad_token);
  keep("unk_token", config.unk_token);
  add_bos_token_ = config.add_bos_token;
  add_eos_token_ = config.add_eos_token;
  const std::string* source = config.DefaultChatTemplate();
  const std::string* with_tools = config.FindChatTemplate("tool_use");
  if (source != nullptr) {
    ASSIGN_OR_RETURN(chat_template_, ChatTemplate::Parse(*source, name_ + "/chat_template"));
  }
  if (with_tools != nullptr) {
    ASSIGN_OR_RETURN(tool_template_,
                     ChatTemplate::Parse(*with_tools, name_ + "/chat_template.tool_use"));
  }
  for (const char* key : {"bos_token", "eos_token"}) {
    if (Special(key).empty()) continue;
    if (!tokenizer_->TokenToId(Special(key)).has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(name_, ": tokenizer_config.json names the ",
                                                     key, " '", std::string(Special(key)),
                                                     "', which tokenizer.json does not have"));
    }
  }
  if (!bos_token().empty()) bos_id_ = tokenizer_->TokenToId(bos_token());
  if (!eos_token().empty()) eos_id_ = tokenizer_->TokenToId(eos_token());
  return absl::OkStatus();
}

absl::Status BaseText::ReadStopIds(const Files& files) {
  for (const char* file : {"generation_config.json", "config.json"}) {
    const auto bytes = FindFile(files, file);
    if (!bytes.has_value() || !stop_ids_.empty()) continue;
    const std::string path = absl::StrCat(name_, "/", file);
    ASSIGN_OR_RETURN(const Json json, ParseObject(*bytes, path));
    ASSIGN_OR_RETURN(stop_ids_, ReadIds(json, path));
  }
  if (stop_ids_.empty() && eos_id_.has_value()) stop_ids_.push_back(*eos_id_);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const BaseText>> BaseText::FromFiles(const Files& files,
                                                                    const std::string& name) {
  std::shared_ptr<BaseText> text(new BaseText());
  text->name_ = name;
  const auto tokenizer_json = FindFile(files, "tokenizer.json");
  if (!tokenizer_json.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": no tokenizer.json; save the tokenizer with Transformers' save_pretrained"));
  }
  ASSIGN_OR_RETURN(text->tokenizer_,
                   Tokenizer::FromJson(*tokenizer_json, name + "/tokenizer.json"));
  RETURN_IF_ERROR(text->ReadTokenizerConfig(files));
  RETURN_IF_ERROR(text->ReadStopIds(files));
  return std::shared_ptr<const BaseText>(std::move(text));
}

absl::StatusOr<std::shared_ptr<const BaseText>> BaseText::FromFolder(const std::string& folder) {
  Files files;
  for (const std::string& name : FileNames()) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (!FileExists(path)) continue;
    ASSIGN_OR_RETURN(files[name], ReadFile(path, Tokenizer::kMaxJsonBytes));
  }
  return FromFiles(files, folder);
}

const ChatTemplate* BaseText::chat_template(bool with_tools) const {
  if (with_tools && tool_template_.has_value()) return &*tool_template_;
  return chat_template_.has_value() ? &*chat_template_ : nullptr;
}

ChatInput BaseText::NewChat() const {
  ChatInput chat;
  chat.special_tokens = special_tokens_;
  return chat;
}

absl::StatusOr<Encoding> BaseText::EncodeDocument(std::string_view utf8) const {
  ASSIGN_OR_RETURN(Encoding encoding, tokenizer_->EncodeWithOffsets(utf8, true));
  auto& ids = encoding.ids;
  auto& offsets = encoding.offsets;
  const auto insert = [&](size_t at, int32_t id) {
    ids.insert(ids.begin() + static_cast<ptrdiff_t>(at), id);
    offsets.insert(offsets.begin() + static_cast<ptrdiff_t>(at), {0, 0});
  };
  const auto erase = [&](size_t at) {
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(at));
    offsets.erase(offsets.begin() + static_cast<ptrdiff_t>(at));
  };
  const auto added = [&](size_t at) { return offsets[at].first == 0 && offsets[at].second == 0; };
  if (bos_id_.has_value()) {
    const bool starts = !ids.empty() && ids[0] == *bos_id_;
    if (!starts && add_bos_token_ == true) insert(0, *bos_id_);
    if (starts && added(0) && (add_bos_token_ == false || (ids.size() > 1 && ids[1] == *bos_id_)))
      erase(0);
  }
  if (eos_id_.has_value()) {
    const bool ends = !ids.empty() && ids.back() == *eos_id_;
    const size_t last = ids.size() - 1;
    if (!ends && add_eos_token_ == true) insert(ids.size(), *eos_id_);
    if (ends && added(last) && (add_eos_token_ == false || (last > 0 && ids[last - 1] == *eos_id_)))
      erase(last);
  }
  return encoding;
}

}  // namespace tundra
