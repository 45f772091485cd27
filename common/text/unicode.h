// UTF-8 and the classes of characters that a tokenizer needs, with the meaning
// that Hugging Face tokenizers gives them (unicode_tables.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tundra {

// Length of the longest prefix of `text` that is valid UTF-8 (no surrogates, no
// overlong forms, at most U+10FFFF). Equal to text.size() when all is valid.
size_t ValidUtf8Prefix(std::string_view text);

// The text with every maximal invalid part replaced by U+FFFD, as Rust's
// String::from_utf8_lossy does it.
std::string Utf8Lossy(std::string_view bytes);

// True when `bytes` ends inside a character that more bytes could complete.
bool EndsInsideCharacter(std::string_view bytes);

// Bytes of the character that starts with this byte. Valid UTF-8 only.
inline size_t Utf8Length(char first) {
  const auto b = static_cast<unsigned char>(first);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

// True when `text` (valid UTF-8) is exactly one character.
bool IsOneCharacter(std::string_view text);

inline bool IsUtf8Continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// The character at text[pos]; moves `pos` behind it. Valid UTF-8 only.
char32_t NextCodePoint(std::string_view text, size_t& pos);
// The character that ends before text[pos]; moves `pos` to its start. pos > 0.
char32_t PreviousCodePoint(std::string_view text, size_t& pos);

void AppendUtf8(char32_t code_point, std::string& out);

bool IsAscii(std::string_view text);

// Unicode White_Space: char::is_whitespace in Rust, \s in Oniguruma.
bool IsWhitespace(char32_t c);
// char::is_numeric in Rust: categories Nd, Nl, No.
bool IsNumeric(char32_t c);
// ASCII punctuation, or category P of the reference's table.
bool IsPunctuation(char32_t c);
// \w of Rust's regex crate.
bool IsWord(char32_t c);
// A combining mark (category M), which StripAccents removes.
bool IsMark(char32_t c);
// char::to_lowercase in Rust, without context; appends one or two characters.
void AppendLowercase(char32_t c, std::string& out);

// True where the reference's normalization forms leave `c` as it is and let
// nothing move across it, though newer Unicode says otherwise.
bool IsInertForNormalization(char32_t c);
// True for a starter that may compose with the character before it.
bool ComposesWithPrevious(char32_t c);

// GPT-2's alphabet: each byte as one visible character. ("Ġ" is a blank.)
const std::array<char32_t, 256>& ByteToCharTable();
// The byte that a character of that alphabet stands for, or -1.
int CharToByte(char32_t c);
// `bytes` written in that alphabet.
void AppendByteLevel(std::string_view bytes, std::string& out);

}  // namespace tundra
