// The methods of str. Positions are of characters; texts are UTF-8.
#include <algorithm>
#include <map>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/search.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

using Method = Value (*)(Interpreter&, const Value& self, Arguments& arguments);

Value Text(std::string text, const Value& like) {
  return Value::String(std::move(text), like.is_markup());
}

// --- case

template <std::string (*kMap)(std::string_view)>
Value Mapped(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("str method", arguments, {});
  return Text(kMap(self.text()), self);
}

// --- strip

bool IsOneOf(char32_t c, std::string_view chars) {
  size_t pos = 0;
  bool found = false;
  while (!found && pos < chars.size()) found = DecodeChar(chars, &pos) == c;
  Budget::Work(pos);
  return found;
}

Value Stripped(const Value& self, Arguments& arguments, bool left, bool right) {
  const Bound bound("strip", arguments, {"chars"});
  std::string_view text = self.text();
  if (bound.NoneOrAbsent(0)) {
    if (left) text = StripLeft(text);
    if (right) text = StripRight(text);
    return Text(std::string(text), self);
  }
  const std::string chars = bound.Str(0, "");
  while (left && !text.empty()) {
    size_t pos = 0;
    if (!IsOneOf(DecodeChar(text, &pos), chars)) break;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    size_t pos = begin;
    if (!IsOneOf(DecodeChar(text, &pos), chars)) break;
    text.remove_suffix(text.size() - begin);
  }
  return Text(std::string(text), self);
}

Value StripBoth(Interpreter&, const Value& self, Arguments& a) {
  return Stripped(self, a, true, true);
}
Value LStrip(Interpreter&, const Value& self, Arguments& a) {
  return Stripped(self, a, true, false);
}
Value RStrip(Interpreter&, const Value& self, Arguments& a) {
  return Stripped(self, a, false, true);
}

Value RemovePrefix(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("removeprefix", arguments, {"prefix"}, 1);
  const std::string prefix = bound.Str(0, "");
  const std::string& text = self.text();
  return Text(text.starts_with(prefix) ? text.substr(prefix.size()) : text, self);
}

Value RemoveSuffix(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("removesuffix", arguments, {"suffix"}, 1);
  const std::string suffix = bound.Str(0, "");
  const std::string& text = self.text();
  const bool has = !suffix.empty() && text.ends_with(suffix);
  return Text(has ? text.substr(0, text.size() - suffix.size()) : text, self);
}

// --- search

// The bytes of self[start:stop], the second and third argument.
struct Window {
  size_t begin, end;
  bool empty_range;  // start lies past stop: then not even "" is found
};

Window WindowOf(const Value& self, const Bound& bound) {
  const auto length = static_cast<int64_t>(self.string().chars);
  const auto index = [&](size_t i, int64_t otherwise) {
    if (bound.NoneOrAbsent(i)) return otherwise;
    const int64_t at = bound.Int(i, otherwise);
    return at < 0 ? std::max<int64_t>(at + length, 0) : at;
  };
  const int64_t start = index(1, 0);
  const int64_t stop = std::min(index(2, length), length);
  Window window{};
  window.empty_range = start > stop;
  if (window.empty_range) return window;
  window.begin = ByteOffset(self.text(), static_cast<size_t>(start));
  window.end = ByteOffset(self.text(), static_cast<size_t>(stop));
  return window;
}

Value Found(const Value& self, Arguments& arguments, bool from_right, bool fails) {
  const Bound bound("find", arguments, {"sub", "start", "end"}, 1);
  const std::string sub = bound.Str(0, "");
  const Window window = WindowOf(self, bound);
  size_t at = std::string::npos;
  const std::string_view text = std::string_view(self.text()).substr(0, window.end);
  if (!window.empty_range) at = from_right ? FindLast(text, sub) : Find(text, sub, window.begin);
  if (at != std::string_view::npos && at < window.begin) at = std::string_view::npos;
  if (at != std::string_view::npos)
    return Value::Int(static_cast<int64_t>(CountChars(text.substr(0, at))));
  if (fails) Fail("substring not found");
  return Value::Int(-1);
}

Value FindMethodOf(Interpreter&, const Value& self, Arguments& a) {
  return Found(self, a, false, false);
}
Value RFind(Interpreter&, const Value& self, Arguments& a) { return Found(self, a, true, false); }
Value Index(Interpreter&, const Value& self, Arguments& a) { return Found(self, a, false, true); }
Value RIndex(Interpreter&, const Value& self, Arguments& a) { return Found(self, a, true, true); }

Value Count(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"sub", "start", "end"}, 1);
  const std::string sub = bound.Str(0, "");
  const Window window = WindowOf(self, bound);
  if (window.empty_range) return Value::Int(0);
  const std::string_view text =
      std::string_view(self.text()).substr(window.begin, window.end - window.begin);
  if (sub.empty()) return Value::Int(static_cast<int64_t>(CountChars(text)) + 1);
  int64_t count = 0;
  for (size_t at = Find(text, sub); at != std::string_view::npos;
       at = Find(text, sub, at + sub.size()))
    ++count;
  return Value::Int(count);
}

Value Affix(const Value& self, Arguments& arguments, bool prefix) {
  const std::string_view name = prefix ? "startswith" : "endswith";
  const Bound bound(name, arguments, {"prefix", "start", "end"}, 1);
  const Window window = WindowOf(self, bound);
  if (window.empty_range) return Value::Bool(false);
  const std::string_view text =
      std::string_view(self.text()).substr(window.begin, window.end - window.begin);
  const auto matches = [&](const Value& affix) {
    if (!affix.is_string()) {
      RequireDefined(affix);
      Fail(Cat(name, " first arg must be str or a tuple of str, not ", TypeName(affix)));
    }
    return prefix ? text.starts_with(affix.text()) : text.ends_with(affix.text());
  };
  if (!bound[0].is(Kind::kTuple)) return Value::Bool(matches(bound[0]));
  const auto& options = bound[0].list().items;
  return Value::Bool(std::any_of(options.begin(), options.end(), matches));
}

Value StartsWith(Interpreter&, const Value& self, Arguments& a) { return Affix(self, a, true); }
Value EndsWith(Interpreter&, const Value& self, Arguments& a) { return Affix(self, a, false); }

// --- split and join

std::vector<Value> SplitSpaces(const Value& self, int64_t limit, bool from_right) {
  std::vector<Value> parts;
  std::string_view text = Strip(self.text());
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(Text(std::string(text), self));
      break;
    }
    size_t begin = text.size();
    size_t end = 0;
    if (from_right) {
      for (size_t pos = 0; pos < text.size();) {  // the last white space
        const size_t at = pos;
        if (IsSpace(DecodeChar(text, &pos))) begin = at, end = pos;
      }
      if (begin == text.size()) end = 0;
      parts.push_back(Text(std::string(text.substr(end)), self));
      text = begin == text.size() ? "" : StripRight(text.substr(0, begin));
      Budget::Work(text.size() / 8);
    } else {
      for (size_t pos = 0; pos < text.size();) {
        const size_t at = pos;
        if (IsSpace(DecodeChar(text, &pos))) {
          begin = at;
          break;
        }
      }
      parts.push_back(Text(std::string(text.substr(0, begin)), self));
      text = StripLeft(text.substr(begin));
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

Value SplitBy(const Value& self, Arguments& arguments, bool from_right) {
  const Bound bound("split", arguments, {"sep", "maxsplit"});
  const int64_t limit = bound.Int(1, -1);
  if (bound.NoneOrAbsent(0)) return Value::List(SplitSpaces(self, limit, from_right));
  const std::string separator = bound.Str(0, "");
  if (separator.empty()) Fail("empty separator");
  std::vector<Value> parts;
  std::string_view text = self.text();
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = from_right ? FindLast(text, separator) : Find(text, separator);
    if (at == std::string_view::npos) break;
    const std::string_view part =
        from_right ? text.substr(at + separator.size()) : text.substr(0, at);
    parts.push_back(Text(std::string(part), self));
    text = from_right ? text.substr(0, at) : text.substr(at + separator.size());
  }
  parts.push_back(Text(std::string(text), self));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return Value::List(std::move(parts));
}

Value Split(Interpreter&, const Value& self, Arguments& a) { return SplitBy(self, a, false); }
Value RSplit(Interpreter&, const Value& self, Arguments& a) { return SplitBy(self, a, true); }

bool IsLineEnd(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

Value SplitLines(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  const bool keep = bound.Truth(0, false);
  const std::string& text = self.text();
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t at = pos;
    const char32_t c = DecodeChar(text, &pos);
    if (!IsLineEnd(c)) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.push_back(Text(text.substr(begin, (keep ? pos : at) - begin), self));
    begin = pos;
  }
  if (begin < text.size()) lines.push_back(Text(text.substr(begin), self));
  return Value::List(std::move(lines));
}

Value Partitioned(const Value& self, Arguments& arguments, bool from_right) {
  const Bound bound("partition", arguments, {"sep"}, 1);
  const std::string separator = bound.Str(0, "");
  if (separator.empty()) Fail("empty separator");
  const std::string& text = self.text();
  const size_t at = from_right ? FindLast(text, separator) : Find(text, separator);
  const Value empty = Text("", self);
  if (at == std::string::npos) {
    return from_right ? Value::Tuple({empty, empty, self}) : Value::Tuple({self, empty, empty});
  }
  return Value::Tuple({Text(text.substr(0, at), self), Text(separator, self),
                       Text(text.substr(at + separator.size()), self)});
}

Value Partition(Interpreter&, const Value& self, Arguments& a) {
  return Partitioned(self, a, false);
}
Value RPartition(Interpreter&, const Value& self, Arguments& a) {
  return Partitioned(self, a, true);
}

Value Join(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("join", arguments, {"iterable"}, 1);
  std::string out;
  int64_t index = 0;
  for (const Value& item : Iterate(bound[0])) {
    if (!item.is_string()) {
      Fail(Cat("sequence item ", index, ": expected str instance, ", TypeName(item), " found"));
    }
    if (index++ > 0) out += self.text();
    out += item.text();
    Budget::StringSize(out.size());
  }
  return Text(std::move(out), self);
}

Value Replace(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const std::string from = bound.Str(0, "");
  const std::string to = bound.Str(1, "");
  int64_t left = bound.Int(2, -1);
  const std::string& text = self.text();
  std::string out;
  size_t pos = 0;
  if (from.empty()) {  // between all characters
    while (left != 0) {
      out += to;
      Budget::StringSize(out.size());
      --left;
      if (pos >= text.size()) break;
      const size_t begin = pos;
      DecodeChar(text, &pos);
      out += text.substr(begin, pos - begin);
    }
  } else {
    for (; left != 0; --left) {
      const size_t at = Find(text, from, pos);
      if (at == std::string::npos) break;
      out.append(text, pos, at - pos);
      out += to;
      Budget::StringSize(out.size());
      pos = at + from.size();
    }
  }
  if (pos < text.size()) out.append(text, pos);
  return Text(std::move(out), self);
}

// --- padding

Value Padded(const Value& self, Arguments& arguments, std::string_view name, char align) {
  const Bound bound(name, arguments, {"width", "fillchar"}, 1);
  const std::string fill = bound.Str(1, " ");
  if (CountChars(fill) != 1) Fail("The fill character must be exactly one character long");
  const auto length = static_cast<int64_t>(self.string().chars);
  const int64_t width = bound.Int(0, 0);
  const int64_t missing = width > length ? width - length : 0;
  Budget::StringSize(static_cast<uint64_t>(missing));
  const int64_t left = align == '<'   ? 0
                       : align == '>' ? missing
                                      : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.text();
  for (int64_t i = left; i < missing; ++i) out += fill;
  return Text(std::move(out), self);
}

Value Center(Interpreter&, const Value& self, Arguments& a) {
  return Padded(self, a, "center", '^');
}
Value LJust(Interpreter&, const Value& self, Arguments& a) { return Padded(self, a, "ljust", '<'); }
Value RJust(Interpreter&, const Value& self, Arguments& a) { return Padded(self, a, "rjust", '>'); }

Value ZFill(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("zfill", arguments, {"width"}, 1);
  const int64_t missing = bound.Int(0, 0) - static_cast<int64_t>(self.string().chars);
  if (missing <= 0) return self;
  Budget::StringSize(static_cast<uint64_t>(missing));
  const std::string& text = self.text();
  const size_t sign = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  return Text(
      text.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') + text.substr(sign),
      self);
}

Value ExpandTabs(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("expandtabs", arguments, {"tabsize"});
  const int64_t size = std::clamp<int64_t>(bound.Int(0, 8), 0, 10000);
  std::string out;
  int64_t column = 0;
  const std::string& text = self.text();
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeChar(text, &pos);
    if (c == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
      Budget::StringSize(out.size());
    } else {
      out.append(text, begin, pos - begin);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return Text(std::move(out), self);
}

// --- classes

template <bool (*kClass)(char32_t)>
Value All(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("str method", arguments, {});
  const std::string& text = self.text();
  for (size_t pos = 0; pos < text.size();) {
    if (!kClass(DecodeChar(text, &pos))) return Value::Bool(false);
  }
  return Value::Bool(!text.empty());
}

bool IsAsciiChar(char32_t c) { return c < 0x80; }

Value OrEmpty(Interpreter& interpreter, const Value& self, Arguments& arguments, Method all) {
  const Value value = all(interpreter, self, arguments);
  return self.text().empty() ? Value::Bool(true) : value;
}
Value IsAscii(Interpreter& i, const Value& self, Arguments& a) {
  return OrEmpty(i, self, a, All<IsAsciiChar>);
}
Value IsPrintableText(Interpreter& i, const Value& self, Arguments& a) {
  return OrEmpty(i, self, a, All<IsPrintable>);
}

Value CaseTest(Interpreter& interpreter, const Value& self, Arguments& arguments,
               std::string_view name) {
  return FindTest(name)(interpreter, self, arguments);
}
Value IsLower(Interpreter& i, const Value& self, Arguments& a) {
  return CaseTest(i, self, a, "lower");
}
Value IsUpper(Interpreter& i, const Value& self, Arguments& a) {
  return CaseTest(i, self, a, "upper");
}

Value IsTitle(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("istitle", arguments, {});
  bool cased = false;
  bool previous_cased = false;
  for (size_t pos = 0; pos < self.text().size();) {
    const char32_t c = DecodeChar(self.text(), &pos);
    const bool begins = IsUpperChar(c) || IsTitleChar(c);
    if ((begins && previous_cased) || (IsLowerChar(c) && !previous_cased))
      return Value::Bool(false);
    previous_cased = begins || IsLowerChar(c);
    cased = cased || previous_cased;
  }
  return Value::Bool(cased);
}

Value IsIdentifier(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("isidentifier", arguments, {});
  const std::string& text = self.text();
  for (size_t pos = 0; pos < text.size();) {
    const bool first = pos == 0;
    const char32_t c = DecodeChar(text, &pos);
    if (c != '_' && !(first ? IsAlpha(c) : IsAlnum(c))) return Value::Bool(false);
  }
  return Value::Bool(!text.empty());
}

// --- format

Value Format(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  return Text(BraceFormat(interpreter, self.text(), arguments), self);
}

Value FormatMap(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("format_map", arguments, {"mapping"}, 1);
  if (!bound[0].is(Kind::kDict)) Fail("format_map() needs a mapping");
  Arguments named;
  for (const auto& [key, value] : bound[0].dict().items)
    named.keyword.emplace_back(ToStr(key), value);
  return Text(BraceFormat(interpreter, self.text(), named), self);
}

const std::map<std::string_view, Method>& Methods() {
  static const auto* const methods =
      new std::map<std::string_view, Method>{{"capitalize", Mapped<Capitalize>},
                                             {"casefold", Mapped<CaseFold>},
                                             {"lower", Mapped<ToLower>},
                                             {"upper", Mapped<ToUpper>},
                                             {"swapcase", Mapped<SwapCase>},
                                             {"title", Mapped<ToTitle>},
                                             {"strip", StripBoth},
                                             {"lstrip", LStrip},
                                             {"rstrip", RStrip},
                                             {"removeprefix", RemovePrefix},
                                             {"removesuffix", RemoveSuffix},
                                             {"find", FindMethodOf},
                                             {"rfind", RFind},
                                             {"index", Index},
                                             {"rindex", RIndex},
                                             {"count", Count},
                                             {"startswith", StartsWith},
                                             {"endswith", EndsWith},
                                             {"split", Split},
                                             {"rsplit", RSplit},
                                             {"splitlines", SplitLines},
                                             {"partition", Partition},
                                             {"rpartition", RPartition},
                                             {"join", Join},
                                             {"replace", Replace},
                                             {"center", Center},
                                             {"ljust", LJust},
                                             {"rjust", RJust},
                                             {"zfill", ZFill},
                                             {"expandtabs", ExpandTabs},
                                             {"isalnum", All<IsAlnum>},
                                             {"isalpha", All<IsAlpha>},
                                             {"isascii", IsAscii},
                                             {"isdecimal", All<IsDecimal>},
                                             {"isdigit", All<IsDigit>},
                                             {"isnumeric", All<IsNumeric>},
                                             {"isspace", All<IsSpace>},
                                             {"isprintable", IsPrintableText},
                                             {"islower", IsLower},
                                             {"isupper", IsUpper},
                                             {"istitle", IsTitle},
                                             {"isidentifier", IsIdentifier},
                                             {"format", Format},
                                             {"format_map", FormatMap}};
  return *methods;
}

}  // namespace

Value CallStringMethod(Interpreter& interpreter, const Value& self, std::string_view name,
                       Arguments& arguments) {
  const auto it = Methods().find(name);
  if (it == Methods().end()) Fail(Cat("'str' object has no attribute ", ReprString(name)));
  return it->second(interpreter, self, arguments);
}

}  // namespace tundra::jinja
