#include "common/text/jinja/unicode.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

namespace tundra::jinja {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

// Length of the valid UTF-8 sequence at pos with its value, or 0.
size_t DecodeStrict(std::string_view text, size_t pos, char32_t* out) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(pos);
  if (lead < 0x80) {
    *out = lead;
    return 1;
  }
  size_t length = 0;
  char32_t value = 0;
  char32_t least = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2, value = lead & 0x1F, least = 0x80;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3, value = lead & 0x0F, least = 0x800;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4, value = lead & 0x07, least = 0x10000;
  } else {
    return 0;
  }
  if (pos + length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    const unsigned char next = byte(pos + i);
    if ((next & 0xC0) != 0x80) return 0;
    value = (value << 6) | (next & 0x3F);
  }
  if (value < least || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
  *out = value;
  return length;
}

icu::UnicodeString ToIcu(std::string_view text) {
  return icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string FromIcu(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}

bool IsAscii(std::string_view text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

bool IsCased(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED); }

// The full title-case mapping of one character ("ß" gives "Ss").
std::string TitleChar(std::string_view character) {
  icu::UnicodeString text = ToIcu(character);
  text.toTitle(nullptr, icu::Locale::getRoot(), U_TITLECASE_NO_BREAK_ADJUSTMENT);
  return FromIcu(text);
}

}  // namespace

char32_t DecodeChar(std::string_view text, size_t* pos) {
  char32_t value = kReplacement;
  const size_t length = DecodeStrict(text, *pos, &value);
  *pos += length == 0 ? 1 : length;
  return length == 0 ? kReplacement : value;
}

void AppendChar(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (c >> 6)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | (c >> 12)));
    out->push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | (c >> 18)));
    out->push_back(static_cast<char>(0x80 | ((c >> 12) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

size_t CountChars(std::string_view text) {
  size_t count = 0;
  for (size_t pos = 0; pos < text.size(); ++count) {
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
    } else {
      DecodeChar(text, &pos);
    }
  }
  return count;
}

size_t ByteOffset(std::string_view text, size_t char_index) {
  size_t pos = 0;
  while (char_index > 0 && pos < text.size()) {
    DecodeChar(text, &pos);
    --char_index;
  }
  return pos;
}

std::string ToUpper(std::string_view text) {
  if (IsAscii(text)) {
    std::string out(text);
    for (char& c : out) {
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    }
    return out;
  }
  return FromIcu(ToIcu(text).toUpper(icu::Locale::getRoot()));
}

std::string ToLower(std::string_view text) {
  if (IsAscii(text)) {
    std::string out(text);
    for (char& c : out) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    }
    return out;
  }
  return FromIcu(ToIcu(text).toLower(icu::Locale::getRoot()));
}

std::string ToTitle(std::string_view text) {
  // As CPython: a cased character after a cased one is lowered, any other titled.
  std::string out;
  bool previous_cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeChar(text, &pos);
    const std::string_view one = text.substr(begin, pos - begin);
    out += previous_cased ? ToLower(one) : TitleChar(one);
    previous_cased = IsCased(c);
  }
  return out;
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return "";
  size_t pos = 0;
  DecodeChar(text, &pos);
  return TitleChar(text.substr(0, pos)) + ToLower(text.substr(pos));
}

std::string SwapCase(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeChar(text, &pos);
    const std::string_view one = text.substr(begin, pos - begin);
    if (IsUpperChar(c)) {
      out += ToLower(one);
    } else if (IsLowerChar(c)) {
      out += ToUpper(one);
    } else {
      out += one;
    }
  }
  return out;
}

std::string CaseFold(std::string_view text) { return FromIcu(ToIcu(text).foldCase()); }

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool IsAlpha(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_L_MASK) != 0; }

bool IsDecimal(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE) == U_NT_DECIMAL;
}

bool IsDigit(char32_t c) {
  const int type = u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}

bool IsNumeric(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE) != U_NT_NONE;
}

bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  constexpr uint32_t kHidden = U_GC_C_MASK | U_GC_Z_MASK;
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & kHidden) == 0;
}

bool IsUpperChar(char32_t c) { return u_isUUppercase(static_cast<UChar32>(c)); }
bool IsLowerChar(char32_t c) { return u_isULowercase(static_cast<UChar32>(c)); }
bool IsTitleChar(char32_t c) { return u_istitle(static_cast<UChar32>(c)); }

std::string_view StripLeft(std::string_view text) {
  while (!text.empty()) {
    size_t pos = 0;
    if (!IsSpace(DecodeChar(text, &pos))) break;
    text.remove_prefix(pos);
  }
  return text;
}

std::string_view StripRight(std::string_view text) {
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    size_t pos = begin;
    if (!IsSpace(DecodeChar(text, &pos)) || pos != text.size()) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::string_view Strip(std::string_view text) { return StripLeft(StripRight(text)); }

bool IsUtf8(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    char32_t value = 0;
    const size_t length = DecodeStrict(text, pos, &value);
    if (length == 0) return false;
    pos += length;
  }
  return true;
}

}  // namespace tundra::jinja
