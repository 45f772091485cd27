#include "common/text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "common/text/jinja/unicode.h"
#include "common/text/jinja/value.h"

namespace tundra::jinja {
namespace {

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }

// Newlines become "\n"; one at the very end is dropped.
std::string NormalizeSource(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeSource(source)) {}
  std::vector<Token> Run();

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(pos_); }
  bool At(size_t pos, std::string_view text) const {
    return std::string_view(source_).substr(std::min(pos, source_.size())).starts_with(text);
  }
  [[noreturn]] void FailHere(std::string message) const { throw Error{std::move(message), line_}; }
  void Advance(size_t to);
  size_t SkipSpace(size_t pos) const;
  Token& Add(TokenType type, std::string text);

  void LexRoot();
  void EmitData(std::string_view text, char sign, bool variable);
  bool MatchRawBegin(size_t pos, size_t* end, char* sign) const;
  void LexRaw();
  void LexComment();
  void LexTag(bool variable);
  bool MatchEnd(bool variable, size_t* end) const;
  void LexExpressionToken();
  bool LexNumber();
  size_t ScanDigits(size_t pos) const;
  void LexRadix(size_t digits_from, int radix);
  void LexString();
  void LexName();
  void LexOperator();

  std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<char> open_;  // the closing braces that are awaited
  std::vector<Token> tokens_;
};

void Lexer::Advance(size_t to) {
  line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(pos_),
                                       source_.begin() + static_cast<ptrdiff_t>(to), '\n'));
  if (to > pos_) line_starting_ = source_[to - 1] == '\n';
  pos_ = to;
}

size_t Lexer::SkipSpace(size_t pos) const {
  while (pos < source_.size()) {
    size_t next = pos;
    if (!IsSpace(DecodeChar(source_, &next))) break;
    pos = next;
  }
  return pos;
}

Token& Lexer::Add(TokenType type, std::string text) {
  tokens_.push_back(Token{type, line_, std::move(text)});
  return tokens_.back();
}

std::vector<Token> Lexer::Run() {
  while (pos_ < source_.size()) LexRoot();
  Add(TokenType::kEof, "");
  return std::move(tokens_);
}

// Text before a tag, stripped as the tag's sign and lstrip_blocks ask.
void Lexer::EmitData(std::string_view text, char sign, bool variable) {
  if (sign == '-') {
    text = StripRight(text);
  } else if (sign != '+' && !variable) {
    const size_t newline = text.rfind('\n');
    const size_t from = newline == std::string_view::npos ? 0 : newline + 1;
    if ((from > 0 || line_starting_) && StripRight(text.substr(from)).empty()) {
      text = text.substr(0, from);
    }
  }
  if (!text.empty()) Add(TokenType::kData, std::string(text));
}

// {%[-+]? raw -?%}
bool Lexer::MatchRawBegin(size_t pos, size_t* end, char* sign) const {
  if (!At(pos, "{%")) return false;
  pos += 2;
  *sign = 0;
  if (pos < source_.size() && (source_[pos] == '-' || source_[pos] == '+')) *sign = source_[pos++];
  pos = SkipSpace(pos);
  if (!At(pos, "raw")) return false;
  pos = SkipSpace(pos + 3);
  if (At(pos, "-%}")) {
    *end = SkipSpace(pos + 3);
    return true;
  }
  *end = pos + 2;
  return At(pos, "%}");
}

void Lexer::LexRoot() {
  size_t tag = pos_;
  while (true) {
    tag = source_.find('{', tag);
    if (tag == std::string::npos || tag + 1 >= source_.size()) {
      Add(TokenType::kData, std::string(Rest()));
      Advance(source_.size());
      return;
    }
    if (std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos) break;
    ++tag;
  }
  const std::string_view data = Rest().substr(0, tag - pos_);
  size_t raw_end = 0;
  char sign = 0;
  const char kind = source_[tag + 1];
  if (MatchRawBegin(tag, &raw_end, &sign)) {
    EmitData(data, sign, false);
    Advance(raw_end);
    LexRaw();
    return;
  }
  size_t end = tag + 2;
  sign = 0;
  if (end < source_.size() && (source_[end] == '-' || source_[end] == '+')) sign = source_[end++];
  EmitData(data, sign, kind == '{');
  Advance(end);
  if (kind == '#') {
    LexComment();
  } else {
    LexTag(kind == '{');
  }
}

void Lexer::LexRaw() {
  for (size_t at = source_.find("{%", pos_); at != std::string::npos;
       at = source_.find("{%", at + 1)) {
    size_t pos = at + 2;
    char sign = 0;
    if (pos < source_.size() && (source_[pos] == '-' || source_[pos] == '+')) sign = source_[pos++];
    pos = SkipSpace(pos);
    if (!At(pos, "endraw")) continue;
    pos = SkipSpace(pos + 6);
    size_t end = 0;
    if (At(pos, "+%}")) {
      end = pos + 3;
    } else if (At(pos, "-%}")) {
      end = SkipSpace(pos + 3);
    } else if (At(pos, "%}")) {
      end = pos + (At(pos + 2, "\n") ? 3 : 2);
    } else {
      continue;
    }
    EmitData(Rest().substr(0, at - pos_), sign, false);
    Advance(end);
    return;
  }
  if (pos_ < source_.size()) FailHere("Missing end of raw directive");
}

void Lexer::LexComment() {
  const size_t at = source_.find("#}", pos_);
  if (at == std::string::npos) {
    if (pos_ < source_.size()) FailHere("Missing end of comment tag");
    return;
  }
  // "+#}" and "-#}" take their sign along; it is part of the comment otherwise.
  const char sign = at > pos_ ? source_[at - 1] : '\0';
  if (sign == '-') {
    Advance(SkipSpace(at + 2));
  } else if (sign == '+') {
    Advance(at + 2);
  } else {
    Advance(at + (At(at + 2, "\n") ? 3 : 2));
  }
}

bool Lexer::MatchEnd(bool variable, size_t* end) const {
  if (!open_.empty()) return false;
  const std::string_view close = variable ? "}}" : "%}";
  if (At(pos_, "-") && At(pos_ + 1, close)) {
    *end = SkipSpace(pos_ + 3);
    return true;
  }
  if (!variable && At(pos_, "+") && At(pos_ + 1, close)) {
    *end = pos_ + 3;
    return true;
  }
  if (!At(pos_, close)) return false;
  *end = pos_ + 2;
  if (!variable && At(*end, "\n")) ++*end;
  return true;
}

void Lexer::LexTag(bool variable) {
  Add(variable ? TokenType::kVariableBegin : TokenType::kBlockBegin, "");
  open_.clear();
  while (pos_ < source_.size()) {
    size_t end = 0;
    if (MatchEnd(variable, &end)) {
      Add(variable ? TokenType::kVariableEnd : TokenType::kBlockEnd, "");
      Advance(end);
      return;
    }
    const size_t after_space = SkipSpace(pos_);
    if (after_space > pos_) {
      Advance(after_space);
    } else {
      LexExpressionToken();
    }
  }
}

void Lexer::LexExpressionToken() {
  const char c = source_[pos_];
  if (IsAsciiDigit(c) && LexNumber()) return;
  if (c == '\'' || c == '"') return LexString();
  size_t next = pos_;
  const char32_t wide = DecodeChar(source_, &next);
  if (c == '_' || IsAlnum(wide)) return LexName();
  LexOperator();
}

// (\d+_)*\d+ from pos, or pos when there is none.
size_t Lexer::ScanDigits(size_t pos) const {
  size_t end = pos;
  while (end < source_.size() && IsAsciiDigit(source_[end])) {
    ++end;
    if (end + 1 < source_.size() && source_[end] == '_' && IsAsciiDigit(source_[end + 1])) ++end;
  }
  return end;
}

bool Lexer::LexNumber() {
  const bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';
  size_t end = ScanDigits(pos_);
  if (!after_dot) {
    size_t real_end = end;
    if (At(real_end, ".") && ScanDigits(real_end + 1) > real_end + 1) {
      real_end = ScanDigits(real_end + 1);
    }
    if (At(real_end, "e") || At(real_end, "E")) {
      size_t exponent = real_end + 1;
      if (At(exponent, "+") || At(exponent, "-")) ++exponent;
      if (ScanDigits(exponent) > exponent) real_end = ScanDigits(exponent);
    }
    if (real_end > end) {
      std::string digits = source_.substr(pos_, real_end - pos_);
      std::erase(digits, '_');
      Add(TokenType::kFloat, "").real = std::strtod(digits.c_str(), nullptr);
      Advance(real_end);
      return true;
    }
  }
  const char second =
      pos_ + 1 < source_.size() ? static_cast<char>(source_[pos_ + 1] | 0x20) : '\0';
  if (source_[pos_] == '0' && (second == 'x' || second == 'o' || second == 'b')) {
    LexRadix(pos_ + 2, second == 'x' ? 16 : second == 'o' ? 8 : 2);
    return true;
  }
  if (source_[pos_] == '0') {  // only zeros may follow a leading zero
    end = pos_ + 1;
    while (At(end, "0") || At(end, "_0")) end += At(end, "0") ? 1 : 2;
  }
  std::string digits = source_.substr(pos_, end - pos_);
  std::erase(digits, '_');
  int64_t value = 0;
  if (std::from_chars(digits.data(), digits.data() + digits.size(), value).ec != std::errc()) {
    FailHere("integer too large: " + digits);
  }
  Add(TokenType::kInteger, "").integer = value;
  Advance(end);
  return true;
}

void Lexer::LexRadix(size_t digits_from, int radix) {
  size_t end = digits_from;
  std::string digits;
  const auto is_digit = [&](char c) {
    if (IsAsciiDigit(c)) return c - '0' < radix;
    const char lower = static_cast<char>(c | 0x20);
    return radix == 16 && lower >= 'a' && lower <= 'f';
  };
  while (end < source_.size()) {
    if (is_digit(source_[end])) {
      digits += source_[end++];
    } else if (source_[end] == '_' && end + 1 < source_.size() && is_digit(source_[end + 1])) {
      ++end;
    } else {
      break;
    }
  }
  int64_t value = 0;
  if (digits.empty()) {  // "0x" alone is a zero and a name
    end = pos_ + 1;
  } else if (std::from_chars(digits.data(), digits.data() + digits.size(), value, radix).ec !=
             std::errc()) {
    FailHere("integer too large: " + digits);
  }
  Add(TokenType::kInteger, "").integer = value;
  Advance(end);
}

// Reads up to max_digits hexadecimal digits; false unless all are there.
bool ReadHex(std::string_view text, size_t* pos, size_t count, char32_t* out) {
  if (*pos + count > text.size()) return false;
  uint32_t value = 0;
  const auto result = std::from_chars(text.data() + *pos, text.data() + *pos + count, value, 16);
  if (result.ec != std::errc() || result.ptr != text.data() + *pos + count) return false;
  *pos += count;
  *out = value;
  return true;
}

// Python's "unicode-escape" of what stands between the quotes. False on a bad escape.
bool Unescape(std::string_view text, std::string* out) {
  constexpr std::string_view kFrom = "abfnrtv\\'\"";
  constexpr std::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
  for (size_t pos = 0; pos < text.size();) {
    if (text[pos] != '\\') {
      *out += text[pos++];
      continue;
    }
    if (++pos >= text.size()) return false;
    const char c = text[pos++];
    char32_t code = 0;
    if (const size_t simple = kFrom.find(c); simple != std::string_view::npos) {
      *out += kTo[simple];
    } else if (c == '\n') {
      // an escaped newline is nothing
    } else if (c >= '0' && c <= '7') {
      code = static_cast<char32_t>(c - '0');
      for (int i = 0; i < 2 && pos < text.size() && text[pos] >= '0' && text[pos] <= '7'; ++i) {
        code = code * 8 + static_cast<char32_t>(text[pos++] - '0');
      }
      AppendChar(code, out);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      if (!ReadHex(text, &pos, c == 'x' ? 2 : c == 'u' ? 4 : 8, &code) || code > 0x10FFFF)
        return false;
      AppendChar(code >= 0xD800 && code <= 0xDFFF ? 0xFFFD : code, out);
    } else if (c == 'N') {
      return false;
    } else {
      *out += '\\';
      *out += c;
    }
  }
  return true;
}

void Lexer::LexString() {
  const char quote = source_[pos_];
  size_t end = pos_ + 1;
  while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
  if (end >= source_.size())
    FailHere(
        Cat("unexpected char ", ReprString(std::string(1, quote)), ": the string is not closed"));
  std::string text;
  if (!Unescape(std::string_view(source_).substr(pos_ + 1, end - pos_ - 1), &text)) {
    FailHere("bad escape in a string");
  }
  Add(TokenType::kString, std::move(text));
  Advance(end + 1);
}

void Lexer::LexName() {
  size_t end = pos_;
  while (end < source_.size()) {
    size_t next = end;
    const char32_t c = DecodeChar(source_, &next);
    if (c != '_' && !IsAlnum(c)) break;
    end = next;
  }
  size_t first = pos_;
  if (const char32_t c = DecodeChar(source_, &first); c != '_' && !IsAlpha(c)) {
    FailHere("Invalid character in identifier");
  }
  Add(TokenType::kName, source_.substr(pos_, end - pos_));
  Advance(end);
}

void Lexer::LexOperator() {
  static constexpr std::string_view kOperators[] = {
      "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
  for (std::string_view op : kOperators) {
    if (!At(pos_, op)) continue;
    const char c = op[0];
    if (c == '{' || c == '(' || c == '[') {
      open_.push_back(c == '{' ? '}' : c == '(' ? ')' : ']');
    } else if (c == '}' || c == ')' || c == ']') {
      if (open_.empty()) FailHere(Cat("unexpected '", op, "'"));
      const char expected = open_.back();
      open_.pop_back();
      if (expected != c)
        FailHere(Cat("unexpected '", op, "', expected '", std::string(1, expected), "'"));
    }
    Add(TokenType::kOperator, std::string(op));
    Advance(pos_ + op.size());
    return;
  }
  size_t next = pos_;
  DecodeChar(source_, &next);
  FailHere(Cat("unexpected char ", ReprString(source_.substr(pos_, next - pos_))));
}

}  // namespace

std::string Token::Describe() const {
  switch (type) {
    case TokenType::kName:
    case TokenType::kOperator:
      return text;
    case TokenType::kData:
      return "template data / text";
    case TokenType::kVariableBegin:
      return "begin of print statement";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kBlockBegin:
      return "begin of statement block";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kString:
      return "string";
    case TokenType::kInteger:
      return "integer";
    case TokenType::kFloat:
      return "float";
    case TokenType::kEof:
      return "end of template";
  }
  return "";
}

std::vector<Token> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace tundra::jinja
