// TextPiece: a stretch of text on its way through the pipeline, which knows
// from which bytes of the input each of its bytes came.
//
// Pieces are views. As long as nothing rewrites the text they point into the
// input and need no table (byte i came from byte base + i); a Rewriter makes a
// new text with a table, kept alive by the TextArena of the call.
#pragma once

#include <cstdint>
#include <memory>
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

// Owns what pieces of one Encode call point to, and bounds it, so that a tokenizer.json
// whose normalizer multiplies the text can't take all memory.
class TextArena {
 public:
  // For an input of so many bytes: 64 times as many, at least 1 MiB and at most 1 GiB.
  explicit TextArena(size_t input_bytes);

  // How many rewritten texts it holds; and frees all but the newest of those behind the
  // first `count`, which nothing may point to any more.
  size_t size() const { return texts_.size(); }
  void KeepNewest(size_t count);

 private:
  friend class Rewriter;
  struct Text {
    std::string text;
    std::vector<Origin> origins;
    // With what allocating them costs.
    size_t bytes() const {
      return sizeof(Text) + 64 + text.capacity() + origins.capacity() * sizeof(Origin);
    }
  };
  std::vector<std::unique_ptr<Text>> texts_;
  size_t left_;  // bytes of texts and their tables that may still be made
};

// Writes a new text for a piece, left to right.
class Rewriter {
 public:
  Rewriter(const TextPiece& from, TextArena& arena);
  // Copies the bytes [begin, end) of the old text.
  void Keep(size_t begin, size_t end);
  // Writes `text`, which came from `origin`.
  void Insert(std::string_view text, Origin origin);
  // Bytes written so far.
  size_t size() const { return made_->text.size(); }
  // The new piece, at the old one's place. Errors: kResourceExhausted when the arena has no
  // room for it.
  absl::Status Finish(TextPiece& piece);

 private:
  bool Fits(size_t more_bytes);

  const TextPiece from_;
  TextArena& arena_;
  std::unique_ptr<TextArena::Text> made_;
  bool too_large_ = false;
};

}  // namespace tundra
