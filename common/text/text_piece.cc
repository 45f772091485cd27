#include "common/text/text_piece.h"

#include <utility>

#include "common/text/unicode.h"

namespace tundra {

TextPiece TextPiece::Slice(size_t begin, size_t end) const {
  TextPiece out;
  out.text = text.substr(begin, end - begin);
  if (origins == nullptr) {
    out.base = base + static_cast<uint32_t>(begin);
  } else {
    out.origins = origins + begin;
    out.base = begin < end ? origins[begin].begin : base;
  }
  return out;
}

Origin TextPiece::OriginAt(size_t i) const {
  if (origins != nullptr) return origins[i];
  while (i > 0 && IsUtf8Continuation(text[i])) --i;
  const auto begin = static_cast<uint32_t>(base + i);
  return {begin, begin + static_cast<uint32_t>(Utf8Length(text[i]))};
}

Rewriter::Rewriter(const TextPiece& from) : from_(from) {
  text_.reserve(from.text.size() + 16);
  origins_.reserve(from.text.size() + 16);
}

void Rewriter::Keep(size_t begin, size_t end) {
  if (begin == end || too_large_) return;
  if (text_.size() + (end - begin) > TextArena::kMaxTextBytes) {
    too_large_ = true;
    return;
  }
  text_.append(from_.text.substr(begin, end - begin));
  if (from_.origins != nullptr) {
    origins_.insert(origins_.end(), from_.origins + begin, from_.origins + end);
    return;
  }
  for (size_t i = begin; i < end;) {
    const size_t length = Utf8Length(from_.text[i]);
    const auto at = static_cast<uint32_t>(from_.base + i);
    origins_.insert(origins_.end(), length, Origin{at, at + static_cast<uint32_t>(length)});
    i += length;
  }
}

void Rewriter::Insert(std::string_view text, Origin origin) {
  if (too_large_) return;
  if (text_.size() + text.size() > TextArena::kMaxTextBytes) {
    too_large_ = true;
    return;
  }
  text_.append(text);
  origins_.insert(origins_.end(), text.size(), origin);
}

absl::Status Rewriter::Finish(TextArena& arena, TextPiece& piece) {
  if (too_large_) {
    return absl::ResourceExhaustedError(
        "tokenizer: normalizing the text makes it longer than 2 GiB; encode it in smaller parts");
  }
  arena.texts_.push_back(std::move(text_));
  arena.origins_.push_back(std::move(origins_));
  piece.text = arena.texts_.back();
  piece.origins = arena.origins_.back().data();
  return absl::OkStatus();
}

}  // namespace tundra
