// Filters that work on texts.
#include <algorithm>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/search.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
    if (out.size() % 4096 == 0) Budget::StringSize(out.size());
  }
  return out;
}

namespace {

// A string method of the input's text, the filter's arguments passed on.
Value Method(Interpreter& interpreter, const Value& input, std::string_view name,
             Arguments& arguments) {
  const Value text = input.is_string() ? input : Value::String(ToStr(input));
  return CallStringMethod(interpreter, text, name, arguments);
}

Value Upper(Interpreter& i, const Value& input, Arguments& a) {
  return Method(i, input, "upper", a);
}
Value Lower(Interpreter& i, const Value& input, Arguments& a) {
  return Method(i, input, "lower", a);
}
Value CapitalizeFilter(Interpreter& i, const Value& input, Arguments& a) {
  return Method(i, input, "capitalize", a);
}

Value Center(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  Arguments center;
  center.positional.push_back(bound.get(0, Value::Int(80)));
  return Method(interpreter, input, "center", center);
}

Value Trim(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  Arguments strip;
  if (bound.has(0)) strip.positional.push_back(bound[0]);
  return Method(interpreter, input, "strip", strip);
}

Value Title(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("title", arguments, {});
  // Words begin after "-", white space and opening brackets.
  const std::string text = ToStr(input);
  std::string out;
  bool begins = true;
  std::string rest;
  const auto flush = [&] {
    out += ToLower(rest);
    rest.clear();
  };
  for (size_t pos = 0; pos < text.size();) {
    const size_t from = pos;
    const char32_t c = DecodeChar(text, &pos);
    const std::string_view one = std::string_view(text).substr(from, pos - from);
    const bool splits = c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c);
    if (splits) {
      flush();
      out += one;
    } else if (begins) {
      out += ToUpper(one);
    } else {
      rest += one;
    }
    begins = splits;
  }
  flush();
  return Value::String(std::move(out), input.is_markup());
}

Value Replace(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  Arguments plain;
  plain.positional = {Value::String(ToStr(bound[0])), Value::String(ToStr(bound[1]))};
  if (!bound.NoneOrAbsent(2)) plain.positional.push_back(bound[2]);
  return CallStringMethod(interpreter, Value::String(ToStr(input)), "replace", plain);
}

Value Escape(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("escape", arguments, {});
  return input.is_markup() ? input : Value::String(EscapeHtml(ToStr(input)), true);
}

Value ForceEscape(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("forceescape", arguments, {});
  return Value::String(EscapeHtml(ToStr(input)), true);
}

Value Safe(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("safe", arguments, {});
  return Value::String(ToStr(input), true);
}

Value StringFilter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("string", arguments, {});
  return input.is_string() ? input : Value::String(ToStr(input));
}

Value Format(Interpreter&, const Value& input, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keyword.empty()) {
    Fail("can't handle positional and keyword arguments at the same time");
  }
  if (arguments.keyword.empty()) {
    return Value::String(PercentFormat(ToStr(input), Value::Tuple(arguments.positional)));
  }
  auto dict = std::make_shared<DictObject>();
  for (const auto& [key, value] : arguments.keyword) dict->Set(Value::String(key), value);
  return Value::String(PercentFormat(ToStr(input), Value::Dict(std::move(dict))));
}

Value Indent(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  std::string indention;
  if (bound.has(0) && bound[0].is_string()) {
    indention = bound[0].text();
  } else {
    const int64_t width = std::max<int64_t>(bound.Int(0, 4), 0);
    Budget::StringSize(static_cast<uint64_t>(width));
    indention = std::string(static_cast<size_t>(width), ' ');
  }
  Arguments none;
  const Value padded = Add(input, Value::String("\n", input.is_markup()));
  const std::vector<Value> lines =
      Iterate(CallStringMethod(interpreter, padded, "splitlines", none));
  Budget::StringSize(input.text().size() + lines.size() * (indention.size() + 1));
  std::string out;
  const bool blank = bound.Truth(2, false);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i].text();
    if (i > 0) {
      out += '\n';
      if (blank || !line.empty()) out += indention;
    }
    out += line;
  }
  if (bound.Truth(1, false)) out.insert(0, indention);
  return Value::String(std::move(out), input.is_markup());
}

Value Truncate(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t length = bound.Int(0, 255);
  const std::string end = bound.Str(2, "...");
  const int64_t leeway = bound.NoneOrAbsent(3) ? 5 : bound.Int(3, 5);
  const auto end_chars = static_cast<int64_t>(CountChars(end));
  if (length < end_chars) Fail(Cat("expected length >= ", end_chars, ", got ", length));
  if (leeway < 0) Fail(Cat("expected leeway >= 0, got ", leeway));
  if (Length(input) <= length + leeway) return input;
  if (!input.is_string()) Fail(Cat("'", TypeName(input), "' object has no text to truncate"));
  std::string text =
      input.text().substr(0, ByteOffset(input.text(), static_cast<size_t>(length - end_chars)));
  if (!bound.Truth(1, false)) {
    if (const size_t space = text.rfind(' '); space != std::string::npos) text.resize(space);
  }
  return Value::String(text + end);
}

Value WordCount(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  const std::string text = ToStr(input);
  int64_t count = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = DecodeChar(text, &pos);
    const bool word = c == '_' || IsAlnum(c);
    if (word && !inside) ++count;
    inside = word;
  }
  return Value::Int(count);
}

Value ToJsonFilter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.Truth(0, false);
  style.sort_keys = bound.Truth(3, false);
  if (!bound.NoneOrAbsent(1)) {
    style.indented = true;
    style.item_separator.assign(1, ',');
    if (bound[1].is_string()) {
      style.indent = bound[1].text();
    } else {
      const int64_t width = std::clamp<int64_t>(bound.Int(1, 0), 0, 1000);
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
  }
  if (!bound.NoneOrAbsent(2)) {
    const std::vector<Value> separators = Iterate(bound[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
      Fail("tojson: separators must be two strings");
    }
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  return Value::String(ToJson(input, style));
}

void AppendQuoted(std::string_view text, bool query, std::string* out) {
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte < 0x80 && (IsAlnum(byte) ||
                                       std::string_view("_.-~").find(c) != std::string_view::npos);
    if (plain || (c == '/' && !query)) {
      *out += c;
    } else if (query && c == ' ') {
      *out += '+';
    } else {
      static constexpr char kHex[] = "0123456789ABCDEF";
      *out += '%';
      *out += kHex[byte >> 4];
      *out += kHex[byte & 15];
    }
  }
}

Value UrlEncode(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("urlencode", arguments, {});
  std::string out;
  if (!input.is(Kind::kDict) && !input.is_listed()) {
    AppendQuoted(ToStr(input), false, &out);
    return Value::String(std::move(out));
  }
  const auto append = [&](const Value& key, const Value& value) {
    if (!out.empty()) out += '&';
    AppendQuoted(ToStr(key), true, &out);
    out += '=';
    AppendQuoted(ToStr(value), true, &out);
  };
  if (input.is(Kind::kDict)) {
    for (const auto& [key, value] : input.dict().items) append(key, value);
  } else {
    for (const Value& pair : Iterate(input)) {
      const std::vector<Value> two = Iterate(pair);
      if (two.size() != 2) Fail("urlencode needs pairs of key and value");
      append(two[0], two[1]);
    }
  }
  return Value::String(std::move(out));
}

Value StripTags(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("striptags", arguments, {});
  std::string text = ToStr(input);
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    if (text.compare(pos, 4, "<!--") == 0) {
      const size_t end = text.find("-->", pos);
      if (end == std::string::npos) break;
      pos = end + 3;
    } else if (text[pos] == '<') {
      const size_t end = text.find('>', pos);
      if (end == std::string::npos) break;
      pos = end + 1;
      continue;
    } else {
      out += text[pos++];
    }
  }
  // White space in a row becomes one space; entities of the five are undone.
  Arguments none;
  const std::vector<Value> words =
      Iterate(CallStringMethod(interpreter, Value::String(out), "split", none));
  std::string joined;
  for (const Value& word : words) joined += Cat(joined.empty() ? "" : " ", word.text());
  static constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
      {"&lt;", "<"},    {"&gt;", ">"},  {"&#34;", "\""},
      {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
  for (const auto& [entity, plain] : kEntities) {
    std::string undone;
    size_t pos = 0;
    for (size_t at = Find(joined, entity); at != std::string::npos;
         at = Find(joined, entity, pos)) {
      undone.append(joined, pos, at - pos).append(plain);
      pos = at + entity.size();
    }
    joined = undone.append(joined, pos);
  }
  return Value::String(std::move(joined));
}

}  // namespace

void AddTextFilters(FilterTable* table) {
  table->insert({{"upper", Upper},
                 {"lower", Lower},
                 {"capitalize", CapitalizeFilter},
                 {"trim", Trim},
                 {"center", Center},
                 {"title", Title},
                 {"replace", Replace},
                 {"e", Escape},
                 {"escape", Escape},
                 {"forceescape", ForceEscape},
                 {"safe", Safe},
                 {"string", StringFilter},
                 {"format", Format},
                 {"indent", Indent},
                 {"truncate", Truncate},
                 {"wordcount", WordCount},
                 {"tojson", ToJsonFilter},
                 {"urlencode", UrlEncode},
                 {"striptags", StripTags}});
}

}  // namespace tundra::jinja
