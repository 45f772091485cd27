// Text is cut into clusters: a character at which nothing joins across its left
// edge, and what follows up to the next such character. Each cluster is
// decomposed, its marks sorted (here, because utf8proc's own sort is quadratic
// on long runs of marks), and composed if the form asks for it.
//
// Origins follow the reference. Each character carries how many source
// characters it stands for: 1, or 0 for the later parts of a decomposition; one
// that swallowed others has their sum. Read left to right, a character takes the
// origin of the next source character and skips as many as it stands for; one
// that stands for none shares the origin of the source character before.
#include "common/text/unicode_normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "common/check.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

int CombiningClass(utf8proc_int32_t c) {
  if (IsInertForNormalization(static_cast<char32_t>(c))) return 0;
  return utf8proc_get_property(c)->combining_class;
}

// A character of the result, and how many source characters it stands for.
struct Part {
  utf8proc_int32_t c;
  int sources;
};

void Decompose(char32_t c, bool compat, std::vector<Part>& out) {
  if (c < 0x80 || IsInertForNormalization(c)) {
    out.push_back({static_cast<utf8proc_int32_t>(c), 1});
    return;
  }
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                      (compat ? UTF8PROC_COMPAT : 0));
  utf8proc_int32_t buffer[32];  // the longest decomposition has 18
  int boundary_class = 0;
  const utf8proc_ssize_t n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer,
                                                     std::size(buffer), options, &boundary_class);
  TUNDRA_CHECK(n >= 0 && n <= static_cast<utf8proc_ssize_t>(std::size(buffer)));
  for (utf8proc_ssize_t i = 0; i < n; ++i) out.push_back({buffer[i], i == 0 ? 1 : 0});
}

// The character that two compose to, or -1.
utf8proc_int32_t ComposePair(utf8proc_int32_t first, utf8proc_int32_t second) {
  if (IsInertForNormalization(static_cast<char32_t>(first)) ||
      IsInertForNormalization(static_cast<char32_t>(second))) {
    return -1;
  }
  utf8proc_int32_t pair[2] = {first, second};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  return utf8proc_normalize_utf32(pair, 2, options) == 1 ? pair[0] : -1;
}

// True when nothing before `c` can move behind it or join it.
bool IsBoundary(char32_t c, bool compat, std::vector<Part>& scratch) {
  if (c < 0x300) return true;
  if (ComposesWithPrevious(c)) return false;
  scratch.clear();
  Decompose(c, compat, scratch);
  if (scratch.empty()) return true;
  return CombiningClass(scratch[0].c) == 0 &&
         !ComposesWithPrevious(static_cast<char32_t>(scratch[0].c));
}

class ClusterNormalizer {
 public:
  explicit ClusterNormalizer(NormalizationForm form)
      : compose_(form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc),
        compat_(form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd) {}

  // End of the cluster that begins at `pos`.
  size_t End(std::string_view text, size_t pos) {
    NextCodePoint(text, pos);
    while (pos < text.size()) {
      size_t next = pos;
      if (IsBoundary(NextCodePoint(text, next), compat_, scratch_)) break;
      pos = next;
    }
    return pos;
  }

  // The normalized cluster, valid until the next call.
  const std::vector<Part>& Run(std::string_view cluster) {
    parts_.clear();
    for (size_t pos = 0; pos < cluster.size();) {
      Decompose(NextCodePoint(cluster, pos), compat_, parts_);
    }
    SortMarks();
    if (compose_) Compose();
    return parts_;
  }

 private:
  void SortMarks() {
    for (size_t i = 0; i < parts_.size();) {
      size_t end = i;
      while (end < parts_.size() && CombiningClass(parts_[end].c) != 0) ++end;
      std::stable_sort(
          parts_.begin() + static_cast<ptrdiff_t>(i), parts_.begin() + static_cast<ptrdiff_t>(end),
          [](const Part& a, const Part& b) { return CombiningClass(a.c) < CombiningClass(b.c); });
      i = end == i ? i + 1 : end;
    }
  }

  // Source: Unicode standard, section 3.11, the canonical composition algorithm.
  void Compose() {
    size_t write = 0;
    constexpr size_t kNone = static_cast<size_t>(-1);
    size_t starter = kNone;
    int last_class = -1;  // of what stands between the starter and here; -1: nothing
    for (size_t read = 0; read < parts_.size(); ++read) {
      const Part part = parts_[read];
      const int combining_class = CombiningClass(part.c);
      if (starter != kNone && last_class < combining_class) {
        if (const utf8proc_int32_t joined = ComposePair(parts_[starter].c, part.c); joined >= 0) {
          parts_[starter].c = joined;
          parts_[starter].sources += part.sources;
          continue;
        }
      }
      if (combining_class == 0) {
        starter = write;
        last_class = -1;
      } else {
        last_class = combining_class;
      }
      parts_[write++] = part;
    }
    parts_.resize(write);
  }

  const bool compose_, compat_;
  std::vector<Part> parts_, scratch_;
};

bool Same(const std::vector<Part>& parts, std::string_view cluster) {
  size_t pos = 0;
  for (const Part& part : parts) {
    if (pos >= cluster.size()) return false;
    if (NextCodePoint(cluster, pos) != static_cast<char32_t>(part.c)) return false;
  }
  return pos == cluster.size();
}

// Writes the parts that the cluster text[begin, end) became.
void Write(const std::vector<Part>& parts, const TextPiece& piece, size_t begin, size_t end,
           Rewriter& rewriter) {
  std::string character;
  size_t source = begin;
  for (const Part& part : parts) {
    character.clear();
    AppendUtf8(static_cast<char32_t>(part.c), character);
    const bool shares = part.sources == 0 || source >= end;
    rewriter.Insert(character, piece.OriginAt(shares && source > begin ? source - 1 : source));
    for (int i = 0; i < part.sources && source < end; ++i) source += Utf8Length(piece.text[source]);
  }
}

// True when the form surely leaves the text alone: the common case.
bool SurelyNormalized(NormalizationForm form, std::string_view text) {
  const char32_t limit = form == NormalizationForm::kNfc ? 0x300 : 0x80;
  for (size_t pos = 0; pos < text.size();) {
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
    } else if (NextCodePoint(text, pos) >= limit) {
      return false;
    }
  }
  return true;
}

}  // namespace

absl::Status Normalize(NormalizationForm form, TextArena& arena, TextPiece& piece) {
  const std::string_view text = piece.text;
  if (SurelyNormalized(form, text)) return absl::OkStatus();
  ClusterNormalizer normalizer(form);
  Rewriter rewriter(piece, arena);
  size_t kept = 0;  // text[kept, begin) is unchanged and not yet written
  bool changed = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = normalizer.End(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    if (const std::vector<Part>& parts = normalizer.Run(cluster); !Same(parts, cluster)) {
      changed = true;
      rewriter.Keep(kept, begin);
      Write(parts, piece, begin, end, rewriter);
      kept = end;
    }
    begin = end;
  }
  if (!changed) return absl::OkStatus();
  rewriter.Keep(kept, text.size());
  return rewriter.Finish(piece);
}

}  // namespace tundra
