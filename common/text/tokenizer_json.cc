#include "common/text/tokenizer_json.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/json_view.h"
#include "common/text/tokenizer.h"

namespace tundra {

const std::string* TokenizerParts::IdToToken(int32_t id) const {
  const AddedToken* token = added->FindById(id);
  return token != nullptr ? &token->decoded : model->IdToToken(id);
}

absl::StatusOr<std::unique_ptr<TokenizerParts>> ParseTokenizerJson(std::string_view json,
                                                                   std::string_view name) {
  ASSIGN_OR_RETURN(const JsonDocument document,
                   JsonDocument::Parse(json, name, Tokenizer::kMaxJsonBytes));
  const JsonView root = document.root();
  if (!root.IsObject()) return root.Invalid("not a tokenizer.json: an object is expected");
  auto parts = std::make_unique<TokenizerParts>();
  parts->name = std::string(name);
  if (const auto part = root.Find("normalizer")) {
    ASSIGN_OR_RETURN(parts->normalizer, ParseNormalizer(*part));
  }
  bool model_reads_bytes = false;
  if (const auto part = root.Find("pre_tokenizer")) {
    ASSIGN_OR_RETURN(ParsedPreTokenizer parsed, ParsePreTokenizer(*part));
    parts->pre_tokenizer = std::move(parsed.pre_tokenizer);
    model_reads_bytes = parsed.model_reads_bytes;
  }
  ASSIGN_OR_RETURN(const JsonView model, root.Get("model"));
  ASSIGN_OR_RETURN(parts->model, Bpe::Parse(model, model_reads_bytes));
  if (const auto part = root.Find("added_tokens")) {
    ASSIGN_OR_RETURN(parts->added,
                     AddedTokens::Parse(*part, *parts->model, parts->normalizer.get()));
  } else {
    parts->added = std::make_unique<AddedTokens>();
  }
  if (const auto part = root.Find("post_processor")) {
    const auto known = [&](int32_t id) { return parts->IdToToken(id) != nullptr; };
    ASSIGN_OR_RETURN(parts->post_processor, ParsePostProcessor(*part, known));
  }
  if (const auto part = root.Find("decoder")) {
    ASSIGN_OR_RETURN(parts->decoder, ParseTokenDecoder(*part));
  }
  return parts;
}

}  // namespace tundra
