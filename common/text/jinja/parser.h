// Tokens to a tree, by the grammar of Jinja's own recursive-descent parser
// (jinja2/parser.py of 3.1.6), with the tags break, continue and generation.
#pragma once

#include <string>
#include <vector>

#include "common/text/jinja/ast.h"
#include "common/text/jinja/lexer.h"

namespace tundra::jinja {

struct ParsedTemplate {
  Body body;
  std::vector<std::string> names;
  bool has_generation = false;
};

// Throws Error with its line.
ParsedTemplate Parse(std::vector<Token> tokens);

}  // namespace tundra::jinja
