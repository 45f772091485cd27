#include "coordinator/api/filter.h"

#include <cctype>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/api/errors.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

constexpr size_t kMaxBytes = 4096;
constexpr size_t kMaxTerms = 32;

bool IsWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-' ||
         c == '/';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<std::vector<JobFilterTerm>> Parse() {
    std::vector<JobFilterTerm> terms;
    SkipSpace();
    if (AtEnd()) return terms;
    for (;;) {
      ASSIGN_OR_RETURN(terms.emplace_back(), Term());
      if (terms.size() > kMaxTerms) return Error("has more than 32 terms");
      SkipSpace();
      if (AtEnd()) return terms;
      if (Word() != "AND") return Error("expected AND between terms");
      SkipSpace();
    }
  }

 private:
  bool AtEnd() const { return at_ >= text_.size(); }
  void SkipSpace() {
    while (!AtEnd() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }
  std::string Word() {
    const size_t start = at_;
    while (!AtEnd() && IsWord(text_[at_])) ++at_;
    return std::string(text_.substr(start, at_ - start));
  }
  absl::Status Error(std::string_view what) const {
    Violations violations;
    violations.Add("filter", absl::StrCat("at character ", at_ + 1, ": ",
                                          absl::string_view(what.data(), what.size())));
    return violations.ToStatus();
  }

  absl::StatusOr<JobFilterTerm> Term() {
    JobFilterTerm term;
    const std::string name = Word();
    if (name == "state") {
      term.field = JobFilterTerm::Field::kState;
    } else if (name == "display_name") {
      term.field = JobFilterTerm::Field::kDisplayName;
    } else if (name == "base") {
      term.field = JobFilterTerm::Field::kBase;
    } else if (name == "tenant") {
      term.field = JobFilterTerm::Field::kTenant;
    } else if (name.size() > 7 && name.rfind("labels.", 0) == 0) {
      term.field = JobFilterTerm::Field::kLabel;
      term.key = name.substr(7);
    } else {
      return Error("expected state, display_name, base, tenant or labels.KEY");
    }
    SkipSpace();
    if (text_.substr(at_, 2) == "!=") {
      term.negated = true;
      at_ += 2;
    } else if (text_.substr(at_, 1) == "=") {
      at_ += 1;
    } else if (text_.substr(at_, 1) == ":") {
      if (term.field != JobFilterTerm::Field::kDisplayName) {
        return Error("expected = or !=: only display_name can be searched with :");
      }
      term.contains = true;
      at_ += 1;
    } else {
      return Error("expected =, != or :");
    }
    SkipSpace();
    ASSIGN_OR_RETURN(term.value, Value());
    if (term.field == JobFilterTerm::Field::kState) {
      v1::JobState state;
      if (!v1::JobState_Parse(term.value, &state) || state == v1::JOB_STATE_UNSPECIFIED) {
        return Error("expected a state such as QUEUED, RUNNING or SUCCEEDED");
      }
    }
    return term;
  }

  absl::StatusOr<std::string> Value() {
    if (AtEnd()) return Error("expected a value");
    if (text_[at_] != '"') {
      std::string word = Word();
      if (word.empty()) return Error("expected a value; put one with other signs in quotes");
      return word;
    }
    std::string value;
    for (++at_; !AtEnd() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
      value.push_back(text_[at_]);
    }
    if (AtEnd()) return Error("a quote is not closed");
    ++at_;
    return value;
  }

  const std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<JobFilterTerm>> ParseJobFilter(std::string_view text) {
  if (text.size() > kMaxBytes) {
    Violations violations;
    violations.Add("filter", "has more than 4096 bytes");
    return violations.ToStatus();
  }
  return Parser(text).Parse();
}

}  // namespace tundra::coordinator
