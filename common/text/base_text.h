// Everything textual of a base: its tokenizer, special tokens, chat template and
// end-of-sequence ids, built from the small files of a Hugging Face folder. The
// coordinator builds it from bytes that a worker uploaded, a worker from disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/chat_template.h"

namespace tundra {

class Tokenizer;
struct Encoding;

// Immutable and thread-safe once made.
class BaseText {
 public:
  // File name (no folder) → bytes. Reads tokenizer.json (required),
  // tokenizer_config.json, special_tokens_map.json, chat_template.jinja,
  // chat_template.json, generation_config.json and config.json; others are ignored.
  // `name` appears in errors. Errors: kInvalidArgument with the file's name.
  static absl::StatusOr<std::shared_ptr<const BaseText>> FromFiles(
      const std::map<std::string, std::string>& files, const std::string& name);

  // The same from a folder. Errors: also kNotFound.
  static absl::StatusOr<std::shared_ptr<const BaseText>> FromFolder(const std::string& folder);

  // The names of the files that FromFiles reads, for whoever uploads them.
  static const std::vector<std::string>& FileNames();

  ~BaseText();

  const std::string& name() const { return name_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  // Null when the base has none (then `messages` rows are refused). A base with a
  // template named tool_use renders conversations with tools by it, as
  // Transformers does.
  const ChatTemplate* chat_template(bool with_tools = false) const;

  // bos_token, eos_token, pad_token, unk_token, … those that are set.
  const std::map<std::string, std::string>& special_tokens() const { return special_tokens_; }
  std::string_view bos_token() const { return Special("bos_token"); }  // "" when unset
  std::string_view eos_token() const { return Special("eos_token"); }
  std::optional<int32_t> bos_id() const { return bos_id_; }
  std::optional<int32_t> eos_id() const { return eos_id_; }

  // Ids that end a generation: generation_config.json's eos_token_id (one or a
  // list), else config.json's, else the tokenizer's. May be empty.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }

  // A ChatInput with the special tokens filled in.
  ChatInput NewChat() const;

  // Plain text as a whole document: the BOS and EOS that the post-processor or
  // tokenizer_config.json ask for around it, neither doubled where the text has
  // it already. Tokens added have the offsets (0, 0). (A rendered chat is encoded
  // by tokenizer() without special tokens instead: its template wrote them.)
  absl::StatusOr<Encoding> EncodeDocument(std::string_view utf8) const;

 private:
  BaseText() = default;
  std::string_view Special(const std::string& key) const;
  absl::Status ReadTokenizerConfig(const std::map<std::string, std::string>& files);
  absl::Status ReadStopIds(const std::map<std::string, std::string>& files);

  std::string name_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  std::optional<ChatTemplate> tool_template_;
  std::optional<bool> add_bos_token_;
  std::optional<bool> add_eos_token_;
  std::map<std::string, std::string> special_tokens_;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
  std::vector<int32_t> stop_ids_;
};

}  // namespace tundra
