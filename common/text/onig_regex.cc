#include "common/text/onig_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "common/interrupt.h"
#include "common/status.h"
#include "common/text/find.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

// Buffers that matching needs, one set a thread.
class MatchScratch {
 public:
  MatchScratch()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack_(pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr)) {
    pcre2_jit_stack_assign(context, nullptr, stack_);
    pcre2_set_heap_limit(context, 256 << 10);  // KiB
  }
  ~MatchScratch() {
    pcre2_jit_stack_free(stack_);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

  pcre2_match_data* const data;
  pcre2_match_context* const context;

 private:
  pcre2_jit_stack* const stack_;
};

std::string Pcre2Message(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return absl::StrCat("code ", code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OnigRegex>> OnigRegex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression of ", pattern.size(),
                                                   " bytes; the limit is ", kMaxPatternBytes));
  }
  ASSIGN_OR_RETURN(const std::string translated, TranslateOnigPattern(pattern));
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression '", absl::string_view(pattern.data(), pattern.size()),
                     "' does not compile: ", Pcre2Message(error), " (near '",
                     translated.substr(offset, 20), "')"));
  }
  // Where there is no just-in-time compiler the interpreter does the same, slower.
  const bool jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  return std::unique_ptr<OnigRegex>(new OnigRegex(std::string(pattern), code, jit));
}

OnigRegex::~OnigRegex() { pcre2_code_free(code_); }

absl::Status OnigRegex::ForEachMatch(std::string_view text,
                                     absl::FunctionRef<void(size_t, size_t)> match) const {
  thread_local MatchScratch scratch;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(scratch.data);
  size_t start = 0;
  size_t last_end = std::string_view::npos;
  while (start <= text.size()) {
    if (Interrupted()) return InterruptedError();
    int rc = jit_ ? pcre2_jit_match(code_, subject, text.size(), start, PCRE2_NO_UTF_CHECK,
                                    scratch.data, scratch.context)
                  : pcre2_match(code_, subject, text.size(), start, PCRE2_NO_UTF_CHECK,
                                scratch.data, scratch.context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter's stack is on the heap
      rc = pcre2_match(code_, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       scratch.data, scratch.context);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return absl::OkStatus();
    if (rc < 0) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "tokenizer: regular expression '", pattern_, "' gives up on this text at byte ", start,
          ": ", Pcre2Message(rc), "; encode the text in smaller parts"));
    }
    const size_t begin = span[0];
    const size_t end = span[1];
    if (begin == end && last_end == end) {  // an empty match right behind the last one
      if (start >= text.size()) return absl::OkStatus();
      start += Utf8Length(text[start]);
      continue;
    }
    match(begin, end);
    start = end;
    last_end = end;
  }
  return absl::OkStatus();
}

absl::StatusOr<TextPattern> TextPattern::Literal(std::string_view text) {
  if (text.empty()) return absl::UnimplementedError("an empty pattern is not supported");
  TextPattern pattern;
  pattern.literal_ = std::string(text);
  return pattern;
}

absl::StatusOr<TextPattern> TextPattern::Regex(std::string_view source) {
  TextPattern pattern;
  ASSIGN_OR_RETURN(pattern.regex_, OnigRegex::Compile(source));
  return pattern;
}

absl::Status TextPattern::ForEachMatch(std::string_view text,
                                       absl::FunctionRef<void(size_t, size_t)> match) const {
  if (regex_ != nullptr) return regex_->ForEachMatch(text, match);
  for (size_t at = FindText(text, literal_); at != std::string_view::npos;
       at = FindText(text, literal_, at + literal_.size())) {
    match(at, at + literal_.size());
  }
  return absl::OkStatus();
}

}  // namespace tundra
