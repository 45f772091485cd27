// The tests of "is". Each gives a bool.
#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

template <bool (*kTest)(const Value&)>
Value Simple(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return Value::Bool(kTest(input));
}

// value % 2 == rest, with Python's floor.
bool LeavesOfTwo(const Value& v, int64_t rest) {
  const Value two = Value::Int(2);
  return Equal(Subtract(v, Multiply(FloorDivide(v, two), two)), Value::Int(rest));
}
bool IsOdd(const Value& v) { return LeavesOfTwo(v, 1); }
bool IsEven(const Value& v) { return LeavesOfTwo(v, 0); }
bool IsDefined(const Value& v) { return !v.is_undefined(); }
bool IsUndefined(const Value& v) { return v.is_undefined(); }
bool IsNone(const Value& v) { return v.is_none(); }
bool IsBoolean(const Value& v) { return v.is(Kind::kBool); }
bool IsFalse(const Value& v) { return v.is(Kind::kBool) && !v.bool_value(); }
bool IsTrue(const Value& v) { return v.is(Kind::kBool) && v.bool_value(); }
bool IsInteger(const Value& v) { return v.is(Kind::kInt); }
bool IsFloat(const Value& v) { return v.is(Kind::kFloat); }
bool IsString(const Value& v) { return v.is_string(); }
bool IsMapping(const Value& v) { return v.is(Kind::kDict); }
bool IsNumber(const Value& v) { return v.is_number(); }
bool IsSequence(const Value& v) {
  return v.is_sequence() || v.is_string() || v.is(Kind::kDict) || v.is_undefined();
}
bool IsIterable(const Value& v) {
  return v.is_undefined() || v.is_string() || v.is_listed() || v.is(Kind::kDict) ||
         v.is(Kind::kLoop);
}
bool IsCallable(const Value& v) {
  switch (v.kind()) {
    case Kind::kMacro:
    case Kind::kMethod:
    case Kind::kFunction:
    case Kind::kJoiner:
    case Kind::kLoop:
    case Kind::kUndefined:  // Undefined has __call__, which fails
      return true;
    default:
      return false;
  }
}
bool IsEscaped(const Value& v) { return v.is_markup(); }

// str.islower and str.isupper: some cased character, and none of the other case.
bool HasCaseOnly(const Value& value, bool upper) {
  const std::string text = ToStr(value);
  bool cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = DecodeChar(text, &pos);
    if (IsTitleChar(c) || (upper ? IsLowerChar(c) : IsUpperChar(c))) return false;
    cased = cased || (upper ? IsUpperChar(c) : IsLowerChar(c));
  }
  return cased;
}
bool IsLower(const Value& v) { return HasCaseOnly(v, false); }
bool IsUpper(const Value& v) { return HasCaseOnly(v, true); }

Value DivisibleBy(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("divisibleby", arguments, {"num"}, 1);
  return Value::Bool(Equal(Modulo(interpreter, input, bound[0]), Value::Int(0)));
}

Value IsFilter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("filter", arguments, {});
  (void)Hash(input);  // fails for what a dict can't look up
  return Value::Bool(input.is_string() && FilterExists(input.text()));
}

Value IsTest(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("test", arguments, {});
  (void)Hash(input);
  return Value::Bool(input.is_string() && TestExists(input.text()));
}

Value SameAs(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("sameas", arguments, {"other"}, 1);
  const Value& other = bound[0];
  if (input.kind() != other.kind()) return Value::Bool(false);
  if (input.is_none()) return Value::Bool(true);
  // Small integers and equal constants are one object to Python.
  if (input.is_number() || input.is_string()) return Value::Bool(Equal(input, other));
  return Value::Bool(input.identity() == other.identity());
}

Value In(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("in", arguments, {"seq"}, 1);
  return Value::Bool(Contains(bound[0], input));
}

Value Eq(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("eq", arguments, {"other"}, 1);
  return Value::Bool(Equal(input, bound[0]));
}
Value Ne(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("ne", arguments, {"other"}, 1);
  return Value::Bool(!Equal(input, bound[0]));
}
Value Gt(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("gt", arguments, {"other"}, 1);
  return Value::Bool(Order(input, bound[0], ">") == 1);
}
Value Lt(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("lt", arguments, {"other"}, 1);
  return Value::Bool(Order(input, bound[0], "<") == -1);
}
Value Ge(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("ge", arguments, {"other"}, 1);
  const int order = Order(input, bound[0], ">=");
  return Value::Bool(order == 0 || order == 1);
}
Value Le(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("le", arguments, {"other"}, 1);
  const int order = Order(input, bound[0], "<=");
  return Value::Bool(order == 0 || order == -1);
}

const FilterTable& Tests() {
  static const auto* const table = new FilterTable{{"odd", Simple<IsOdd>},
                                                   {"even", Simple<IsEven>},
                                                   {"defined", Simple<IsDefined>},
                                                   {"undefined", Simple<IsUndefined>},
                                                   {"none", Simple<IsNone>},
                                                   {"boolean", Simple<IsBoolean>},
                                                   {"false", Simple<IsFalse>},
                                                   {"true", Simple<IsTrue>},
                                                   {"integer", Simple<IsInteger>},
                                                   {"float", Simple<IsFloat>},
                                                   {"lower", Simple<IsLower>},
                                                   {"upper", Simple<IsUpper>},
                                                   {"string", Simple<IsString>},
                                                   {"mapping", Simple<IsMapping>},
                                                   {"number", Simple<IsNumber>},
                                                   {"sequence", Simple<IsSequence>},
                                                   {"iterable", Simple<IsIterable>},
                                                   {"callable", Simple<IsCallable>},
                                                   {"escaped", Simple<IsEscaped>},
                                                   {"divisibleby", DivisibleBy},
                                                   {"filter", IsFilter},
                                                   {"test", IsTest},
                                                   {"sameas", SameAs},
                                                   {"in", In},
                                                   {"==", Eq},
                                                   {"eq", Eq},
                                                   {"equalto", Eq},
                                                   {"!=", Ne},
                                                   {"ne", Ne},
                                                   {">", Gt},
                                                   {"gt", Gt},
                                                   {"greaterthan", Gt},
                                                   {">=", Ge},
                                                   {"ge", Ge},
                                                   {"<", Lt},
                                                   {"lt", Lt},
                                                   {"lessthan", Lt},
                                                   {"<=", Le},
                                                   {"le", Le}};
  return *table;
}

}  // namespace

Filter FindTest(std::string_view name) {
  const auto it = Tests().find(name);
  return it == Tests().end() ? nullptr : it->second;
}

bool TestExists(std::string_view name) { return FindTest(name) != nullptr; }

}  // namespace tundra::jinja
