#include "common/text/normalizer.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/onig_regex.h"
#include "common/text/text_pattern_json.h"
#include "common/text/unicode.h"
#include "common/text/unicode_normalize.h"

namespace tundra {
namespace {

class Forms final : public Normalizer {
 public:
  explicit Forms(NormalizationForm form) : form_(form) {}
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    return Normalize(form_, arena, piece);
  }

 private:
  const NormalizationForm form_;
};

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    const size_t before = arena.size();
    for (const auto& step : steps_) {
      RETURN_IF_ERROR(step->Apply(arena, piece));
      arena.KeepNewest(before);  // only `piece` points into what a step made
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<std::unique_ptr<Normalizer>> steps_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    if (piece.text.empty()) return absl::OkStatus();
    Rewriter rewriter(piece, arena);
    rewriter.Insert(text_, piece.OriginAt(0));
    rewriter.Keep(0, piece.text.size());
    return rewriter.Finish(piece);
  }

 private:
  const std::string text_;
};

class Replace final : public Normalizer {
 public:
  Replace(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    Rewriter rewriter(piece, arena);
    size_t kept = 0;
    bool changed = false;
    RETURN_IF_ERROR(pattern_.ForEachMatch(piece.text, [&](size_t begin, size_t end) {
      changed = true;
      rewriter.Keep(kept, begin);
      const Origin origin = begin < end
                                ? Origin{piece.OriginAt(begin).begin, piece.OriginAt(end - 1).end}
                            : piece.text.empty() ? Origin{piece.base, piece.base}
                                                 : piece.OriginAt(begin > 0 ? begin - 1 : 0);
      rewriter.Insert(content_, origin);
      kept = end;
    }));
    if (!changed) return absl::OkStatus();
    rewriter.Keep(kept, piece.text.size());
    return rewriter.Finish(piece);
  }

 private:
  const TextPattern pattern_;
  const std::string content_;
};

// Character by character: each is kept, dropped or written as something else.
template <typename WriteCharacter>  // void(char32_t, std::string& out)
absl::Status MapCharacters(WriteCharacter write, TextArena& arena, TextPiece& piece) {
  Rewriter rewriter(piece, arena);
  std::string out;
  size_t kept = 0;
  bool changed = false;
  for (size_t begin = 0; begin < piece.text.size();) {
    size_t end = begin;
    const char32_t c = NextCodePoint(piece.text, end);
    out.clear();
    write(c, out);
    if (out != piece.text.substr(begin, end - begin)) {
      changed = true;
      rewriter.Keep(kept, begin);
      rewriter.Insert(out, piece.OriginAt(begin));
      kept = end;
    }
    begin = end;
  }
  if (!changed) return absl::OkStatus();
  rewriter.Keep(kept, piece.text.size());
  return rewriter.Finish(piece);
}

class Lowercase final : public Normalizer {
 public:
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    return MapCharacters(AppendLowercase, arena, piece);
  }
};

class StripAccents final : public Normalizer {
 public:
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    return MapCharacters(
        [](char32_t c, std::string& out) {
          if (!IsMark(c)) AppendUtf8(c, out);
        },
        arena, piece);
  }
};

class ByteLevel final : public Normalizer {
 public:
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    return MapCharacters(
        [](char32_t c, std::string& out) {
          std::string bytes;
          AppendUtf8(c, bytes);
          AppendByteLevel(bytes, out);
        },
        arena, piece);
  }
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  absl::Status Apply(TextArena& arena, TextPiece& piece) const override {
    size_t begin = 0, end = piece.text.size();
    while (left_ && begin < end) {
      size_t next = begin;
      if (!IsWhitespace(NextCodePoint(piece.text, next))) break;
      begin = next;
    }
    while (right_ && end > begin) {
      size_t previous = end;
      if (!IsWhitespace(PreviousCodePoint(piece.text, previous))) break;
      end = previous;
    }
    if (begin == 0 && end == piece.text.size()) return absl::OkStatus();
    Rewriter rewriter(piece, arena);
    rewriter.Keep(begin, end);
    return rewriter.Finish(piece);
  }

 private:
  const bool left_, right_;
};

// Each reads the whole text; real files have under ten.
constexpr int kMaxSteps = 64;

absl::StatusOr<std::unique_ptr<Normalizer>> ParseAtDepth(const JsonView& json, int depth,
                                                         int& steps_seen) {
  if (depth > 8) return json.Unsupported("sequences nested over 8 deep");
  if (++steps_seen > kMaxSteps) return json.Unsupported(absl::StrCat("over ", kMaxSteps, " steps"));
  ASSIGN_OR_RETURN(const std::string type, json.GetString("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonView list, json.Get("normalizers"));
    std::vector<std::unique_ptr<Normalizer>> steps;
    if (!list.IsArray()) return list.Invalid("a list is expected");
    for (size_t i = 0; i < list.size(); ++i) {
      ASSIGN_OR_RETURN(const JsonView element, list.At(i));
      ASSIGN_OR_RETURN(auto step, ParseAtDepth(element, depth + 1, steps_seen));
      steps.push_back(std::move(step));
    }
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "NFC") return std::make_unique<Forms>(NormalizationForm::kNfc);
  if (type == "NFD") return std::make_unique<Forms>(NormalizationForm::kNfd);
  if (type == "NFKC") return std::make_unique<Forms>(NormalizationForm::kNfkc);
  if (type == "NFKD") return std::make_unique<Forms>(NormalizationForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "Prepend") {
    ASSIGN_OR_RETURN(std::string text, json.GetString("prepend"));
    return std::make_unique<Prepend>(std::move(text));
  }
  if (type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, json.GetBool("strip_left", true));
    ASSIGN_OR_RETURN(const bool right, json.GetBool("strip_right", true));
    return std::make_unique<Strip>(left, right);
  }
  if (type == "Replace") {
    ASSIGN_OR_RETURN(TextPattern pattern, ParseTextPattern(json));
    ASSIGN_OR_RETURN(std::string content, json.GetString("content"));
    return std::make_unique<Replace>(std::move(pattern), std::move(content));
  }
  return json.Unsupported(absl::StrCat(
      "the normalizer '", type,
      "' is not supported (Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, "
      "StripAccents and ByteLevel are); use a base whose tokenizer needs only these"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const JsonView& json) {
  int steps_seen = 0;
  return ParseAtDepth(json, 0, steps_seen);
}

}  // namespace tundra
