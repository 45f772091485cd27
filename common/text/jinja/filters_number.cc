// Filters that make numbers, and the tables of all filters.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

// int(text, base): white space around, a sign, single "_" between digits.
bool ParseInt(std::string_view text, int64_t base, int64_t* out) {
  text = Strip(text);
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const auto prefixed = [&](char lower, int64_t radix) {
    return text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == lower &&
           (base == 0 || base == radix);
  };
  for (const auto& [letter, radix] : {std::pair{'x', 16}, {'o', 8}, {'b', 2}}) {
    if (prefixed(letter, radix)) {
      base = radix;
      text.remove_prefix(2);
      break;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) Fail("int() base must be >= 2 and <= 36, or 0");
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits += text[i];
    } else if (i == 0 || i + 1 == text.size() || text[i + 1] == '_') {
      return false;
    }
  }
  uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), magnitude,
                                            static_cast<int>(base));
  if (digits.empty() || end != digits.data() + digits.size()) return false;
  if (error != std::errc() || magnitude > static_cast<uint64_t>(INT64_MAX)) {
    Fail("integer too large: it does not fit 64 bits");
  }
  *out = negative ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude);
  return true;
}

// float(text).
bool ParseFloat(std::string_view text, double* out) {
  const std::string stripped(Strip(text));
  std::string digits;
  for (size_t i = 0; i < stripped.size(); ++i) {
    const auto digit = [&](size_t at) {
      return at < stripped.size() && stripped[at] >= '0' && stripped[at] <= '9';
    };
    if (stripped[i] == '_') {
      if (i == 0 || !digit(i - 1) || !digit(i + 1)) return false;
    } else {
      digits += stripped[i];
    }
  }
  if (digits.empty() || digits.find_first_of("xXpP(") != std::string::npos) return false;
  char* end = nullptr;
  *out = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size();
}

bool FloatToInt(double d, int64_t* out) {
  if (std::isnan(d) || std::isinf(d)) return false;
  if (std::abs(d) >= 9.2e18) Fail("integer too large: it does not fit 64 bits");
  *out = static_cast<int64_t>(d);
  return true;
}

Value Int(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  int64_t result = 0;
  double real = 0;
  if (input.is_string()) {
    if (ParseInt(input.text(), bound.Int(1, 10), &result)) return Value::Int(result);
    if (ParseFloat(input.text(), &real) && FloatToInt(real, &result)) return Value::Int(result);
  } else if (input.is_integral()) {
    return Value::Int(input.int_value());
  } else if (input.is(Kind::kFloat)) {
    if (std::isinf(input.float_value())) Fail("cannot convert float infinity to integer");
    if (FloatToInt(input.float_value(), &result)) return Value::Int(result);
  } else {
    RequireDefined(input);
  }
  return bound.get(0, Value::Int(0));
}

Value FloatFilter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  double real = 0;
  if (input.is_number()) return Value::Float(input.float_value());
  if (input.is_string() && ParseFloat(input.text(), &real)) return Value::Float(real);
  RequireDefined(input);
  return bound.get(0, Value::Float(0));
}

Value Abs(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("abs", arguments, {});
  if (input.is_integral()) return input.int_value() < 0 ? Negate(input) : Positive(input);
  if (input.is(Kind::kFloat)) return Value::Float(std::abs(input.float_value()));
  RequireDefined(input);
  Fail(Cat("bad operand type for abs(): '", TypeName(input), "'"));
}

// round(x, digits) of CPython: correctly rounded, ties to even, through the
// decimal digits of x.
double RoundTo(double x, int64_t digits) {
  if (std::isnan(x) || std::isinf(x) || digits > 320) return x;
  if (digits < -310) return 0.0 * x;
  if (digits >= 0)
    return std::strtod(PercentFormat(Cat("%.", digits, "f"), Value::Float(x)).c_str(), nullptr);
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(x / scale) * scale;
}

Value Round(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.Int(0, 0);
  const std::string method = bound.Str(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    Fail("method must be common, ceil or floor");
  }
  if (!input.is_number()) {
    RequireDefined(input);
    Fail(Cat("type ", TypeName(input), " doesn't define __round__ method"));
  }
  if (method == "common") {
    if (input.is_integral() && precision >= 0) return Value::Int(input.int_value());
    const double rounded = RoundTo(input.float_value(), precision);
    int64_t whole = 0;
    if (input.is_integral() && FloatToInt(rounded, &whole)) return Value::Int(whole);
    return Value::Float(rounded);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.float_value() * scale;
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value FileSize(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("filesizeformat", arguments, {"binary"});
  Arguments none;
  double bytes = input.is_number() ? input.float_value() : 0;
  if (input.is_string() && !ParseFloat(input.text(), &bytes))
    Fail("could not convert string to float");
  const bool binary = bound.Truth(0, false);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return Value::String("1 Byte");
  if (bytes < base) return Value::String(Cat(static_cast<int64_t>(bytes), " Bytes"));
  static constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0; i < kPrefixes.size(); ++i) {
    unit *= base;
    if (bytes < unit || i + 1 == kPrefixes.size()) {
      const char prefix = binary && i == 0 ? 'K' : kPrefixes[i];
      return Value::String(Cat(FormatSpec(Value::Float(base * bytes / unit), ".1f"), " ",
                               std::string(1, prefix), binary ? "iB" : "B"));
    }
  }
  return Value::String("");
}

const FilterTable& Filters() {
  static const FilterTable* const table = [] {
    auto* made = new FilterTable;
    AddTextFilters(made);
    AddNumberFilters(made);
    AddSequenceFilters(made);
    AddSelectionFilters(made);
    return made;
  }();
  return *table;
}

}  // namespace

void AddNumberFilters(FilterTable* table) {
  table->insert({{"int", Int},
                 {"float", FloatFilter},
                 {"abs", Abs},
                 {"round", Round},
                 {"filesizeformat", FileSize}});
}

Filter FindFilter(std::string_view name) {
  const auto it = Filters().find(name);
  return it == Filters().end() ? nullptr : it->second;
}

bool FilterExists(std::string_view name) { return FindFilter(name) != nullptr; }

}  // namespace tundra::jinja
