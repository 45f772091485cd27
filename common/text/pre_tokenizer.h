// PreTokenizer: the `pre_tokenizer` of a tokenizer.json, which cuts text into
// the words that the model sees one at a time.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/json_view.h"
#include "common/text/text_piece.h"

namespace tundra {

// Immutable; thread-safe.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Replaces each piece that is not an added token by its parts; empty parts
  // are dropped.
  virtual absl::Status Apply(TextArena& arena, std::vector<TextPiece>& pieces) const = 0;
};

struct ParsedPreTokenizer {
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  // The last step is ByteLevel. Its rewriting of bytes as GPT-2's visible
  // characters has been left to the model, which does it only for words that
  // its cache does not know.
  bool model_reads_bytes = false;
};

// Supported: Sequence, ByteLevel, Split, Metaspace, Digits, Whitespace,
// WhitespaceSplit, Punctuation, CharDelimiterSplit.
// Errors: kInvalidArgument, kUnimplemented.
absl::StatusOr<ParsedPreTokenizer> ParsePreTokenizer(const JsonView& json);

}  // namespace tundra
