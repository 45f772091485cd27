#include "common/text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/onig_regex.h"
#include "common/text/text_pattern_json.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

// What becomes of the text that a pattern matches ("-" in "a--b"):
enum class Behavior {
  kRemoved,             // a, b
  kIsolated,            // a, -, -, b
  kMergedWithPrevious,  // a-, -, b
  kMergedWithNext,      // a, -, -b
  kContiguous,          // a, --, b
};

// A stretch of the text; all of them together are the text.
struct Span {
  size_t begin, end;
  bool is_match;
};

void AddParts(const TextPiece& piece, const std::vector<Span>& parts, std::vector<TextPiece>& out) {
  for (const Span& p : parts) {
    if (p.begin < p.end) out.push_back(piece.Slice(p.begin, p.end));
  }
}

// Joins neighbours where `join(current, previous)` of their is_match says so.
template <typename Join>
std::vector<Span> JoinForward(const std::vector<Span>& spans, Join join) {
  std::vector<Span> out;
  bool previous = false;
  for (const Span& s : spans) {
    if (!out.empty() && join(s.is_match, previous)) {
      out.back().end = s.end;
    } else {
      out.push_back(s);
    }
    previous = s.is_match;
  }
  return out;
}

void SplitSpans(const TextPiece& piece, std::vector<Span>& spans, Behavior behavior,
                std::vector<TextPiece>& out) {
  switch (behavior) {
    case Behavior::kRemoved:
      std::erase_if(spans, [](const Span& s) { return s.is_match; });
      return AddParts(piece, spans, out);
    case Behavior::kIsolated:
      return AddParts(piece, spans, out);
    case Behavior::kContiguous:
      return AddParts(piece,
                      JoinForward(spans, [](bool now, bool before) { return now == before; }), out);
    case Behavior::kMergedWithPrevious:
      return AddParts(
          piece, JoinForward(spans, [](bool now, bool before) { return now && !before; }), out);
    case Behavior::kMergedWithNext: {
      std::vector<Span> reversed;
      bool next = false;
      for (auto s = spans.rbegin(); s != spans.rend(); ++s) {
        if (!reversed.empty() && s->is_match && !next) {
          reversed.back().begin = s->begin;
        } else {
          reversed.push_back(*s);
        }
        next = s->is_match;
      }
      std::reverse(reversed.begin(), reversed.end());
      return AddParts(piece, reversed, out);
    }
  }
}

// Spans of the characters that `matches` picks, one span for each of them.
template <typename Matches>  // bool(char32_t)
std::vector<Span> SpansOfCharacters(std::string_view text, Matches matches) {
  std::vector<Span> spans;
  size_t last = 0;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    if (matches(NextCodePoint(text, end))) {
      if (last < begin) spans.push_back({last, begin, false});
      spans.push_back({begin, end, true});
      last = end;
    }
    begin = end;
  }
  if (last < text.size()) spans.push_back({last, text.size(), false});
  return spans;
}

absl::StatusOr<std::vector<Span>> SpansOfPattern(const TextPattern& pattern, std::string_view text,
                                                 bool invert) {
  std::vector<Span> spans;
  size_t last = 0;
  RETURN_IF_ERROR(pattern.ForEachMatch(text, [&](size_t begin, size_t end) {
    if (last < begin) spans.push_back({last, begin, invert});
    spans.push_back({begin, end, !invert});
    last = end;
  }));
  if (last < text.size()) spans.push_back({last, text.size(), invert});
  return spans;
}

// A pre-tokenizer that looks at one piece at a time.
class PieceSplitter : public PreTokenizer {
 public:
  absl::Status Apply(TextArena& arena, std::vector<TextPiece>& pieces) const final {
    std::vector<TextPiece> out;
    out.reserve(pieces.size());
    for (const TextPiece& piece : pieces) {
      if (piece.token >= 0) {
        out.push_back(piece);
      } else {
        RETURN_IF_ERROR(SplitPiece(arena, piece, out));
      }
    }
    pieces = std::move(out);
    return absl::OkStatus();
  }

 protected:
  virtual absl::Status SplitPiece(TextArena& arena, TextPiece piece,
                                  std::vector<TextPiece>& out) const = 0;
};

class Split final : public PieceSplitter {
 public:
  Split(TextPattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

 protected:
  absl::Status SplitPiece(TextArena&, TextPiece piece, std::vector<TextPiece>& out) const override {
    if (behavior_ == Behavior::kIsolated) {  // the usual one, without a list of spans
      size_t last = 0;
      RETURN_IF_ERROR(pattern_.ForEachMatch(piece.text, [&](size_t begin, size_t end) {
        if (last < begin) out.push_back(piece.Slice(last, begin));
        if (begin < end) out.push_back(piece.Slice(begin, end));
        last = end;
      }));
      if (last < piece.text.size()) out.push_back(piece.Slice(last, piece.text.size()));
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(std::vector<Span> spans, SpansOfPattern(pattern_, piece.text, invert_));
    SplitSpans(piece, spans, behavior_, out);
    return absl::OkStatus();
  }

 private:
  const TextPattern pattern_;
  const Behavior behavior_;
  const bool invert_;
};

// GPT-2's: words by its regular expression, bytes as visible characters.
class ByteLevel final : public PieceSplitter {
 public:
  ByteLevel(std::optional<TextPattern> pattern, bool add_prefix_space, bool rewrite_bytes)
      : pattern_(std::move(pattern)),
        add_prefix_space_(add_prefix_space),
        rewrite_bytes_(rewrite_bytes) {}

 protected:
  absl::Status SplitPiece(TextArena& arena, TextPiece piece,
                          std::vector<TextPiece>& out) const override {
    if (add_prefix_space_ && !piece.text.empty() && piece.text.front() != ' ') {
      Rewriter rewriter(piece, arena);
      rewriter.Insert(" ", piece.OriginAt(0));
      rewriter.Keep(0, piece.text.size());
      RETURN_IF_ERROR(rewriter.Finish(piece));
    }
    const size_t first = out.size();
    if (pattern_) {
      ASSIGN_OR_RETURN(std::vector<Span> spans, SpansOfPattern(*pattern_, piece.text, false));
      SplitSpans(piece, spans, Behavior::kIsolated, out);
    } else if (!piece.text.empty()) {
      out.push_back(piece);
    }
    if (!rewrite_bytes_) return absl::OkStatus();
    // One new text for all pieces, which are what the old one falls into.
    Rewriter rewriter(piece, arena);
    std::vector<size_t> ends;
    std::string visible;
    for (size_t i = first; i < out.size(); ++i) {
      for (size_t b = 0; b < out[i].text.size(); ++b) {
        visible.clear();
        AppendByteLevel(out[i].text.substr(b, 1), visible);
        rewriter.Insert(visible, out[i].OriginAt(b));
      }
      ends.push_back(rewriter.size());
    }
    RETURN_IF_ERROR(rewriter.Finish(piece));
    size_t begin = 0;
    for (size_t i = first; i < out.size(); ++i) {
      const size_t end = ends[i - first];
      out[i] = piece.Slice(begin, end);
      begin = end;
    }
    return absl::OkStatus();
  }

 private:
  const std::optional<TextPattern> pattern_;
  const bool add_prefix_space_, rewrite_bytes_;
};

// SentencePiece's: blanks become a visible character that starts each word.
class Metaspace final : public PieceSplitter {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}

 protected:
  absl::Status SplitPiece(TextArena& arena, TextPiece piece,
                          std::vector<TextPiece>& out) const override {
    if (piece.text.empty()) return absl::OkStatus();
    const bool starts = piece.text.front() == ' ' || piece.text.starts_with(replacement_);
    const bool prepend = !starts && (prepend_ == Prepend::kAlways ||
                                     (prepend_ == Prepend::kFirst && piece.base == 0));
    if (prepend || piece.text.find(' ') != std::string_view::npos) {
      Rewriter rewriter(piece, arena);
      if (prepend) rewriter.Insert(replacement_, piece.OriginAt(0));
      size_t kept = 0;
      for (size_t at = piece.text.find(' '); at != std::string_view::npos;
           at = piece.text.find(' ', at + 1)) {
        rewriter.Keep(kept, at);
        rewriter.Insert(replacement_, piece.OriginAt(at));
        kept = at + 1;
      }
      rewriter.Keep(kept, piece.text.size());
      RETURN_IF_ERROR(rewriter.Finish(piece));
    }
    if (!split_) {
      out.push_back(piece);
      return absl::OkStatus();
    }
    // Merged with next: a new word begins at each replacement.
    size_t begin = 0;
    while (begin < piece.text.size()) {
      size_t end = piece.text.find(replacement_, begin + 1);
      if (end == std::string_view::npos) end = piece.text.size();
      out.push_back(piece.Slice(begin, end));
      begin = end;
    }
    return absl::OkStatus();
  }

 private:
  const std::string replacement_;
  const Prepend prepend_;
  const bool split_;
};

// Splits at characters of a class.
class CharacterSplit final : public PieceSplitter {
 public:
  using Predicate = bool (*)(char32_t);
  CharacterSplit(Predicate matches, Behavior behavior) : matches_(matches), behavior_(behavior) {}

 protected:
  absl::Status SplitPiece(TextArena&, TextPiece piece, std::vector<TextPiece>& out) const override {
    std::vector<Span> spans = SpansOfCharacters(piece.text, matches_);
    SplitSpans(piece, spans, behavior_, out);
    return absl::OkStatus();
  }

 private:
  const Predicate matches_;
  const Behavior behavior_;
};

class CharDelimiterSplit final : public PieceSplitter {
 public:
  explicit CharDelimiterSplit(char32_t delimiter) : delimiter_(delimiter) {}

 protected:
  absl::Status SplitPiece(TextArena&, TextPiece piece, std::vector<TextPiece>& out) const override {
    std::vector<Span> spans =
        SpansOfCharacters(piece.text, [this](char32_t c) { return c == delimiter_; });
    SplitSpans(piece, spans, Behavior::kRemoved, out);
    return absl::OkStatus();
  }

 private:
  const char32_t delimiter_;
};

// \w+|[^\w\s]+ : runs of word characters, runs of other visible ones.
class Whitespace final : public PieceSplitter {
 protected:
  absl::Status SplitPiece(TextArena&, TextPiece piece, std::vector<TextPiece>& out) const override {
    enum class Kind { kSpace, kWord, kOther };
    size_t run = 0;
    Kind kind = Kind::kSpace;
    for (size_t begin = 0; begin <= piece.text.size();) {
      size_t end = begin;
      Kind next = Kind::kSpace;
      if (begin < piece.text.size()) {
        const char32_t c = NextCodePoint(piece.text, end);
        next = IsWord(c) ? Kind::kWord : IsWhitespace(c) ? Kind::kSpace : Kind::kOther;
      } else {
        ++end;
      }
      if (next != kind || begin == piece.text.size()) {
        if (kind != Kind::kSpace) out.push_back(piece.Slice(run, begin));
        run = begin;
        kind = next;
      }
      begin = end;
    }
    return absl::OkStatus();
  }
};

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  absl::Status Apply(TextArena& arena, std::vector<TextPiece>& pieces) const override {
    for (const auto& step : steps_) RETURN_IF_ERROR(step->Apply(arena, pieces));
    return absl::OkStatus();
  }

 private:
  const std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

absl::StatusOr<Behavior> ParseBehavior(const JsonView& json, Behavior otherwise) {
  const auto value = json.Find("behavior");
  if (!value) return otherwise;
  ASSIGN_OR_RETURN(const std::string name, value->AsString());
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return value->Invalid(absl::StrCat("'", name,
                                     "' is none of Removed, Isolated, "
                                     "MergedWithPrevious, MergedWithNext, Contiguous"));
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParseSplit(const JsonView& json) {
  ASSIGN_OR_RETURN(TextPattern pattern, ParseTextPattern(json));
  if (!json.Find("behavior")) return json.Invalid("the key 'behavior' is missing");
  ASSIGN_OR_RETURN(const Behavior behavior, ParseBehavior(json, Behavior::kIsolated));
  ASSIGN_OR_RETURN(const bool invert, json.GetBool("invert", false));
  return std::make_unique<Split>(std::move(pattern), behavior, invert);
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParseByteLevel(const JsonView& json, bool is_last) {
  ASSIGN_OR_RETURN(const bool add_prefix_space, json.GetBool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const bool use_regex, json.GetBool("use_regex", true));
  std::optional<TextPattern> pattern;
  if (use_regex) {
    // Source: Radford et al. 2019, the pattern of GPT-2's encoder.
    ASSIGN_OR_RETURN(pattern, TextPattern::Regex("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+"
                                                 "| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"));
  }
  return std::make_unique<ByteLevel>(std::move(pattern), add_prefix_space, !is_last);
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParseMetaspace(const JsonView& json) {
  ASSIGN_OR_RETURN(const std::string replacement, json.GetString("replacement"));
  if (!IsOneCharacter(replacement)) {
    return json.Invalid("'replacement' must be one character");
  }
  ASSIGN_OR_RETURN(const bool split, json.GetBool("split", true));
  // Files of before `prepend_scheme` say it with `add_prefix_space`.
  ASSIGN_OR_RETURN(const bool add_prefix_space, json.GetBool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const auto scheme, json.FindString("prepend_scheme"));
  auto prepend = Metaspace::Prepend::kAlways;
  if (!scheme) {
    if (!add_prefix_space) prepend = Metaspace::Prepend::kNever;
  } else if (*scheme == "first") {
    prepend = Metaspace::Prepend::kFirst;
  } else if (*scheme == "never") {
    prepend = Metaspace::Prepend::kNever;
  } else if (*scheme != "always") {
    return json.Invalid(
        absl::StrCat("'prepend_scheme' is '", *scheme, "', which is none of always, first, never"));
  }
  if (!add_prefix_space && prepend != Metaspace::Prepend::kNever) {
    return json.Invalid("'add_prefix_space' is false but 'prepend_scheme' is not 'never'");
  }
  return std::make_unique<Metaspace>(replacement, prepend, split);
}

// Each reads the whole text; real files have under ten.
constexpr int kMaxSteps = 64;

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParseAtDepth(const JsonView& json, int depth,
                                                           bool is_last, bool& model_reads_bytes,
                                                           int& steps_seen) {
  if (depth > 8) return json.Unsupported("sequences nested over 8 deep");
  if (++steps_seen > kMaxSteps) return json.Unsupported(absl::StrCat("over ", kMaxSteps, " steps"));
  ASSIGN_OR_RETURN(const std::string type, json.GetString("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonView list, json.Get("pretokenizers"));
    if (!list.IsArray()) return list.Invalid("a list is expected");
    std::vector<std::unique_ptr<PreTokenizer>> steps;
    for (size_t i = 0; i < list.size(); ++i) {
      ASSIGN_OR_RETURN(const JsonView element, list.At(i));
      ASSIGN_OR_RETURN(auto step, ParseAtDepth(element, depth + 1, is_last && i + 1 == list.size(),
                                               model_reads_bytes, steps_seen));
      steps.push_back(std::move(step));
    }
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "ByteLevel") {
    model_reads_bytes = is_last;
    return ParseByteLevel(json, is_last);
  }
  if (type == "Split") return ParseSplit(json);
  if (type == "Metaspace") return ParseMetaspace(json);
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") {
    return std::make_unique<CharacterSplit>(IsWhitespace, Behavior::kRemoved);
  }
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual, json.GetBool("individual_digits", false));
    return std::make_unique<CharacterSplit>(
        IsNumeric, individual ? Behavior::kIsolated : Behavior::kContiguous);
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const Behavior behavior, ParseBehavior(json, Behavior::kIsolated));
    return std::make_unique<CharacterSplit>(IsPunctuation, behavior);
  }
  if (type == "CharDelimiterSplit") {
    ASSIGN_OR_RETURN(const std::string text, json.GetString("delimiter"));
    if (!IsOneCharacter(text)) {
      return json.Invalid("'delimiter' must be one character");
    }
    size_t pos = 0;
    return std::make_unique<CharDelimiterSplit>(NextCodePoint(text, pos));
  }
  return json.Unsupported(absl::StrCat(
      "the pre-tokenizer '", type,
      "' is not supported (Sequence, ByteLevel, Split, Metaspace, Digits, Whitespace, "
      "WhitespaceSplit, Punctuation and CharDelimiterSplit are); use a base whose tokenizer needs "
      "only these"));
}

}  // namespace

absl::StatusOr<ParsedPreTokenizer> ParsePreTokenizer(const JsonView& json) {
  ParsedPreTokenizer parsed;
  int steps_seen = 0;
  ASSIGN_OR_RETURN(parsed.pre_tokenizer,
                   ParseAtDepth(json, 0, true, parsed.model_reads_bytes, steps_seen));
  return parsed;
}

}  // namespace tundra
