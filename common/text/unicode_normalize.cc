// Text is cut into clusters: a character at which nothing joins across its left
// edge, and what follows up to the next such character. Each cluster is
// decomposed, its marks sorted (here, because utf8proc's own sort is quadratic
// on long runs of marks), and composed if the form asks for it. A cluster that
// changes has its whole source as the origin of each of its new characters.
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

void Decompose(char32_t c, bool compat, std::vector<utf8proc_int32_t>& out) {
  if (c < 0x80 || IsInertForNormalization(c)) {
    out.push_back(static_cast<utf8proc_int32_t>(c));
    return;
  }
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                      (compat ? UTF8PROC_COMPAT : 0));
  utf8proc_int32_t buffer[32];  // the longest decomposition has 18
  int boundary_class = 0;
  const utf8proc_ssize_t n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer,
                                                     std::size(buffer), options, &boundary_class);
  TUNDRA_CHECK(n >= 0 && n <= static_cast<utf8proc_ssize_t>(std::size(buffer)));
  out.insert(out.end(), buffer, buffer + n);
}

// True when nothing before `c` can move behind it or join it.
bool IsBoundary(char32_t c, bool compat, std::vector<utf8proc_int32_t>& scratch) {
  if (c < 0x300) return true;
  if (ComposesWithPrevious(c)) return false;
  scratch.clear();
  Decompose(c, compat, scratch);
  if (scratch.empty()) return true;
  return CombiningClass(scratch[0]) == 0 &&
         !ComposesWithPrevious(static_cast<char32_t>(scratch[0]));
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
  std::string_view Run(std::string_view cluster) {
    decomposed_.clear();
    for (size_t pos = 0; pos < cluster.size();) {
      Decompose(NextCodePoint(cluster, pos), compat_, decomposed_);
    }
    SortMarks();
    if (compose_) Compose();
    out_.clear();
    for (const utf8proc_int32_t c : decomposed_) AppendUtf8(static_cast<char32_t>(c), out_);
    return out_;
  }

 private:
  void SortMarks() {
    for (size_t i = 0; i < decomposed_.size();) {
      size_t end = i;
      while (end < decomposed_.size() && CombiningClass(decomposed_[end]) != 0) ++end;
      std::stable_sort(decomposed_.begin() + static_cast<ptrdiff_t>(i),
                       decomposed_.begin() + static_cast<ptrdiff_t>(end),
                       [](utf8proc_int32_t a, utf8proc_int32_t b) {
                         return CombiningClass(a) < CombiningClass(b);
                       });
      i = end == i ? i + 1 : end;
    }
  }

  // Inert characters compose with nothing: compose what lies between them.
  void Compose() {
    size_t write = 0;
    for (size_t i = 0; i < decomposed_.size();) {
      size_t end = i;
      while (end < decomposed_.size() &&
             !IsInertForNormalization(static_cast<char32_t>(decomposed_[end]))) {
        ++end;
      }
      const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
      const utf8proc_ssize_t n = utf8proc_normalize_utf32(
          decomposed_.data() + i, static_cast<utf8proc_ssize_t>(end - i), options);
      TUNDRA_CHECK(n >= 0);
      std::copy_n(decomposed_.begin() + static_cast<ptrdiff_t>(i), n,
                  decomposed_.begin() + static_cast<ptrdiff_t>(write));
      write += static_cast<size_t>(n);
      if (end < decomposed_.size()) decomposed_[write++] = decomposed_[end++];
      i = end;
    }
    decomposed_.resize(write);
  }

  const bool compose_, compat_;
  std::vector<utf8proc_int32_t> decomposed_, scratch_;
  std::string out_;
};

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
  Rewriter rewriter(piece);
  size_t kept = 0;  // text[kept, begin) is unchanged and not yet written
  bool changed = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = normalizer.End(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    if (const std::string_view out = normalizer.Run(cluster); out != cluster) {
      changed = true;
      rewriter.Keep(kept, begin);
      rewriter.Insert(out, {piece.OriginAt(begin).begin, piece.OriginAt(end - 1).end});
      kept = end;
    }
    begin = end;
  }
  if (!changed) return absl::OkStatus();
  rewriter.Keep(kept, text.size());
  return rewriter.Finish(arena, piece);
}

}  // namespace tundra
