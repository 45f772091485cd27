#include "common/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "common/text/unicode_tables.h"

namespace tundra {
namespace {

bool Contains(const CodePointRange* ranges, size_t size, char32_t c) {
  const CodePointRange* end = ranges + size;
  const CodePointRange* it = std::upper_bound(
      ranges, end, c, [](char32_t value, const CodePointRange& r) { return value < r.first; });
  return it != ranges && c <= std::prev(it)->last;
}

// Looks at the character at `bytes[0]`. Returns its length when it is valid;
// otherwise minus the length of the maximal invalid part, and says in
// `unfinished` whether only the end of the bytes made it so.
// Source: Unicode standard, table 3-7 and section 3.9, "U+FFFD substitution of maximal subparts".
int CheckCharacter(std::string_view bytes, bool& unfinished) {
  unfinished = false;
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char b0 = at(0);
  if (b0 < 0x80) return 1;
  int length = 0;
  unsigned char low = 0x80, high = 0xBF;  // bounds of the second byte
  if (b0 >= 0xC2 && b0 <= 0xDF) {
    length = 2;
  } else if (b0 >= 0xE0 && b0 <= 0xEF) {
    length = 3;
    if (b0 == 0xE0) low = 0xA0;
    if (b0 == 0xED) high = 0x9F;
  } else if (b0 >= 0xF0 && b0 <= 0xF4) {
    length = 4;
    if (b0 == 0xF0) low = 0x90;
    if (b0 == 0xF4) high = 0x8F;
  } else {
    return -1;
  }
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) >= bytes.size()) {
      unfinished = true;
      return -i;
    }
    if (at(i) < low || at(i) > high) return -i;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view text) {
  size_t pos = 0;
  bool unfinished = false;
  while (pos < text.size()) {
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const int length = CheckCharacter(text.substr(pos), unfinished);
    if (length < 0) return pos;
    pos += static_cast<size_t>(length);
  }
  return pos;
}

std::string Utf8Lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  bool unfinished = false;
  for (size_t pos = 0; pos < bytes.size();) {
    const int length = CheckCharacter(bytes.substr(pos), unfinished);
    if (length > 0) {
      out.append(bytes.substr(pos, static_cast<size_t>(length)));
      pos += static_cast<size_t>(length);
    } else {
      out.append("\uFFFD");
      pos += static_cast<size_t>(-length);
    }
  }
  return out;
}

bool EndsInsideCharacter(std::string_view bytes) {
  bool unfinished = false;
  const size_t first = bytes.size() > 3 ? bytes.size() - 3 : 0;
  for (size_t pos = first; pos < bytes.size(); ++pos) {
    if (IsUtf8Continuation(bytes[pos])) continue;
    if (CheckCharacter(bytes.substr(pos), unfinished) < 0 && unfinished) return true;
  }
  return false;
}

char32_t NextCodePoint(std::string_view text, size_t& pos) {
  const auto at = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  };
  const char32_t b0 = at(pos);
  if (b0 < 0x80) {
    pos += 1;
    return b0;
  }
  if (b0 < 0xE0) {
    pos += 2;
    return (b0 & 0x1F) << 6 | (at(pos - 1) & 0x3F);
  }
  if (b0 < 0xF0) {
    pos += 3;
    return (b0 & 0x0F) << 12 | (at(pos - 2) & 0x3F) << 6 | (at(pos - 1) & 0x3F);
  }
  pos += 4;
  return (b0 & 0x07) << 18 | (at(pos - 3) & 0x3F) << 12 | (at(pos - 2) & 0x3F) << 6 |
         (at(pos - 1) & 0x3F);
}

char32_t PreviousCodePoint(std::string_view text, size_t& pos) {
  do {
    --pos;
  } while (pos > 0 && IsUtf8Continuation(text[pos]));
  size_t forward = pos;
  return NextCodePoint(text, forward);
}

void AppendUtf8(char32_t c, std::string& out) {
  const auto push = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0 | c >> 6);
    push(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    push(0xE0 | c >> 12);
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  } else {
    push(0xF0 | c >> 18);
    push(0x80 | (c >> 12 & 0x3F));
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  }
}

bool IsOneCharacter(std::string_view text) {
  return !text.empty() && Utf8Length(text.front()) == text.size();
}

bool IsAscii(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

bool IsWhitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) { return Contains(kNumericRanges, kNumericRangesSize, c); }
bool IsPunctuation(char32_t c) { return Contains(kPunctuationRanges, kPunctuationRangesSize, c); }
bool IsWord(char32_t c) { return Contains(kWordRanges, kWordRangesSize, c); }
bool IsMark(char32_t c) { return Contains(kMarkRanges, kMarkRangesSize, c); }
bool ComposesWithPrevious(char32_t c) { return Contains(kComposesRanges, kComposesRangesSize, c); }

bool IsInertForNormalization(char32_t c) {
  if (Contains(kInertRanges, kInertRangesSize, c)) return true;
  // What Unicode 14 does not know, the reference's older tables don't either.
  const CategoryRange* end = kCategoryDelta + kCategoryDeltaSize;
  const CategoryRange* it =
      std::upper_bound(kCategoryDelta, end, c,
                       [](char32_t value, const CategoryRange& r) { return value < r.first; });
  return it != kCategoryDelta && c <= std::prev(it)->last;
}

void AppendLowercase(char32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    return;
  }
  if (c == 0x130) {  // İ: the only one that becomes two characters
    out.append("i\u0307");
    return;
  }
  for (size_t i = 0; i < kLowercaseDeltaSize; ++i) {
    const CaseRange& r = kLowercaseDelta[i];
    if (c >= r.first && c <= r.last) {
      AppendUtf8(static_cast<char32_t>(static_cast<int64_t>(c) + r.delta), out);
      return;
    }
  }
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
}

const std::array<char32_t, 256>& ByteToCharTable() {
  // Visible Latin-1 characters stand for themselves, the others for U+0100 and up.
  static const std::array<char32_t, 256> table = [] {
    std::array<char32_t, 256> t{};
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool visible = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      t[b] = visible ? b : next++;
    }
    return t;
  }();
  return table;
}

int CharToByte(char32_t c) {
  static const std::array<int16_t, 0x144> table = [] {
    std::array<int16_t, 0x144> t{};
    t.fill(-1);
    for (size_t b = 0; b < 256; ++b) t[ByteToCharTable()[b]] = static_cast<int16_t>(b);
    return t;
  }();
  return c < table.size() ? table[c] : -1;
}

void AppendByteLevel(std::string_view bytes, std::string& out) {
  const auto& table = ByteToCharTable();
  for (const char b : bytes) AppendUtf8(table[static_cast<unsigned char>(b)], out);
}

}  // namespace tundra
