// TextPiece: a stretch of text on its way through the pipeline, which knows
// from which bytes of the input each of its bytes came.
//
// Pieces are views. As long as nothing rewrites the text they point into the
// input and need no table (byte i came from byte base + i); a Rewriter makes a
// new text with a table, kept alive by the TextArena of the call.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace tundra {

// Bytes [begin, end) of the input.
struct Origin {
  uint32_t begin = 0, end = 0;
};

struct TextPiece {
  std::string_view text;            // valid UTF-8
  const Origin* origins = nullptr;  // one a byte of text; null: byte i is input byte base + i
  uint32_t base = 0;                // where in the input the piece starts
  int32_t token = -1;               // an added token's id, or -1: still to be tokenized

  // The part [begin, end), which must be on character boundaries.
  TextPiece Slice(size_t begin, size_t end) const;

  // Where the character that holds byte i came from.
  Origin OriginAt(size_t i) const;
};

// Owns what pieces of one Encode call point to.
class TextArena {
 public:
  // A rewritten text may not grow past this.
  static constexpr size_t kMaxTextBytes = size_t{2} << 30;

  friend class Rewriter;

 private:
  std::deque<std::string> texts_;
  std::deque<std::vector<Origin>> origins_;
};

// Writes a new text for a piece, left to right.
class Rewriter {
 public:
  explicit Rewriter(const TextPiece& from);
  // Copies the bytes [begin, end) of the old text.
  void Keep(size_t begin, size_t end);
  // Writes `text`, which came from `origin`.
  void Insert(std::string_view text, Origin origin);
  // The new piece, at the old one's place. Errors: kResourceExhausted when it grew too large.
  absl::Status Finish(TextArena& arena, TextPiece& piece);

 private:
  const TextPiece from_;
  std::string text_;
  std::vector<Origin> origins_;
  bool too_large_ = false;
};

}  // namespace tundra
