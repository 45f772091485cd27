// Strings as Python sees them: sequences of code points, held here as UTF-8.
// Case mapping and character classes follow Python's str methods (ICU does the
// work). Bytes that are not UTF-8 count as one code point each, U+FFFD.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tundra::jinja {

// The code point at *pos, and *pos moved past it. Requires *pos < text.size().
char32_t DecodeChar(std::string_view text, size_t* pos);
void AppendChar(char32_t c, std::string* out);

size_t CountChars(std::string_view text);

// Byte offset of the char_index-th code point; text.size() when past the end.
size_t ByteOffset(std::string_view text, size_t char_index);

// As str.upper, str.lower (final sigma included), str.title, str.capitalize,
// str.swapcase, str.casefold.
std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
std::string ToTitle(std::string_view text);
std::string Capitalize(std::string_view text);
std::string SwapCase(std::string_view text);
std::string CaseFold(std::string_view text);

bool IsSpace(char32_t c);      // str.isspace, and \s in Python's re
bool IsAlpha(char32_t c);      // str.isalpha
bool IsDecimal(char32_t c);    // str.isdecimal
bool IsDigit(char32_t c);      // str.isdigit
bool IsNumeric(char32_t c);    // str.isnumeric
bool IsPrintable(char32_t c);  // str.isprintable
bool IsUpperChar(char32_t c);
bool IsLowerChar(char32_t c);
bool IsTitleChar(char32_t c);

inline bool IsAlnum(char32_t c) { return IsAlpha(c) || IsDecimal(c) || IsDigit(c) || IsNumeric(c); }

// Without the white space at one end or both.
std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);
std::string_view Strip(std::string_view text);

// Whether the bytes are UTF-8 (no overlong forms, no surrogates).
bool IsUtf8(std::string_view text);

}  // namespace tundra::jinja
