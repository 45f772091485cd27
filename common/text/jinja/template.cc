#include "common/text/jinja/template.h"

#include <utility>

#include "common/text/jinja/lexer.h"
#include "common/text/jinja/parser.h"
#include "common/text/jinja/scopes.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {

std::shared_ptr<const Template> Template::Compile(std::string source, std::string name) {
  constexpr size_t kMaxSourceBytes = 4 << 20;
  if (source.size() > kMaxSourceBytes) throw Error{"the template is larger than 4 MiB", 1};
  if (!IsUtf8(source)) throw Error{"the template is not valid UTF-8", 1};
  auto compiled = std::make_shared<Template>();
  ParsedTemplate parsed = Parse(Tokenize(source));
  compiled->root_.body = std::move(parsed.body);
  compiled->names_ = std::move(parsed.names);
  compiled->has_generation_ = parsed.has_generation;
  ResolveScopes(&compiled->root_, compiled->names_);
  compiled->source_ = std::move(source);
  compiled->name_ = std::move(name);
  return compiled;
}

}  // namespace tundra::jinja
