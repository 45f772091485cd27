// A compiled template: parsed, its variables resolved, its filters and tests
// known to exist. Immutable; rendered by the Interpreter.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/text/jinja/ast.h"

namespace tundra::jinja {

class Template {
 public:
  // Throws Error with its line.
  static std::shared_ptr<const Template> Compile(std::string source, std::string name);

  const std::string& source() const { return source_; }
  const std::string& name() const { return name_; }
  const std::vector<std::string>& names() const { return names_; }
  const ScopedBody& root() const { return root_; }
  bool has_generation() const { return has_generation_; }

 private:
  std::string source_;
  std::string name_;
  std::vector<std::string> names_;  // of variables, by number
  ScopedBody root_;
  bool has_generation_ = false;
};

}  // namespace tundra::jinja
