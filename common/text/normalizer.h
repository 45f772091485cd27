// Normalizer: the `normalizer` of a tokenizer.json, which rewrites text before
// it is cut into words.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/json_view.h"
#include "common/text/text_piece.h"

namespace tundra {

// Immutable; thread-safe.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Rewrites the piece; `arena` owns the new text.
  virtual absl::Status Apply(TextArena& arena, TextPiece& piece) const = 0;
};

// Supported: Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase,
// Strip, StripAccents, ByteLevel. Errors: kInvalidArgument, kUnimplemented.
absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const JsonView& json);

}  // namespace tundra
