#include "common/text/tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/text_piece.h"
#include "common/text/tokenizer_json.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

constexpr std::string_view kReplacement = "\uFFFD";

// Appends the tokens of one word, and where they come from.
class WordEncoder {
 public:
  WordEncoder(const Bpe& model, PostProcessed& out) : model_(model), out_(out) {}

  absl::Status Add(const TextPiece& piece) {
    if (piece.token >= 0) {
      out_.encoding.ids.push_back(piece.token);
      if (out_.with_offsets) AddOffsets(piece, 0, piece.text.size(), piece.text);
      return absl::OkStatus();
    }
    if (piece.text.empty()) return absl::OkStatus();
    tokens_.clear();
    RETURN_IF_ERROR(model_.Encode(piece.text, tokens_));
    size_t begin = 0;
    for (const WordToken& token : tokens_) {
      out_.encoding.ids.push_back(token.id);
      const size_t end = begin + token.length;
      if (out_.with_offsets) AddOffsets(piece, begin, end, *model_.IdToToken(token.id));
      begin = end;
    }
    return absl::OkStatus();
  }

 private:
  void AddOffsets(const TextPiece& piece, size_t begin, size_t end, std::string_view token) {
    auto& offsets = out_.encoding.offsets;
    out_.blanks.push_back(CountEdgeBlanks(token));
    if (begin >= end || end > piece.text.size()) {  // a part of a character already counted
      const uint32_t at = offsets.empty() ? piece.base : offsets.back().second;
      offsets.emplace_back(at, at);
      return;
    }
    offsets.emplace_back(piece.OriginAt(begin).begin, piece.OriginAt(end - 1).end);
  }

  const Bpe& model_;
  PostProcessed& out_;
  std::vector<WordToken> tokens_;
};

// Added tokens are cut out of the raw text, then of the normalized text.
absl::Status CutAddedTokens(const TokenizerParts& parts, std::string_view text, TextArena& arena,
                            std::vector<TextPiece>& pieces) {
  TextPiece whole;
  whole.text = text;
  std::vector<TextPiece> raw;
  parts.added->raw_matcher().Split(whole, raw);
  for (TextPiece& piece : raw) {
    if (piece.token >= 0) {
      pieces.push_back(piece);
      continue;
    }
    if (parts.normalizer != nullptr) RETURN_IF_ERROR(parts.normalizer->Apply(arena, piece));
    parts.added->normalized_matcher().Split(piece, pieces);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json,
                                                               std::string_view name) {
  ASSIGN_OR_RETURN(std::unique_ptr<TokenizerParts> parts, ParseTokenizerJson(tokenizer_json, name));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

Tokenizer::Tokenizer(std::unique_ptr<TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

absl::Status Tokenizer::EncodeInto(std::string_view utf8, bool add_special_tokens,
                                   bool with_offsets, Encoding& out) const {
  if (utf8.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer: a text of ", utf8.size(),
                                                   " bytes; at most ", kMaxTextBytes,
                                                   " are encoded at once. Split it"));
  }
  if (const size_t valid = ValidUtf8Prefix(utf8); valid != utf8.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenizer: the text is not valid UTF-8 at byte ", valid, "; convert it to UTF-8"));
  }
  TextArena arena(utf8.size());
  std::vector<TextPiece> pieces;
  RETURN_IF_ERROR(CutAddedTokens(*parts_, utf8, arena, pieces));
  if (parts_->pre_tokenizer != nullptr)
    RETURN_IF_ERROR(parts_->pre_tokenizer->Apply(arena, pieces));
  PostProcessed processed;
  processed.with_offsets = with_offsets;
  processed.encoding.ids.reserve(pieces.size() + pieces.size() / 4 + 4);
  WordEncoder encoder(*parts_->model, processed);
  for (const TextPiece& piece : pieces) RETURN_IF_ERROR(encoder.Add(piece));
  if (parts_->post_processor != nullptr)
    parts_->post_processor->Apply(add_special_tokens, processed);
  out = std::move(processed.encoding);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view utf8,
                                                       bool add_special_tokens) const {
  Encoding encoding;
  RETURN_IF_ERROR(EncodeInto(utf8, add_special_tokens, false, encoding));
  return std::move(encoding.ids);
}

absl::StatusOr<Encoding> Tokenizer::EncodeWithOffsets(std::string_view utf8,
                                                      bool add_special_tokens) const {
  Encoding encoding;
  RETURN_IF_ERROR(EncodeInto(utf8, add_special_tokens, true, encoding));
  return encoding;
}

const std::string* Tokenizer::DecodedToken(int32_t id, bool skip_special_tokens) const {
  const std::string* token = parts_->IdToToken(id);
  if (token == nullptr) return nullptr;
  // By the string and not by the id, as the reference does.
  return skip_special_tokens && parts_->added->IsSpecialContent(*token) ? nullptr : token;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* token = DecodedToken(id, skip_special_tokens);
    if (token != nullptr) tokens.push_back(*token);
  }
  std::string text;
  if (parts_->decoder == nullptr) {
    for (size_t i = 0; i < tokens.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : " ", tokens[i]);
    return text;
  }
  // A decoder undoes what a normalizer did; one that multiplies the text is stopped.
  size_t bytes = 4096;
  for (const std::string& token : tokens) bytes += 16 * token.size();
  parts_->decoder->Apply(tokens, bytes);
  for (const std::string& part : tokens) text.append(part);
  return text;
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const AddedToken* added = parts_->added->FindByContent(token);
  if (added != nullptr) return added->id;
  return parts_->model->TokenToId(token);
}

std::string Tokenizer::IdToToken(int32_t id) const {
  const std::string* token = parts_->IdToToken(id);
  return token == nullptr ? std::string() : *token;
}

int Tokenizer::vocab_size() const {
  int32_t max_id = parts_->model->max_id();
  for (const AddedToken& token : parts_->added->tokens()) max_id = std::max(max_id, token.id);
  return max_id + 1;
}

int Tokenizer::token_count() const {
  size_t count = parts_->model->size();
  for (const AddedToken& token : parts_->added->tokens()) {
    if (!parts_->model->TokenToId(token.content)) ++count;
  }
  return static_cast<int>(count);
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const AddedToken* token = parts_->added->FindById(id);
  return token != nullptr && token->special;
}

std::string StreamDecoder::NewText() const {
  const absl::Span<const int32_t> ids(ids_);
  const std::string before = tokenizer_.Decode(ids.subspan(0, read_), skip_special_tokens_);
  std::string all = tokenizer_.Decode(ids, skip_special_tokens_);
  if (std::string_view(all).starts_with(before)) return all.substr(before.size());
  // A run of byte tokens has turned invalid, and what was given out with it.
  return tokenizer_.Decode(ids.subspan(read_), skip_special_tokens_);
}

std::string StreamDecoder::Put(int32_t id) {
  // A run of bytes that never becomes a character is given out at this length.
  constexpr size_t kMaxWaiting = 64;
  // An id that Decode leaves out must not stand as context for the next one.
  if (tokenizer_.DecodedToken(id, skip_special_tokens_) == nullptr) return "";
  ids_.push_back(id);
  std::string text = NewText();
  const bool unfinished = std::string_view(text).ends_with(kReplacement);
  if (unfinished && ids_.size() - read_ < kMaxWaiting) return "";
  // The last tokens stay as context: a first token decodes differently.
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(read_));
  read_ = ids_.size();
  return text;
}

std::string StreamDecoder::Finish() {
  std::string text = NewText();
  ids_.clear();
  read_ = 0;
  return text;
}

}  // namespace tundra
