// TranslateOnigPattern: a pattern in Oniguruma's Ruby syntax, written anew for
// PCRE2 (onig_regex.h says why).
//
// One pass from left to right over the source, emitting as it goes; `atom_` is
// where the last thing that a quantifier may follow begins in the output.
// Character classes are read into a set of items that fit between brackets and
// a list of fragments that don't (negated properties, nested classes); where
// there are fragments, the class becomes an alternation of single characters.
#include <cctype>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/onig_char_set.h"
#include "common/text/onig_regex.h"
#include "common/text/unicode.h"
#include "common/text/unicode_tables.h"

namespace tundra {
namespace {

class Translator {
 public:
  explicit Translator(std::string_view source) : source_(source) {}

  absl::StatusOr<std::string> Run();

 private:
  struct Group {
    size_t start;  // in out_
    bool caseless, dotall;
  };

  bool AtEnd() const { return pos_ >= source_.size(); }
  char Peek(size_t ahead = 0) const {
    return pos_ + ahead < source_.size() ? source_[pos_ + ahead] : '\0';
  }
  bool Consume(std::string_view text) {
    if (!source_.substr(pos_).starts_with(text)) return false;
    pos_ += text.size();
    return true;
  }
  void EmitAtom(std::string_view text) {
    atom_ = out_.size();
    out_.append(text);
  }
  absl::Status Malformed(std::string_view what) const {
    return Error(absl::StatusCode::kInvalidArgument, what);
  }
  absl::Status Unsupported(std::string_view what) const {
    return Error(absl::StatusCode::kUnimplemented,
                 absl::StrCat(absl::string_view(what.data(), what.size()), " is not supported"));
  }
  absl::Status Error(absl::StatusCode code, std::string_view what) const {
    return absl::Status(
        code,
        absl::StrCat("regular expression '", absl::string_view(source_.data(), source_.size()),
                     "' at byte ", pos_, ": ", absl::string_view(what.data(), what.size())));
  }

  absl::Status One();
  absl::Status OpenGroup();
  absl::Status Options();
  absl::Status Quantifier();
  absl::Status EscapeOutsideClass();
  absl::StatusOr<CharSet> Class(int depth, bool& negated);
  absl::Status ClassItem(int depth, CharSet& set);
  absl::StatusOr<char32_t> RangeEnd();
  // Handles \d \w \s \h \p and their negations after the backslash; false when
  // the next character is none of them.
  absl::StatusOr<bool> SetEscape(CharSet& set);
  absl::Status Property(bool negated, CharSet& set);
  // A single character after a backslash, e.g. n, x41, or punctuation.
  absl::StatusOr<char32_t> CharEscape();
  absl::StatusOr<char32_t> HexDigits(size_t min, size_t max);

  const std::string_view source_;
  size_t pos_ = 0;
  std::string out_;
  std::optional<size_t> atom_;
  std::vector<Group> groups_;
  bool caseless_ = false;
  bool dotall_ = false;
};

absl::StatusOr<std::string> Translator::Run() {
  if (ValidUtf8Prefix(source_) != source_.size()) return Malformed("not valid UTF-8");
  while (!AtEnd()) RETURN_IF_ERROR(One());
  if (!groups_.empty()) return Malformed("a group is not closed; add ')'");
  return std::move(out_);
}

absl::Status Translator::One() {
  switch (Peek()) {
    case '(':
      return OpenGroup();
    case ')': {
      if (groups_.empty()) return Malformed("')' closes nothing");
      ++pos_;
      out_.push_back(')');
      atom_ = groups_.back().start;
      caseless_ = groups_.back().caseless;
      dotall_ = groups_.back().dotall;
      groups_.pop_back();
      return absl::OkStatus();
    }
    case '[': {
      bool negated = false;
      ASSIGN_OR_RETURN(const CharSet set, Class(0, negated));
      EmitAtom(set.Fragment(negated));
      return absl::OkStatus();
    }
    case '|':
    case '^':
    case '$':
      out_.push_back(Peek());
      atom_.reset();
      ++pos_;
      return absl::OkStatus();
    case '.':
      ++pos_;
      EmitAtom(dotall_ ? kAnyCharacter : "[^\\x{a}]");
      return absl::OkStatus();
    case '*':
    case '+':
    case '?':
    case '{':
      return Quantifier();
    case '\\':
      return EscapeOutsideClass();
    default: {
      const char32_t c = NextCodePoint(source_, pos_);
      if (c < 0x80 && !absl::ascii_isalnum(static_cast<unsigned char>(c))) {
        EmitAtom(Hex(c));
      } else {
        std::string literal;
        AppendUtf8(c, literal);
        EmitAtom(literal);
      }
      return absl::OkStatus();
    }
  }
}

absl::Status Translator::OpenGroup() {
  const size_t start = out_.size();
  ++pos_;  // (
  atom_.reset();
  if (Consume("?#")) {
    while (!AtEnd() && Peek() != ')') ++pos_;
    if (AtEnd()) return Malformed("a comment is not closed; add ')'");
    ++pos_;
    return absl::OkStatus();
  }
  const Group group{start, caseless_, dotall_};
  if (Peek() != '?') {
    if (Peek() == '*') return Unsupported("a callout (*…)");
    out_.append("(?:");  // nothing here refers back to groups
    groups_.push_back(group);
    return absl::OkStatus();
  }
  for (const std::string_view plain : {"?:", "?=", "?!", "?>", "?<=", "?<!"}) {
    if (Consume(plain)) {
      absl::StrAppend(&out_, "(", absl::string_view(plain.data(), plain.size()));
      groups_.push_back(group);
      return absl::OkStatus();
    }
  }
  if (Peek(1) == '<' || Peek(1) == '\'') {  // a named group: nothing refers to it
    const char close = Peek(1) == '<' ? '>' : '\'';
    const size_t end = source_.find(close, pos_ + 2);
    if (end == std::string_view::npos) return Malformed("the name of a group is not closed");
    pos_ = end + 1;
    out_.append("(?:");
    groups_.push_back(group);
    return absl::OkStatus();
  }
  groups_.push_back(group);
  return Options();
}

// (?i) and (?im-x: …), at the '?'. The group has been pushed.
absl::Status Translator::Options() {
  const size_t group_begin = pos_ - 1;
  ++pos_;  // ?
  bool on = true;
  for (; !AtEnd() && Peek() != ':' && Peek() != ')'; ++pos_) {
    switch (Peek()) {
      case '-':
        on = false;
        break;
      case 'i':
        caseless_ = on;
        break;
      case 'm':  // Ruby's name for "a dot matches a newline too"
        dotall_ = on;
        break;
      default:
        return Unsupported("the group or option '(?" + std::string(1, Peek()) + "'");
    }
  }
  if (AtEnd()) return Malformed("a group is not closed; add ')'");
  absl::StrAppend(&out_, caseless_ ? "(?i" : "(?-i");
  if (Peek() == ':') {
    ++pos_;
    out_.push_back(':');
    return absl::OkStatus();
  }
  // To the end of the enclosing group; Ruby and Perl differ on what that means
  // to alternatives, except where the options open the pattern.
  if (group_begin != 0) return Unsupported("an option '(?i)' in the middle of a pattern");
  ++pos_;
  out_.push_back(')');
  groups_.pop_back();
  return absl::OkStatus();
}

absl::Status Translator::Quantifier() {
  std::string interval;
  if (Peek() == '{') {
    size_t i = pos_ + 1;
    std::string low, high;
    while (i < source_.size() && absl::ascii_isdigit(static_cast<unsigned char>(source_[i])))
      low += source_[i++];
    const bool comma = i < source_.size() && source_[i] == ',';
    if (comma) ++i;
    while (comma && i < source_.size() &&
           absl::ascii_isdigit(static_cast<unsigned char>(source_[i])))
      high += source_[i++];
    const bool closed = i < source_.size() && source_[i] == '}';
    if (!closed || (low.empty() && high.empty())) {  // an ordinary brace
      EmitAtom(Hex('{'));
      ++pos_;
      return absl::OkStatus();
    }
    if (low.size() > 5 || high.size() > 5) return Malformed("a repetition over 65535");
    pos_ = i + 1;
    interval = absl::StrCat("{", low.empty() ? "0" : low, comma ? "," : "", high, "}");
    if (!atom_) return Malformed("a repetition follows nothing");
    if (Peek() == '?' && !comma) return Unsupported("a lazy '{n}?'");
    if (Peek() == '+') {  // Ruby: repeat the repetition, not possessive
      ++pos_;
      out_.insert(*atom_, "(?:");
      absl::StrAppend(&out_, interval, ")+");
      atom_.reset();
      return absl::OkStatus();
    }
  } else {
    if (!atom_) return Malformed("a repetition follows nothing");
    interval = std::string(1, Peek());
    ++pos_;
  }
  out_.append(interval);
  if (Peek() == '?' || (Peek() == '+' && interval[0] != '{')) {  // lazy, possessive
    out_.push_back(Peek());
    ++pos_;
  }
  atom_.reset();
  return absl::OkStatus();
}

absl::Status Translator::EscapeOutsideClass() {
  ++pos_;
  if (AtEnd()) return Malformed("a backslash ends the pattern");
  CharSet set;
  ASSIGN_OR_RETURN(const bool is_set, SetEscape(set));
  if (is_set) {
    EmitAtom(set.Fragment(false));
    return absl::OkStatus();
  }
  switch (Peek()) {
    case 'A':
    case 'z':
    case 'Z':
      out_ += '\\';
      out_ += Peek();
      atom_.reset();
      ++pos_;
      return absl::OkStatus();
    case 'b':
    case 'B': {
      const std::string word = absl::StrCat("[", WordItems(), "]");
      const char* between = Peek() == 'b' ? ")(?!" : ")(?=";
      const char* outside = Peek() == 'b' ? ")(?=" : ")(?!";
      absl::StrAppend(&out_, "(?:(?<=", word, between, word, ")|(?<!", word, outside, word, "))");
      atom_.reset();
      ++pos_;
      return absl::OkStatus();
    }
    default:
      break;
  }
  ASSIGN_OR_RETURN(const char32_t c, CharEscape());
  EmitAtom(Hex(c));
  return absl::OkStatus();
}

absl::StatusOr<bool> Translator::SetEscape(CharSet& set) {
  const char c = Peek();
  std::string items;
  switch (c) {
    case 's':
      set.items += kSpaceItems;
      ++pos_;
      return true;
    case 'S':
      set.items += kNotSpaceItems;
      ++pos_;
      return true;
    case 'd':
    case 'D':
      items = CategoryItems("Nd");
      break;
    case 'w':
    case 'W':
      items = WordItems();
      break;
    case 'h':
    case 'H':
      items = kHexItems;
      break;
    case 'p':
    case 'P':
      ++pos_;
      RETURN_IF_ERROR(Property(c == 'P', set));
      return true;
    default:
      return false;
  }
  ++pos_;
  if (absl::ascii_islower(static_cast<unsigned char>(c))) {
    set.items += items;
  } else {
    set.AddNegated(items);
  }
  return true;
}

// {L}, {^Lu}, {Han}: after \p or \P.
absl::Status Translator::Property(bool negated, CharSet& set) {
  const size_t end = source_.find('}', pos_);
  if (Peek() != '{' || end == std::string_view::npos)
    return Malformed("\\p needs a name in braces");
  std::string name;
  for (size_t i = pos_ + 1; i < end; ++i) {
    const char c = source_[i];
    if (i == pos_ + 1 && c == '^') {
      negated = !negated;
    } else if (c != ' ' && c != '_' && c != '-') {
      name += absl::ascii_tolower(static_cast<unsigned char>(c));
    }
  }
  static const auto* const kNames = new std::map<std::string, std::string>{
      {"l", "L"},     {"lu", "Lu"},    {"ll", "Ll"},         {"lt", "Lt"},    {"lm", "Lm"},
      {"lo", "Lo"},   {"m", "M"},      {"mn", "Mn"},         {"mc", "Mc"},    {"me", "Me"},
      {"n", "N"},     {"nd", "Nd"},    {"nl", "Nl"},         {"no", "No"},    {"p", "P"},
      {"pc", "Pc"},   {"pd", "Pd"},    {"ps", "Ps"},         {"pe", "Pe"},    {"pi", "Pi"},
      {"pf", "Pf"},   {"po", "Po"},    {"s", "S"},           {"sm", "Sm"},    {"sc", "Sc"},
      {"sk", "Sk"},   {"so", "So"},    {"z", "Z"},           {"zs", "Zs"},    {"zl", "Zl"},
      {"zp", "Zp"},   {"cc", "Cc"},    {"cf", "Cf"},         {"co", "Co"},    {"letter", "L"},
      {"mark", "M"},  {"number", "N"}, {"punctuation", "P"}, {"symbol", "S"}, {"separator", "Z"},
      {"digit", "Nd"}};
  std::string items;
  if (const auto it = kNames->find(name); it != kNames->end()) {
    if (caseless_ && (it->second == "Lu" || it->second == "Ll" || it->second == "Lt")) {
      return Unsupported("\\p{" + name + "} where case is ignored");
    }
    items = CategoryItems(it->second);
    if (it->second == "Mn") {  // U+1171E moved to Mc in Unicode 15
      const std::string fragment = absl::StrCat("(?:(?!", Hex(0x1171E), ")[", items, "])");
      set.fragments.push_back(negated ? absl::StrCat("(?:(?!", fragment, ")", kAnyCharacter, ")")
                                      : fragment);
      pos_ = end + 1;
      return absl::OkStatus();
    }
  } else if (name == "han") {
    items = RangeItems(kHanRanges, kHanRangesSize);
  } else if (name == "hiragana") {
    items = RangeItems(kHiraganaRanges, kHiraganaRangesSize);
  } else if (name == "katakana") {
    items = RangeItems(kKatakanaRanges, kKatakanaRangesSize);
  } else if (name == "hangul") {
    items = RangeItems(kHangulRanges, kHangulRangesSize);
  } else if (name == "space") {
    items = kSpaceItems;
  } else if (name == "word") {
    items = WordItems();
  } else {
    return Unsupported(absl::StrCat("the property \\p{", name,
                                    "} (general categories, Han, Hiragana, Katakana, Hangul, "
                                    "Space and Word are)"));
  }
  pos_ = end + 1;
  if (negated) {
    set.AddNegated(items);
  } else {
    set.items += items;
  }
  return absl::OkStatus();
}

absl::StatusOr<char32_t> Translator::HexDigits(size_t min, size_t max) {
  char32_t value = 0;
  size_t count = 0;
  while (count < max && absl::ascii_isxdigit(static_cast<unsigned char>(Peek()))) {
    const char digit = absl::ascii_tolower(static_cast<unsigned char>(Peek()));
    value = value * 16 + static_cast<char32_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    ++pos_;
    ++count;
  }
  if (count < min) return Malformed("hexadecimal digits expected");
  if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
    return Malformed("not a character of Unicode");
  }
  return value;
}

absl::StatusOr<char32_t> Translator::CharEscape() {
  const char c = Peek();
  static const std::map<char, char32_t> kControls{
      {'t', 0x09}, {'n', 0x0A}, {'v', 0x0B}, {'f', 0x0C}, {'r', 0x0D}, {'a', 0x07}, {'e', 0x1B}};
  if (const auto it = kControls.find(c); it != kControls.end()) {
    ++pos_;
    return it->second;
  }
  if (c == 'u') {
    ++pos_;
    return HexDigits(4, 4);
  }
  if (c == 'x') {
    ++pos_;
    if (!Consume("{")) {
      ASSIGN_OR_RETURN(const char32_t value, HexDigits(1, 2));
      if (value >= 0x80) return Unsupported("\\x with a byte over 7F (write \\x{…} or \\u…)");
      return value;
    }
    ASSIGN_OR_RETURN(const char32_t value, HexDigits(1, 8));
    if (!Consume("}")) return Malformed("\\x{ is not closed; add '}'");
    return value;
  }
  if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
    return Unsupported(std::string("the escape '\\") + c + "'");
  }
  return NextCodePoint(source_, pos_);
}

// At '['. Gives the set between the brackets, and whether '^' negates it.
absl::StatusOr<CharSet> Translator::Class(int depth, bool& negated) {
  if (depth > 16) return Unsupported("a class nested over 16 deep");
  ++pos_;  // [
  negated = Consume("^");
  CharSet set;
  std::vector<CharSet> intersected;
  bool first = true;
  while (true) {
    if (AtEnd()) return Malformed("a class is not closed; add ']'");
    if (Peek() == ']' && !(first && source_.find(']', pos_ + 1) != std::string_view::npos)) {
      ++pos_;
      break;
    }
    first = false;
    if (Consume("&&")) {
      if (set.empty()) return Malformed("'&&' has nothing on its left");
      intersected.push_back(std::move(set));
      set = CharSet();
      continue;
    }
    RETURN_IF_ERROR(ClassItem(depth, set));
  }
  if (set.empty()) return Malformed("an empty class");
  if (intersected.empty()) return set;
  std::string both = "(?:";
  for (const CharSet& s : intersected) absl::StrAppend(&both, "(?=", s.Fragment(false), ")");
  absl::StrAppend(&both, set.Fragment(false), ")");
  CharSet out;
  out.fragments.push_back(std::move(both));
  return out;
}

absl::Status Translator::ClassItem(int depth, CharSet& set) {
  char32_t low = 0;
  if (Peek() == '[') {
    for (const auto& [name, items] :
         {std::pair<std::string_view, const char*>{"[:space:]", kSpaceItems},
          {"[:xdigit:]", kHexItems}}) {
      if (Consume(name)) {
        set.items += items;
        return absl::OkStatus();
      }
    }
    if (Peek(1) == ':') return Unsupported("a POSIX class [:…:] other than space and xdigit");
    bool negated = false;
    ASSIGN_OR_RETURN(const CharSet inner, Class(depth + 1, negated));
    if (!negated && inner.fragments.empty()) {
      set.items += inner.items;
    } else {
      set.fragments.push_back(inner.Fragment(negated));
    }
    return absl::OkStatus();
  }
  if (Peek() == '\\') {
    ++pos_;
    if (AtEnd()) return Malformed("a backslash ends the pattern");
    ASSIGN_OR_RETURN(const bool is_set, SetEscape(set));
    if (is_set) return absl::OkStatus();
    if (Consume("b")) {
      low = 0x08;  // in a class: backspace
    } else {
      ASSIGN_OR_RETURN(low, CharEscape());
    }
  } else {
    low = NextCodePoint(source_, pos_);
  }
  char32_t high = low;
  if (Peek() == '-' && Peek(1) != ']' && Peek(1) != '\0') {
    ++pos_;
    ASSIGN_OR_RETURN(high, RangeEnd());
    if (high < low) return Malformed("a range that ends before it begins");
  }
  AppendRange(low, high, set.items);
  return absl::OkStatus();
}

absl::StatusOr<char32_t> Translator::RangeEnd() {
  if (Peek() == '[') return Unsupported("a range that ends in a class");
  if (Peek() != '\\') return NextCodePoint(source_, pos_);
  ++pos_;
  if (AtEnd()) return Malformed("a backslash ends the pattern");
  if (std::string_view("sSdDwWhHpP").find(Peek()) != std::string_view::npos) {
    return Unsupported("a range that ends in a class");
  }
  if (Consume("b")) return char32_t{0x08};
  return CharEscape();
}

}  // namespace

absl::StatusOr<std::string> TranslateOnigPattern(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace tundra
