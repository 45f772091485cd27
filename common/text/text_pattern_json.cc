#include "common/text/text_pattern_json.h"

#include "common/status.h"

namespace tundra {

absl::StatusOr<TextPattern> ParseTextPattern(const JsonView& owner) {
  ASSIGN_OR_RETURN(const JsonView json, owner.Get("pattern"));
  if (const auto literal = json.Find("String")) {
    ASSIGN_OR_RETURN(const std::string text, literal->AsString());
    absl::StatusOr<TextPattern> pattern = TextPattern::Literal(text);
    if (!pattern.ok()) return literal->Here(pattern.status());
    return pattern;
  }
  if (const auto regex = json.Find("Regex")) {
    ASSIGN_OR_RETURN(const std::string source, regex->AsString());
    absl::StatusOr<TextPattern> pattern = TextPattern::Regex(source);
    if (!pattern.ok()) return regex->Here(pattern.status());
    return pattern;
  }
  return json.Invalid("an object with 'String' or 'Regex' is expected");
}

}  // namespace tundra
