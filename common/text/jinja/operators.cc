// Python's operators on template values.
#include <algorithm>
#include <cmath>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/search.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

[[noreturn]] void FailOperands(std::string_view op, const Value& a, const Value& b) {
  RequireDefined(a);
  RequireDefined(b);
  Fail(
      Cat("unsupported operand type(s) for ", op, ": '", TypeName(a), "' and '", TypeName(b), "'"));
}

[[noreturn]] void FailOverflow() { Fail("integer too large: it does not fit 64 bits"); }

bool BothIntegral(const Value& a, const Value& b) { return a.is_integral() && b.is_integral(); }
bool BothNumbers(const Value& a, const Value& b) { return a.is_number() && b.is_number(); }

double PythonFloatMod(double a, double b) {
  double mod = std::fmod(a, b);
  if (mod != 0 && (b < 0) != (mod < 0)) mod += b;
  if (mod == 0) mod = std::copysign(0.0, b);
  return mod;
}

Value JoinLists(const Value& a, const Value& b) {
  std::vector<Value> items = a.list().items;
  items.insert(items.end(), b.list().items.begin(), b.list().items.end());
  return a.is(Kind::kList) ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

Value Repeat(const Value& value, int64_t times) {
  const auto count = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  if (value.is_string()) {
    const uint64_t size = value.text().size();
    if (size > 0 && count > (uint64_t{1} << 40) / size) Budget::StringSize(UINT64_MAX);
    Budget::StringSize(size * count);
    std::string out;
    out.reserve(size * count);
    for (uint64_t i = 0; i < count && size > 0; ++i) out += value.text();
    return Value::String(std::move(out), value.is_markup());
  }
  const auto& items = value.list().items;
  if (!items.empty() && count > (uint64_t{1} << 40) / items.size()) Budget::Work(UINT64_MAX);
  Budget::Work(count * items.size() * sizeof(Value));
  std::vector<Value> out;
  for (uint64_t i = 0; i < count && !items.empty(); ++i)
    out.insert(out.end(), items.begin(), items.end());
  return value.is(Kind::kList) ? Value::List(std::move(out)) : Value::Tuple(std::move(out));
}

bool Repeatable(const Value& value) {
  return value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple);
}

int64_t IntPower(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) FailOverflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) FailOverflow();
  }
  return result;
}

// The begin, end and step of a slice over `length` items, as Python's slice.indices.
struct Indices {
  int64_t begin, end, step;
};

Indices SliceIndices(int64_t length, const Value& begin, const Value& end, const Value& step) {
  const auto as_int = [](const Value& value) {
    if (!value.is_integral()) {
      RequireDefined(value);
      Fail("slice indices must be integers or None or have an __index__ method");
    }
    return value.int_value();
  };
  Indices indices{};
  indices.step = step.is_none() ? 1 : as_int(step);
  if (indices.step == 0) Fail("slice step cannot be zero");
  const int64_t low = indices.step < 0 ? -1 : 0;
  const int64_t high = indices.step < 0 ? length - 1 : length;
  const auto clamp = [&](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    const int64_t index = as_int(value);
    if (index < 0) return index < -length ? low : std::max(index + length, low);
    return std::min(index, high);
  };
  indices.begin = clamp(begin, indices.step < 0 ? high : low);
  indices.end = clamp(end, indices.step < 0 ? low : high);
  return indices;
}

template <typename Visit>
void ForEachIndex(const Indices& indices, int64_t length, Visit visit) {
  const int64_t step = std::clamp(indices.step, -length - 1, length + 1);
  for (int64_t i = indices.begin; step > 0 ? i < indices.end : i > indices.end; i += step) visit(i);
}

std::vector<size_t> CharOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t pos = 0; pos < text.size();) {
    offsets.push_back(pos);
    DecodeChar(text, &pos);
  }
  offsets.push_back(text.size());
  return offsets;
}

Value SliceString(const Value& value, const Value& begin, const Value& end, const Value& step) {
  const std::string& text = value.text();
  const auto length = static_cast<int64_t>(value.string().chars);
  const Indices indices = SliceIndices(length, begin, end, step);
  std::string out;
  if (text.size() == value.string().chars) {  // ASCII: bytes are characters
    if (indices.step == 1) {
      if (indices.begin < indices.end) {
        out = text.substr(static_cast<size_t>(indices.begin),
                          static_cast<size_t>(indices.end - indices.begin));
      }
    } else {
      ForEachIndex(indices, length, [&](int64_t i) { out += text[static_cast<size_t>(i)]; });
    }
  } else {
    Budget::Work(text.size() * sizeof(size_t));
    const std::vector<size_t> offsets = CharOffsets(text);
    ForEachIndex(indices, length, [&](int64_t i) {
      const auto at = static_cast<size_t>(i);
      out += std::string_view(text).substr(offsets[at], offsets[at + 1] - offsets[at]);
    });
  }
  return Value::String(std::move(out), value.is_markup());
}

}  // namespace

Value Add(const Value& a, const Value& b) {
  if (BothIntegral(a, b)) {
    int64_t sum = 0;
    if (__builtin_add_overflow(a.int_value(), b.int_value(), &sum)) FailOverflow();
    return Value::Int(sum);
  }
  if (BothNumbers(a, b)) return Value::Float(a.float_value() + b.float_value());
  if (a.is_string() && b.is_string()) {
    if (a.is_markup() || b.is_markup()) {
      return Value::String((a.is_markup() ? a.text() : EscapeHtml(a.text())) +
                               (b.is_markup() ? b.text() : EscapeHtml(b.text())),
                           true);
    }
    Budget::StringSize(a.text().size() + b.text().size());
    return Value::String(a.text() + b.text());
  }
  if (a.kind() == b.kind() && (a.is(Kind::kList) || a.is(Kind::kTuple))) return JoinLists(a, b);
  RequireDefined(a);
  RequireDefined(b);
  if (a.is_string()) {
    Fail(Cat("can only concatenate str (not \"", TypeName(b), "\") to str"));
  }
  if (a.is(Kind::kList) || a.is(Kind::kTuple)) {
    Fail(
        Cat("can only concatenate ", TypeName(a), " (not \"", TypeName(b), "\") to ", TypeName(a)));
  }
  FailOperands("+", a, b);
}

Value Subtract(const Value& a, const Value& b) {
  if (BothIntegral(a, b)) {
    int64_t difference = 0;
    if (__builtin_sub_overflow(a.int_value(), b.int_value(), &difference)) FailOverflow();
    return Value::Int(difference);
  }
  if (BothNumbers(a, b)) return Value::Float(a.float_value() - b.float_value());
  FailOperands("-", a, b);
}

Value Multiply(const Value& a, const Value& b) {
  if (BothIntegral(a, b)) {
    int64_t product = 0;
    if (__builtin_mul_overflow(a.int_value(), b.int_value(), &product)) FailOverflow();
    return Value::Int(product);
  }
  if (BothNumbers(a, b)) return Value::Float(a.float_value() * b.float_value());
  if (Repeatable(a) && b.is_integral()) return Repeat(a, b.int_value());
  if (Repeatable(b) && a.is_integral()) return Repeat(b, a.int_value());
  RequireDefined(a);
  RequireDefined(b);
  if (Repeatable(a)) Fail(Cat("can't multiply sequence by non-int of type '", TypeName(b), "'"));
  FailOperands("*", a, b);
}

Value Divide(const Value& a, const Value& b) {
  if (!BothNumbers(a, b)) FailOperands("/", a, b);
  if (b.float_value() == 0)
    Fail(BothIntegral(a, b) ? "division by zero" : "float division by zero");
  return Value::Float(a.float_value() / b.float_value());
}

Value FloorDivide(const Value& a, const Value& b) {
  if (!BothNumbers(a, b)) FailOperands("//", a, b);
  if (b.float_value() == 0) Fail("integer division or modulo by zero");
  if (!BothIntegral(a, b)) {
    const double mod = PythonFloatMod(a.float_value(), b.float_value());
    return Value::Float(std::nearbyint((a.float_value() - mod) / b.float_value()));
  }
  const int64_t x = a.int_value();
  const int64_t y = b.int_value();
  if (y == -1) return Negate(Value::Int(x));
  const int64_t quotient = x / y;
  return Value::Int(x % y != 0 && (x < 0) != (y < 0) ? quotient - 1 : quotient);
}

Value Modulo(Interpreter&, const Value& a, const Value& b) {
  if (a.is_string()) return Value::String(PercentFormat(a.text(), b), a.is_markup());
  if (!BothNumbers(a, b)) FailOperands("%", a, b);
  if (b.float_value() == 0) Fail("integer division or modulo by zero");
  if (!BothIntegral(a, b)) return Value::Float(PythonFloatMod(a.float_value(), b.float_value()));
  const int64_t y = b.int_value();
  if (y == -1) return Value::Int(0);
  const int64_t mod = a.int_value() % y;
  return Value::Int(mod != 0 && (mod < 0) != (y < 0) ? mod + y : mod);
}

Value Power(const Value& a, const Value& b) {
  if (!BothNumbers(a, b)) FailOperands("** or pow()", a, b);
  if (BothIntegral(a, b) && b.int_value() >= 0)
    return Value::Int(IntPower(a.int_value(), b.int_value()));
  if (a.float_value() == 0 && b.float_value() < 0) Fail("0.0 cannot be raised to a negative power");
  const double result = std::pow(a.float_value(), b.float_value());
  if (std::isnan(result) && !std::isnan(a.float_value()) && !std::isnan(b.float_value())) {
    Fail("complex numbers are not supported");
  }
  return Value::Float(result);
}

Value Negate(const Value& a) {
  if (a.is_integral()) return Subtract(Value::Int(0), a);
  if (a.is(Kind::kFloat)) return Value::Float(-a.float_value());
  RequireDefined(a);
  Fail(Cat("bad operand type for unary -: '", TypeName(a), "'"));
}

Value Positive(const Value& a) {
  if (a.is_integral()) return Value::Int(a.int_value());
  if (a.is(Kind::kFloat)) return a;
  RequireDefined(a);
  Fail(Cat("bad operand type for unary +: '", TypeName(a), "'"));
}

bool Contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is_string()) {
        Fail(Cat("'in <string>' requires string as left operand, not ", TypeName(item)));
      }
      return Find(container.text(), item.text()) != std::string::npos;
    case Kind::kDict:
      return container.dict().Find(item) != nullptr;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView:
    case Kind::kIterator: {
      const std::vector<Value> items =
          container.is(Kind::kIterator) ? Iterate(container) : std::vector<Value>();
      const auto& all = container.is(Kind::kIterator) ? items : container.list().items;
      return std::any_of(all.begin(), all.end(), [&](const Value& v) { return Equal(v, item); });
    }
    default:
      Fail(Cat("argument of type '", TypeName(container), "' is not iterable"));
  }
}

int64_t Length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return static_cast<int64_t>(value.string().chars);
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView:
      return static_cast<int64_t>(value.list().items.size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().items.size());
    default:
      Fail(Cat("object of type '", TypeName(value), "' has no len()"));
  }
}

std::vector<Value> Iterate(const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined:
      return items;
    case Kind::kString: {
      const std::string& text = value.text();
      for (size_t pos = 0; pos < text.size();) {
        const size_t begin = pos;
        DecodeChar(text, &pos);
        items.push_back(Value::String(text.substr(begin, pos - begin), value.is_markup()));
      }
      return items;
    }
    case Kind::kDict:
      for (const auto& [key, unused] : value.dict().items) items.push_back(key);
      break;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView:
      items = value.list().items;
      break;
    case Kind::kIterator: {
      ListObject& list = value.mutable_list();
      items.assign(list.items.begin() + static_cast<ptrdiff_t>(list.next), list.items.end());
      list.next = list.items.size();
      break;
    }
    default:
      Fail(Cat("'", TypeName(value), "' object is not iterable"));
  }
  Budget::Work(items.size() * sizeof(Value));
  return items;
}

Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step) {
  if (value.is_string()) return SliceString(value, begin, end, step);
  // Jinja compiles a slice to Python's own, so there is no undefined here.
  if (value.is(Kind::kDict)) Fail("unhashable type: 'slice'");
  if (!value.is_sequence()) Fail(Cat("'", TypeName(value), "' object is not subscriptable"));
  const auto& items = value.list().items;
  const auto length = static_cast<int64_t>(items.size());
  std::vector<Value> out;
  ForEachIndex(SliceIndices(length, begin, end, step), length,
               [&](int64_t i) { out.push_back(items[static_cast<size_t>(i)]); });
  return value.is(Kind::kTuple) ? Value::Tuple(std::move(out)) : Value::List(std::move(out));
}

bool ItemAt(const Value& sequence, int64_t index, Value* out) {
  const int64_t length = Length(sequence);
  if (index < 0) index += length;
  if (index < 0 || index >= length) return false;
  if (!sequence.is_string()) {
    *out = sequence.list().items[static_cast<size_t>(index)];
    return true;
  }
  const std::string& text = sequence.text();
  const bool ascii = text.size() == sequence.string().chars;
  Budget::Work(ascii ? 1 : text.size() / 8);
  size_t pos = ascii ? static_cast<size_t>(index) : ByteOffset(text, static_cast<size_t>(index));
  const size_t from = pos;
  DecodeChar(text, &pos);
  *out = Value::String(text.substr(from, pos - from), sequence.is_markup());
  return true;
}

}  // namespace tundra::jinja
