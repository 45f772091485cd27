// OnigRegex: the regular expressions of a tokenizer.json, which are written for
// Oniguruma (Ruby syntax, as Hugging Face tokenizers uses it), run by PCRE2.
//
// The two agree on most of what such files use and differ in the rest, so the
// pattern is parsed and written anew: \s, \w, \d, \h, \v, \b and \p{…} get
// Oniguruma's meaning and its newer Unicode tables, class intersections and
// nested classes become lookaheads, {n,m}+ is a repetition and not possessive.
// What has no exact counterpart here is refused by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace tundra {

// The pattern in PCRE2's language (UTF, UCP and MULTILINE on, newline = LF).
// Errors: kInvalidArgument (malformed), kUnimplemented (no counterpart), with
// the offset in the pattern.
absl::StatusOr<std::string> TranslateOnigPattern(std::string_view pattern);

class OnigRegex {
 public:
  static constexpr size_t kMaxPatternBytes = 64 << 10;

  static absl::StatusOr<std::unique_ptr<OnigRegex>> Compile(std::string_view pattern);
  ~OnigRegex();
  OnigRegex(const OnigRegex&) = delete;
  OnigRegex& operator=(const OnigRegex&) = delete;

  // Calls match(begin, end) for each match in `text` (valid UTF-8), left to
  // right. An empty match right behind another match is not reported.
  // Thread-safe. Errors: kResourceExhausted when matching runs away.
  absl::Status ForEachMatch(std::string_view text,
                            absl::FunctionRef<void(size_t, size_t)> match) const;

 private:
  OnigRegex(std::string pattern, pcre2_real_code_8* code, bool jit)
      : pattern_(std::move(pattern)), code_(code), jit_(jit) {}

  const std::string pattern_;
  pcre2_real_code_8* const code_;
  const bool jit_;
};

// What `pattern` of Split and Replace holds: a literal or a regular expression.
class TextPattern {
 public:
  static absl::StatusOr<TextPattern> Literal(std::string_view text);
  static absl::StatusOr<TextPattern> Regex(std::string_view pattern);

  absl::Status ForEachMatch(std::string_view text,
                            absl::FunctionRef<void(size_t, size_t)> match) const;

 private:
  std::string literal_;
  std::shared_ptr<const OnigRegex> regex_;
};

}  // namespace tundra
