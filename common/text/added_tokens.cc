#include "common/text/added_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

bool WordBefore(std::string_view text, size_t pos) {
  return pos > 0 && IsWord(PreviousCodePoint(text, pos));
}

bool WordAt(std::string_view text, size_t pos) {
  return pos < text.size() && IsWord(NextCodePoint(text, pos));
}

size_t SkipBlanksLeft(std::string_view text, size_t pos, size_t limit) {
  while (pos > limit) {
    size_t previous = pos;
    if (!IsWhitespace(PreviousCodePoint(text, previous))) break;
    pos = previous;
  }
  return std::max(pos, limit);
}

size_t SkipBlanksRight(std::string_view text, size_t pos) {
  while (pos < text.size()) {
    size_t next = pos;
    if (!IsWhitespace(NextCodePoint(text, next))) break;
    pos = next;
  }
  return pos;
}

}  // namespace

void AddedTokenMatcher::Add(std::string_view pattern, const AddedToken* token) {
  starts_[static_cast<unsigned char>(pattern[0])] = true;
  uint32_t node = 0;
  for (const char byte : pattern) {
    const uint64_t key = uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    const auto [it, is_new] = edges_.try_emplace(key, static_cast<uint32_t>(ends_.size()));
    if (is_new) ends_.push_back(nullptr);
    node = it->second;
  }
  if (ends_[node] == nullptr) ends_[node] = token;
}

AddedTokenMatcher::Match AddedTokenMatcher::Next(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    Match match{begin, begin, nullptr};
    uint32_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto it = edges_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
      if (it == edges_.end()) break;
      node = it->second;
      if (ends_[node] != nullptr) {
        match.end = i + 1;
        match.token = ends_[node];
      }
    }
    if (match.token != nullptr) return match;
  }
  return {text.size(), text.size(), nullptr};
}

void AddedTokenMatcher::Split(const TextPiece& piece, std::vector<TextPiece>& out) const {
  const std::string_view text = piece.text;
  if (text.empty()) return;
  size_t done = 0;
  for (size_t from = 0; !edges_.empty();) {
    const Match match = Next(text, from);
    if (match.token == nullptr) break;
    from = match.end;
    const AddedToken& token = *match.token;
    if (token.single_word && (WordBefore(text, match.begin) || WordAt(text, match.end))) continue;
    // Blanks that the token before swallowed stay with it.
    const size_t begin =
        std::max(done, token.lstrip ? SkipBlanksLeft(text, match.begin, done) : match.begin);
    const size_t end = token.rstrip ? SkipBlanksRight(text, match.end) : match.end;
    if (begin >= end) continue;
    if (done < begin) out.push_back(piece.Slice(done, begin));
    TextPiece found = piece.Slice(begin, end);
    found.token = token.id;
    out.push_back(found);
    done = end;
  }
  if (done == 0) {
    out.push_back(piece.Slice(0, text.size()));
  } else if (done < text.size()) {
    out.push_back(piece.Slice(done, text.size()));
  }
}

absl::StatusOr<std::unique_ptr<AddedTokens>> AddedTokens::Parse(const JsonView& list,
                                                                const Bpe& model,
                                                                const Normalizer* normalizer) {
  if (!list.IsArray()) return list.Invalid("a list is expected");
  if (list.size() > kMaxTokens) {
    return list.Invalid(absl::StrCat(list.size(), " tokens; the limit is ", kMaxTokens));
  }
  auto added = std::make_unique<AddedTokens>();
  added->tokens_.reserve(list.size());
  int32_t max_added = -1;
  for (size_t i = 0; i < list.size(); ++i) {
    ASSIGN_OR_RETURN(const JsonView json, list.At(i));
    RETURN_IF_ERROR(added->ParseToken(json, model, max_added));
  }
  RETURN_IF_ERROR(added->BuildMatchers(list, normalizer));
  return added;
}

absl::Status AddedTokens::ParseToken(const JsonView& json, const Bpe& model, int32_t& max_added) {
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, json.GetString("content"));
  if (token.content.empty()) return absl::OkStatus();  // the reference ignores it
  if (token.content.size() > kMaxContentBytes) {
    return json.Invalid(absl::StrCat("a token of ", token.content.size(), " bytes; the limit is ",
                                     kMaxContentBytes));
  }
  ASSIGN_OR_RETURN(const JsonView id, json.Get("id"));
  ASSIGN_OR_RETURN(const int64_t wide, id.AsInteger(0, Bpe::kMaxId));
  token.id = static_cast<int32_t>(wide);
  ASSIGN_OR_RETURN(token.special, json.GetBool("special", false));
  ASSIGN_OR_RETURN(token.normalized, json.GetBool("normalized", !token.special));
  ASSIGN_OR_RETURN(token.single_word, json.GetBool("single_word", false));
  ASSIGN_OR_RETURN(token.lstrip, json.GetBool("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, json.GetBool("rstrip", false));

  if (!by_content_.try_emplace(token.content, tokens_.size()).second) {
    return json.Invalid(absl::StrCat("'", token.content, "' is added twice; remove one"));
  }
  const auto model_size = static_cast<int32_t>(model.size());
  const int32_t next_id =
      max_added >= model_size || (model_size == 0 && max_added >= 0) ? max_added + 1 : model_size;
  const int32_t given_id = model.TokenToId(token.content).value_or(next_id);
  if (given_id != token.id) {
    return id.Invalid(absl::StrCat(
        "'", token.content, "' states id ", token.id, " but Hugging Face tokenizers gives it ",
        given_id,
        " (a token of the model keeps its id, others count on from the vocabulary's size); "
        "correct the id, or the order of added_tokens"));
  }
  by_id_.emplace(token.id, tokens_.size());
  max_added = std::max(max_added, token.id);
  tokens_.push_back(std::move(token));
  return absl::OkStatus();
}

absl::Status AddedTokens::BuildMatchers(const JsonView& list, const Normalizer* normalizer) {
  for (const bool special : {true, false}) {  // of equal patterns the special one counts
    for (AddedToken& token : tokens_) {
      if (token.special != special) continue;
      token.decoded = token.content;
      if (!token.normalized) {
        raw_.Add(token.content, &token);
        continue;
      }
      TextArena arena(token.content.size());
      TextPiece piece;
      piece.text = token.content;
      if (normalizer != nullptr) RETURN_IF_ERROR(normalizer->Apply(arena, piece));
      if (piece.text.empty()) {
        return list.Invalid(
            absl::StrCat("'", token.content,
                         "' is nothing once normalized, so it would match everywhere; "
                         "set its 'normalized' to false"));
      }
      token.decoded = std::string(piece.text);
      normalized_.Add(piece.text, &token);
    }
  }
  return absl::OkStatus();
}

const AddedToken* AddedTokens::FindByContent(std::string_view content) const {
  const auto it = by_content_.find(Absl(content));
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::FindById(int32_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

bool AddedTokens::IsSpecialContent(std::string_view content) const {
  const AddedToken* token = FindByContent(content);
  return token != nullptr && token->special;
}

}  // namespace tundra
