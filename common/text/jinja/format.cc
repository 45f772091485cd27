// Python's three ways to format: "%" on a string, str.format, and format specs.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

constexpr int64_t kMaxWidth = 100000;

std::string AsciiRepr(const Value& value) {
  std::string out;
  const std::string repr = Repr(value);
  for (size_t pos = 0; pos < repr.size();) {
    const char32_t c = DecodeChar(repr, &pos);
    char buffer[16];
    if (c < 0x80) {
      out += static_cast<char>(c);
      continue;
    }
    std::snprintf(buffer, sizeof buffer,
                  c < 0x100     ? "\\x%02x"
                  : c < 0x10000 ? "\\u%04x"
                                : "\\U%08x",
                  static_cast<unsigned>(c));
    out += buffer;
  }
  return out;
}

std::string IntDigits(uint64_t magnitude, int radix, bool upper) {
  char buffer[80];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, magnitude, radix).ptr;
  std::string digits(buffer, end);
  return upper ? ToUpper(digits) : digits;
}

std::string PrintDouble(char type, int precision, bool alternate, double d) {
  if (std::isnan(d)) return type >= 'A' && type <= 'Z' ? "NAN" : "nan";
  if (std::isinf(d)) return type >= 'A' && type <= 'Z' ? "INF" : "inf";
  const char pattern[] = {'%', alternate ? '#' : '0', '.', '*', type, '\0'};
  const std::string format = alternate ? pattern : std::string("%.*") + type;
  const int size = std::snprintf(nullptr, 0, format.c_str(), precision, d);
  std::string out(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), format.c_str(), precision, d);
  out.pop_back();
  return out;
}

int64_t RequireInt(const Value& value, char type) {
  if (value.is_integral()) return value.int_value();
  if (value.is(Kind::kFloat) && type == 'd' && std::abs(value.float_value()) < 9e18) {
    return static_cast<int64_t>(value.float_value());
  }
  RequireDefined(value);
  Fail(Cat("%", std::string(1, type), " format: an integer is required, not ", TypeName(value)));
}

// One "%" conversion.
struct Conversion {
  bool minus = false, plus = false, space = false, zero = false, alternate = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 's';
};

std::string Pad(std::string text, std::string_view sign, const Conversion& c, bool numeric) {
  const auto length = static_cast<int64_t>(CountChars(text) + sign.size());
  const auto fill = static_cast<size_t>(std::max<int64_t>(c.width - length, 0));
  if (c.minus) return Cat(sign, text, std::string(fill, ' '));
  if (c.zero && numeric) return Cat(sign, std::string(fill, '0'), text);
  return Cat(std::string(fill, ' '), sign, text);
}

std::string SignOf(bool negative, const Conversion& c) {
  return negative ? "-" : c.plus ? "+" : c.space ? " " : "";
}

std::string Convert(const Conversion& c, const Value& value) {
  std::string text;
  switch (c.type) {
    case 's':
    case 'r':
    case 'a':
      text = c.type == 's' ? ToStr(value) : c.type == 'r' ? Repr(value) : AsciiRepr(value);
      if (c.precision >= 0)
        text = text.substr(0, ByteOffset(text, static_cast<size_t>(c.precision)));
      return Pad(std::move(text), "", c, false);
    case 'c':
      if (value.is_string() && value.string().chars == 1) return Pad(value.text(), "", c, false);
      AppendChar(static_cast<char32_t>(RequireInt(value, 'c')), &text);
      return Pad(std::move(text), "", c, false);
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o': {
      const bool decimal = c.type == 'd' || c.type == 'i' || c.type == 'u';
      const int64_t number = RequireInt(value, decimal ? 'd' : c.type);
      const int radix = decimal ? 10 : c.type == 'o' ? 8 : 16;
      const uint64_t magnitude =
          number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
      text = IntDigits(magnitude, radix, c.type == 'X');
      if (static_cast<int64_t>(text.size()) < c.precision) {
        text.insert(0, static_cast<size_t>(c.precision) - text.size(), '0');
      }
      std::string sign = SignOf(number < 0, c);
      if (c.alternate && radix != 10) sign += Cat("0", std::string(1, c.type));
      return Pad(std::move(text), sign, c, true);
    }
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G': {
      if (!value.is_number()) {
        RequireDefined(value);
        Fail(Cat("must be real number, not ", TypeName(value)));
      }
      const double d = value.float_value();
      text = PrintDouble(c.type, c.precision < 0 ? 6 : static_cast<int>(c.precision), c.alternate,
                         std::abs(d));
      return Pad(std::move(text), SignOf(std::signbit(d) && !std::isnan(d), c), c, true);
    }
    default:
      Fail(Cat("unsupported format character '", std::string(1, c.type), "'"));
  }
}

// The arguments of a "%", taken in turn or by name.
class PercentArguments {
 public:
  explicit PercentArguments(const Value& value) : value_(value) {}
  const Value& Next() {
    if (!value_.is(Kind::kTuple)) {
      if (used_ > 0) Fail("not enough arguments for format string");
      ++used_;
      return value_;
    }
    if (used_ >= value_.list().items.size()) Fail("not enough arguments for format string");
    return value_.list().items[used_++];
  }
  const Value& Named(std::string_view name) {
    named_ = true;
    if (!value_.is(Kind::kDict)) Fail("format requires a mapping");
    const Value* found = value_.dict().Find(name);
    if (found == nullptr) Fail(Cat("KeyError: ", ReprString(name)));
    return *found;
  }
  void Finish() const {
    const bool left = value_.is(Kind::kTuple)
                          ? used_ < value_.list().items.size()
                          : used_ == 0 && !value_.is(Kind::kDict) && !value_.is(Kind::kList);
    if (left && !named_) Fail("not all arguments converted during string formatting");
  }

 private:
  const Value& value_;
  size_t used_ = 0;
  bool named_ = false;
};

int64_t ReadNumber(std::string_view text, size_t* pos) {
  int64_t number = 0;
  while (*pos < text.size() && text[*pos] >= '0' && text[*pos] <= '9') {
    number = number * 10 + (text[(*pos)++] - '0');
    if (number > kMaxWidth) Fail("the width or precision of a format is too large");
  }
  return number;
}

int64_t ReadWidth(std::string_view text, size_t* pos, PercentArguments* arguments) {
  if (*pos < text.size() && text[*pos] == '*') {
    ++*pos;
    const int64_t width = RequireInt(arguments->Next(), '*');
    if (width > kMaxWidth || width < -kMaxWidth) Fail("the width of a format is too large");
    return width;
  }
  return ReadNumber(text, pos);
}

}  // namespace

std::string PercentFormat(std::string_view text, const Value& value) {
  PercentArguments arguments(value);
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    if (text[pos] != '%') {
      out += text[pos++];
      continue;
    }
    ++pos;
    Conversion c;
    std::optional<std::string> name;
    if (pos < text.size() && text[pos] == '(') {
      const size_t close = text.find(')', pos);
      if (close == std::string_view::npos) Fail("incomplete format key");
      name = std::string(text.substr(pos + 1, close - pos - 1));
      pos = close + 1;
    }
    for (; pos < text.size(); ++pos) {
      const char flag = text[pos];
      if (flag == '-')
        c.minus = true;
      else if (flag == '+')
        c.plus = true;
      else if (flag == ' ')
        c.space = true;
      else if (flag == '0')
        c.zero = true;
      else if (flag == '#')
        c.alternate = true;
      else
        break;
    }
    c.width = ReadWidth(text, &pos, &arguments);
    if (c.width < 0) c.minus = true, c.width = -c.width;
    if (pos < text.size() && text[pos] == '.') {
      ++pos;
      c.precision = std::max<int64_t>(ReadWidth(text, &pos, &arguments), 0);
    }
    while (pos < text.size() && (text[pos] == 'l' || text[pos] == 'h' || text[pos] == 'L')) ++pos;
    if (pos >= text.size()) Fail("incomplete format");
    c.type = text[pos++];
    if (c.type == '%') {
      out += '%';
      continue;
    }
    out += Convert(c, name.has_value() ? arguments.Named(*name) : arguments.Next());
    Budget::StringSize(out.size());
  }
  arguments.Finish();
  return out;
}

namespace {

struct Spec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  bool alternate = false, zero = false;
  int64_t width = 0;
  char grouping = 0;
  int64_t precision = -1;
  char type = 0;
};

Spec ParseSpec(std::string_view text) {
  Spec spec;
  size_t pos = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) {
    size_t after = 0;
    DecodeChar(text, &after);
    if (after < text.size() && is_align(text[after])) {
      spec.fill = std::string(text.substr(0, after));
      spec.align = text[after];
      pos = after + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      pos = 1;
    }
  }
  const auto take = [&](std::string_view any) -> char {
    return pos < text.size() && any.find(text[pos]) != std::string_view::npos ? text[pos++] : '\0';
  };
  if (const char sign = take("+- "); sign != 0) spec.sign = sign;
  spec.alternate = take("#") != 0;
  if (take("0") != 0) {
    spec.zero = true;
    if (spec.align == 0) spec.fill.assign(1, '0'), spec.align = '=';
  }
  spec.width = ReadNumber(text, &pos);
  spec.grouping = take(",_");
  if (take(".") != 0) {
    const size_t before = pos;
    spec.precision = ReadNumber(text, &pos);
    if (pos == before) Fail("Format specifier missing precision");
  }
  spec.type = take("bcdeEfFgGnosxX%");
  if (pos != text.size()) Fail(Cat("Invalid format specifier '", text, "'"));
  return spec;
}

std::string Align(const Spec& spec, std::string_view sign, std::string_view body, char otherwise) {
  const auto length = static_cast<int64_t>(CountChars(body) + sign.size());
  const int64_t fill = std::max<int64_t>(spec.width - length, 0);
  const char align = spec.align == 0 ? otherwise : spec.align;
  const int64_t left = align == '<' ? 0 : align == '^' ? fill / 2 : fill;
  const auto repeat = [&](int64_t count) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += spec.fill;
    return out;
  };
  if (align == '=') return Cat(sign, repeat(fill), body);
  return Cat(repeat(left), sign, body, repeat(fill - left));
}

std::string Group(std::string digits, char separator) {
  if (separator == 0) return digits;
  size_t end = digits.find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits.size();
  for (size_t i = end; i > 3; i -= 3) digits.insert(i - 3, 1, separator);
  return digits;
}

std::string FormatNumber(const Value& value, const Spec& spec) {
  const bool negative = value.is(Kind::kFloat)
                            ? std::signbit(value.float_value()) && !std::isnan(value.float_value())
                            : value.int_value() < 0;
  std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  const bool as_int = value.is_integral() &&
                      std::string_view("\0bcdnoxX", 8).find(spec.type) != std::string_view::npos;
  std::string body;
  if (as_int) {
    if (spec.precision >= 0) Fail("Precision not allowed in integer format specifier");
    const int64_t n = value.int_value();
    if (spec.type == 'c') {
      AppendChar(static_cast<char32_t>(n), &body);
      return Align(spec, "", body, '<');
    }
    const int radix = spec.type == 'b'                       ? 2
                      : spec.type == 'o'                     ? 8
                      : spec.type == 'x' || spec.type == 'X' ? 16
                                                             : 10;
    body = IntDigits(n < 0 ? 0 - static_cast<uint64_t>(n) : static_cast<uint64_t>(n), radix,
                     spec.type == 'X');
    body = Group(std::move(body), spec.grouping);
    if (spec.alternate && radix != 10) sign += Cat("0", std::string(1, spec.type));
    return Align(spec, sign, body, '>');
  }
  const double d = std::abs(value.float_value());
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  switch (spec.type) {
    case 0:
      body = spec.precision < 0 ? ReprFloat(d) : PrintDouble('g', std::max(precision, 1), false, d);
      if (spec.precision >= 0 && body.find_first_of(".en") == std::string::npos) body += ".0";
      break;
    case '%':
      body = PrintDouble('f', precision, spec.alternate, d * 100) + "%";
      break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      body = PrintDouble(spec.type, precision, spec.alternate, d);
      break;
    case 'n':
      body = PrintDouble('g', precision, spec.alternate, d);
      break;
    default:
      Fail(Cat("Unknown format code '", std::string(1, spec.type), "' for object of type '",
               TypeName(value), "'"));
  }
  return Align(spec, sign, Group(std::move(body), spec.grouping), '>');
}

}  // namespace

std::string FormatSpec(const Value& value, std::string_view text) {
  if (text.empty()) return ToStr(value);
  if (value.is_string()) {
    const Spec spec = ParseSpec(text);
    if (spec.type != 0 && spec.type != 's') {
      Fail(Cat("Unknown format code '", std::string(1, spec.type), "' for object of type 'str'"));
    }
    std::string body = value.text();
    if (spec.precision >= 0)
      body = body.substr(0, ByteOffset(body, static_cast<size_t>(spec.precision)));
    return Align(spec, "", body, '<');
  }
  if (value.is_number()) return FormatNumber(value, ParseSpec(text));
  Fail(Cat("unsupported format string passed to ", TypeName(value), ".__format__"));
}

namespace {

// The fields of a str.format.
class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, Arguments& arguments)
      : interpreter_(interpreter), arguments_(arguments) {}
  std::string Format(std::string_view text, int depth);

 private:
  std::string Field(std::string_view field, int depth);
  Value Lookup(std::string_view name);
  Value First(std::string_view name);

  Interpreter& interpreter_;
  Arguments& arguments_;
  int64_t automatic_ = 0;
  bool manual_ = false;
};

bool AllDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Value BraceFormatter::First(std::string_view name) {
  int64_t index = -1;
  if (name.empty()) {
    if (manual_) Fail("cannot switch from manual field specification to automatic field numbering");
    index = automatic_++;
  } else if (AllDigits(name)) {
    if (automatic_ > 0)
      Fail("cannot switch from automatic field numbering to manual field specification");
    manual_ = true;
    size_t pos = 0;
    index = ReadNumber(name, &pos);
  }
  if (index >= 0) {
    if (static_cast<size_t>(index) >= arguments_.positional.size()) {
      Fail("Replacement index out of range for positional args tuple");
    }
    return arguments_.positional[static_cast<size_t>(index)];
  }
  for (const auto& [key, value] : arguments_.keyword) {
    if (key == name) return value;
  }
  Fail(Cat("KeyError: ", ReprString(name)));
}

Value BraceFormatter::Lookup(std::string_view name) {
  size_t end = std::min(name.find_first_of(".["), name.size());
  Value value = First(name.substr(0, end));
  while (end < name.size()) {
    if (name[end] == '.') {
      const size_t next = std::min(name.find_first_of(".[", end + 1), name.size());
      value = interpreter_.Attribute(value, std::string(name.substr(end + 1, next - end - 1)));
      end = next;
      continue;
    }
    const size_t close = name.find(']', end);
    if (name[end] != '[' || close == std::string_view::npos) Fail("Missing ']' in format string");
    const std::string_view key = name.substr(end + 1, close - end - 1);
    size_t pos = 0;
    value = interpreter_.Item(value, AllDigits(key) ? Value::Int(ReadNumber(key, &pos))
                                                    : Value::String(std::string(key)));
    end = close + 1;
  }
  return value;
}

std::string BraceFormatter::Field(std::string_view field, int depth) {
  size_t name_end = 0;
  for (int brackets = 0; name_end < field.size(); ++name_end) {
    if (field[name_end] == '[') brackets = 1;
    if (field[name_end] == ']') brackets = 0;
    if (brackets == 0 && (field[name_end] == ':' || field[name_end] == '!')) break;
  }
  Value value = Lookup(field.substr(0, name_end));
  std::string_view rest = field.substr(name_end);
  if (rest.starts_with("!")) {
    const char conversion = rest.size() > 1 ? rest[1] : '\0';
    if (conversion == 'r')
      value = Value::String(Repr(value));
    else if (conversion == 's')
      value = Value::String(ToStr(value));
    else if (conversion == 'a')
      value = Value::String(AsciiRepr(value));
    else
      Fail("Unknown conversion specifier");
    rest.remove_prefix(2);
    if (!rest.empty() && rest[0] != ':') Fail("expected ':' after conversion specifier");
  }
  const std::string spec = rest.empty() ? "" : Format(rest.substr(1), depth + 1);
  return FormatSpec(value, spec);
}

std::string BraceFormatter::Format(std::string_view text, int depth) {
  if (depth > 2) Fail("Max string recursion exceeded");
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const char c = text[pos];
    if ((c == '{' || c == '}') && pos + 1 < text.size() && text[pos + 1] == c && depth == 0) {
      out += c;
      pos += 2;
      continue;
    }
    if (c == '}') Fail("Single '}' encountered in format string");
    if (c != '{') {
      out += c;
      ++pos;
      continue;
    }
    size_t end = pos + 1;
    for (int open = 1; end < text.size(); ++end) {
      if (text[end] == '{') ++open;
      if (text[end] == '}' && --open == 0) break;
    }
    if (end >= text.size()) Fail("expected '}' before end of string");
    out += Field(text.substr(pos + 1, end - pos - 1), depth);
    Budget::StringSize(out.size());
    pos = end + 1;
  }
  return out;
}

}  // namespace

std::string BraceFormat(Interpreter& interpreter, std::string_view text, Arguments& arguments) {
  return BraceFormatter(interpreter, arguments).Format(text, 0);
}

}  // namespace tundra::jinja
