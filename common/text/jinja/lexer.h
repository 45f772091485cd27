// Cuts a template into tokens exactly as Jinja's lexer does with trim_blocks and
// lstrip_blocks: the newline after a block tag goes, and so does the indentation
// before one; "-" strips all white space on its side, "+" keeps it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tundra::jinja {

enum class TokenType : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEof,
};

struct Token {
  TokenType type = TokenType::kEof;
  int line = 1;
  std::string text;  // data, name, operator, unescaped string
  int64_t integer = 0;
  double real = 0;

  bool IsName(std::string_view name) const { return type == TokenType::kName && text == name; }
  bool IsOperator(std::string_view op) const { return type == TokenType::kOperator && text == op; }
  // As Jinja's messages name it.
  std::string Describe() const;
};

// The tokens and an end token. Throws Error with its line.
std::vector<Token> Tokenize(std::string_view source);

}  // namespace tundra::jinja
