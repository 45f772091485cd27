#include "common/text/text_piece.h"

#include <algorithm>
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

TextArena::TextArena(size_t input_bytes)
    : left_(std::clamp(input_bytes * 64, size_t{1} << 20, size_t{1} << 30)) {}

void TextArena::KeepNewest(size_t count) {
  if (texts_.size() < count + 2) return;
  const auto first = texts_.begin() + static_cast<ptrdiff_t>(count);
  for (auto text = first; text + 1 != texts_.end(); ++text) left_ += (*text)->bytes();
  texts_.erase(first, texts_.end() - 1);
}

Rewriter::Rewriter(const TextPiece& from, TextArena& arena)
    : from_(from), arena_(arena), made_(std::make_unique<TextArena::Text>()) {
  if (!Fits(from.text.size())) return;
  made_->text.reserve(from.text.size());
  made_->origins.reserve(from.text.size());
}

bool Rewriter::Fits(size_t more_bytes) {
  // Bytes of a text cost what they and their origins take.
  if (made_->text.size() + more_bytes > arena_.left_ / (1 + sizeof(Origin))) too_large_ = true;
  return !too_large_;
}

void Rewriter::Keep(size_t begin, size_t end) {
  if (begin == end || !Fits(end - begin)) return;
  made_->text.append(from_.text.substr(begin, end - begin));
  auto& origins = made_->origins;
  if (from_.origins != nullptr) {
    origins.insert(origins.end(), from_.origins + begin, from_.origins + end);
    return;
  }
  for (size_t i = begin; i < end;) {
    const size_t length = Utf8Length(from_.text[i]);
    const auto at = static_cast<uint32_t>(from_.base + i);
    origins.insert(origins.end(), length, Origin{at, at + static_cast<uint32_t>(length)});
    i += length;
  }
}

void Rewriter::Insert(std::string_view text, Origin origin) {
  if (!Fits(text.size())) return;
  made_->text.append(text);
  made_->origins.insert(made_->origins.end(), text.size(), origin);
}

absl::Status Rewriter::Finish(TextPiece& piece) {
  if (too_large_) {
    return absl::ResourceExhaustedError(
        "tokenizer: its normalizer makes this text many times longer; encode it in smaller parts, "
        "or use a base whose tokenizer.json doesn't");
  }
  arena_.left_ -= std::min(arena_.left_, made_->bytes());
  piece.text = made_->text;
  piece.origins = made_->origins.data();
  arena_.texts_.push_back(std::move(made_));
  return absl::OkStatus();
}

}  // namespace tundra
