// AddedTokens: the `added_tokens` of a tokenizer.json, which are cut out of the
// text before anything else sees it: <|im_start|>, [INST], runs of blanks, …
//
// Two passes, as the reference does it: tokens with normalized = false are
// looked for in the raw text; then, after normalization, the others in the
// text between (their own strings normalized too). In each pass the leftmost
// match wins, and of those the longest.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/bpe.h"
#include "common/text/json_view.h"
#include "common/text/normalizer.h"
#include "common/text/text_piece.h"

namespace tundra {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // swallows the blanks on its left
  bool rstrip = false;       // … on its right
  bool normalized = false;
  bool special = false;  // left out by Decode when asked
  // What the id decodes to: the content, normalized where `normalized` says so.
  std::string decoded;
};

// Finds tokens of one pass. Immutable; thread-safe.
class AddedTokenMatcher {
 public:
  // `pattern` is what to look for. Of equal patterns the first one counts.
  void Add(std::string_view pattern, const AddedToken* token);
  // Appends the parts of `piece`: tokens, and the text between them.
  void Split(const TextPiece& piece, std::vector<TextPiece>& out) const;

 private:
  struct Match {
    size_t begin, end;
    const AddedToken* token;
  };
  // The leftmost-longest match that begins at or after `from`; token = nullptr: none.
  Match Next(std::string_view text, size_t from) const;

  // A trie: node << 8 | byte -> node; node 0 is the root.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<const AddedToken*> ends_{nullptr};  // by node
  std::array<bool, 256> starts_{};
};

class AddedTokens {
 public:
  static constexpr size_t kMaxTokens = 1 << 20;
  static constexpr size_t kMaxContentBytes = 4096;

  // `list` is the member `added_tokens`. The ids in the file must be those the
  // reference gives: a token of the model keeps its id, others count on.
  // Errors: kInvalidArgument naming the element.
  static absl::StatusOr<std::unique_ptr<AddedTokens>> Parse(const JsonView& list, const Bpe& model,
                                                            const Normalizer* normalizer);

  const AddedToken* FindByContent(std::string_view content) const;
  const AddedToken* FindById(int32_t id) const;
  bool IsSpecialContent(std::string_view content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

  const AddedTokenMatcher& raw_matcher() const { return raw_; }
  const AddedTokenMatcher& normalized_matcher() const { return normalized_; }

 private:
  absl::Status ParseToken(const JsonView& json, const Bpe& model, int32_t& max_added);
  absl::Status BuildMatchers(const JsonView& list, const Normalizer* normalizer);

  std::vector<AddedToken> tokens_;  // fixed once parsed: matchers point into it
  absl::flat_hash_map<std::string, size_t> by_content_;
  absl::flat_hash_map<int32_t, size_t> by_id_;
  AddedTokenMatcher raw_, normalized_;
};

}  // namespace tundra
