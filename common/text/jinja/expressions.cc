// Expressions: variables, attributes, items, calls, filters, tests, operators.
#include <utility>

#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

// As jinja2.runtime.object_type_repr.
std::string ObjectName(const Value& value) {
  if (value.is_none()) return "None";
  if (value.is(Kind::kNamespace)) return "Namespace object";
  return Cat(TypeName(value), " object");
}

Value NoAttribute(const Value& value, std::string_view name) {
  return Value::Undefined(Cat("'", ObjectName(value), "' has no attribute ", ReprString(name)));
}

Value Unsafe(const Value& value, std::string_view name) {
  return Value::Undefined(Cat("access to attribute ", ReprString(name), " of '", TypeName(value),
                              "' object is unsafe."));
}

bool IsDunder(std::string_view name) {
  return name.size() > 4 && name.starts_with("__") && name.ends_with("__");
}

// Whether Jinja works the expression out when it compiles. Then a slice of what
// has none is undefined; at run time it is an error.
bool IsConstant(const Expr& expr) {
  if (expr.kind == ExprKind::kName || expr.kind == ExprKind::kCall) return false;
  for (const ExprPtr& arg : expr.args) {
    if (arg != nullptr && !IsConstant(*arg)) return false;
  }
  return expr.keywords.empty() && expr.star == nullptr && expr.star_star == nullptr;
}

// What Python's getattr finds on the object itself; false when it finds nothing.
bool ObjectAttribute(const Value& value, const std::string& name, Value* out) {
  if (IsDunder(name)) {
    *out = Unsafe(value, name);
    return true;
  }
  switch (FindMethod(value, name)) {
    case MethodAccess::kNone:
      return false;
    case MethodAccess::kForbidden:
      *out = Unsafe(value, name);
      return true;
    case MethodAccess::kAllowed:
      break;
  }
  auto method = std::make_shared<MethodObject>();
  method->self = value;
  method->name = name;
  method->depth = value.depth() + 1;
  *out = Value::Of(Kind::kMethod, std::move(method));
  return true;
}

}  // namespace

Value Interpreter::MacroAttribute(const MacroObject& macro, const std::string& name) {
  const Stmt& stmt = *macro.stmt;
  if (name == "name")
    return stmt.kind == StmtKind::kMacro ? Value::String(macro.name) : Value::None();
  if (name == "catch_kwargs") return Value::Bool(stmt.uses_kwargs);
  if (name == "catch_varargs") return Value::Bool(stmt.uses_varargs);
  if (name == "caller") return Value::Bool(stmt.uses_caller);
  if (name != "arguments")
    return Value::Undefined(Cat("'Macro object' has no attribute '", name, "'"));
  std::vector<Value> names;
  for (const Parameter& parameter : stmt.parameters) {
    names.push_back(Value::String(template_.names()[static_cast<size_t>(parameter.name)]));
  }
  return Value::Tuple(std::move(names));
}

Value Interpreter::Attribute(const Value& value, const std::string& name) {
  if (name == "__class__") return Unsafe(value, name);  // Python's Undefined has it too
  RequireDefined(value);
  if (value.is(Kind::kLoop)) return LoopAttribute(value, name);
  if (value.is(Kind::kNamespace)) {
    const Value* found = value.dict().Find(std::string_view(name));
    return found != nullptr ? *found : NoAttribute(value, name);
  }
  if (value.is(Kind::kMacro)) return MacroAttribute(value.object<MacroObject>(), name);
  if (value.is(Kind::kTuple) && value.list().view == "group") {
    if (name == "grouper") return value.list().items[0];
    if (name == "list") return value.list().items[1];
  }
  if (value.is(Kind::kCycler) && name == "current") {
    const auto& cycler = value.object<CyclerObject>();
    return cycler.items[cycler.position];
  }
  Value attribute;
  if (ObjectAttribute(value, name, &attribute)) return attribute;
  if (value.is(Kind::kDict)) {
    if (const Value* found = value.dict().Find(std::string_view(name)); found != nullptr)
      return *found;
  }
  return NoAttribute(value, name);
}

Value Interpreter::Item(const Value& value, const Value& key) {
  RequireDefined(value);
  if (value.is(Kind::kDict)) {
    const bool hashable = !key.is(Kind::kList) && !key.is(Kind::kDict) && !key.is(Kind::kView);
    if (hashable) {
      if (const Value* found = value.dict().Find(key); found != nullptr) return *found;
    }
  }
  if ((value.is_sequence() || value.is_string()) && key.is_integral()) {
    Value item;
    if (ItemAt(value, key.int_value(), &item)) return item;
  }
  if (key.is_string()) {
    if (value.is(Kind::kNamespace) || value.is(Kind::kLoop)) return Attribute(value, key.text());
    Value attribute;
    if (ObjectAttribute(value, key.text(), &attribute)) return attribute;
    return NoAttribute(value, key.text());
  }
  return Value::Undefined(Cat(ObjectName(value), " has no element ", Repr(key)));
}

Value Interpreter::Eval(const Expr& expr) {
  Budget::Step();
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.constant;
    case ExprKind::kName:
      return Lookup(expr.name);
    default:
      break;
  }
  CheckStack(stack_base_);
  switch (expr.kind) {
    case ExprKind::kAttribute: {
      const Value value = Eval(*expr.args[0]);
      line_ = expr.line;
      return Attribute(value, expr.text);
    }
    case ExprKind::kItem:
      return EvalItem(expr);
    case ExprKind::kCall:
      return EvalCall(expr);
    case ExprKind::kFilter:
      return EvalFilter(expr, nullptr);
    case ExprKind::kTest:
      return EvalTest(expr);
    case ExprKind::kCondition:
      return EvalCondition(expr);
    case ExprKind::kAnd: {
      Value left = Eval(*expr.args[0]);
      return Truthy(left) ? Eval(*expr.args[1]) : left;
    }
    case ExprKind::kOr: {
      Value left = Eval(*expr.args[0]);
      return Truthy(left) ? left : Eval(*expr.args[1]);
    }
    case ExprKind::kNot:
      return Value::Bool(!Truthy(Eval(*expr.args[0])));
    case ExprKind::kNegative:
      return Negate(Eval(*expr.args[0]));
    case ExprKind::kPositive:
      return Positive(Eval(*expr.args[0]));
    case ExprKind::kConcat:
      return EvalConcat(expr);
    case ExprKind::kCompare:
      return EvalCompare(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return EvalSequence(expr);
    case ExprKind::kDict:
      return EvalDict(expr);
    case ExprKind::kSlice:
      throw Error{"a slice can only stand alone in brackets", expr.line};
    default:
      return EvalBinary(expr);
  }
}

Value Interpreter::EvalSequence(const Expr& expr) {
  std::vector<Value> items;
  items.reserve(expr.args.size());
  for (const ExprPtr& arg : expr.args) items.push_back(Eval(*arg));
  return expr.kind == ExprKind::kList ? Value::List(std::move(items))
                                      : Value::Tuple(std::move(items));
}

Value Interpreter::EvalDict(const Expr& expr) {
  auto dict = std::make_shared<DictObject>();
  for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
    Value key = Eval(*expr.args[i]);
    dict->Set(std::move(key), Eval(*expr.args[i + 1]));
  }
  return Value::Dict(std::move(dict));
}

Value Interpreter::EvalItem(const Expr& expr) {
  const Value value = Eval(*expr.args[0]);
  const Expr& key = *expr.args[1];
  if (key.kind != ExprKind::kSlice) {
    const Value index = Eval(key);
    line_ = expr.line;
    return Item(value, index);
  }
  const Value begin = EvalOptional(key.args[0]);
  const Value end = EvalOptional(key.args[1]);
  const Value step = EvalOptional(key.args[2]);
  line_ = expr.line;
  RequireDefined(value);
  if (!value.is_sequence() && !value.is_string() && IsConstant(expr)) {
    return Value::Undefined(Cat(ObjectName(value), " has no slices"));
  }
  return Slice(value, begin, end, step);
}

void Interpreter::EvalArguments(const Expr& expr, Arguments* arguments) {
  for (size_t i = 1; i < expr.args.size(); ++i)
    arguments->positional.push_back(Eval(*expr.args[i]));
  if (expr.star != nullptr) {
    for (Value& item : Iterate(Eval(*expr.star))) arguments->positional.push_back(std::move(item));
  }
  for (const auto& [key, value] : expr.keywords) arguments->keyword.emplace_back(key, Eval(*value));
  if (expr.star_star == nullptr) return;
  const Value more = Eval(*expr.star_star);
  if (!more.is(Kind::kDict)) Fail(Cat("argument after ** must be a mapping, not ", TypeName(more)));
  for (const auto& [key, value] : more.dict().items) {
    if (!key.is_string()) Fail("keywords must be strings");
    for (const auto& [other, unused] : arguments->keyword) {
      if (other == key.text()) Fail(Cat("got multiple values for keyword argument '", other, "'"));
    }
    arguments->keyword.emplace_back(key.text(), value);
  }
}

Value Interpreter::EvalCall(const Expr& expr) {
  const Value callee = Eval(*expr.args[0]);
  Arguments arguments;
  EvalArguments(expr, &arguments);
  line_ = expr.line;
  return Call(callee, arguments);
}

Value Interpreter::EvalFilter(const Expr& expr, const Value* input) {
  // In a filter or set block the innermost filter's input is the block's text.
  const Value value = expr.args[0] == nullptr                   ? *input
                      : expr.args[0]->kind == ExprKind::kFilter ? EvalFilter(*expr.args[0], input)
                                                                : Eval(*expr.args[0]);
  Arguments arguments;
  EvalArguments(expr, &arguments);
  line_ = expr.line;
  return CallFilter(expr.text, value, arguments);
}

Value Interpreter::EvalTest(const Expr& expr) {
  const Value value = Eval(*expr.args[0]);
  Arguments arguments;
  EvalArguments(expr, &arguments);
  line_ = expr.line;
  return Value::Bool(CallTest(expr.text, value, arguments));
}

Value Interpreter::EvalCondition(const Expr& expr) {
  if (Truthy(Eval(*expr.args[1]))) return Eval(*expr.args[0]);
  if (expr.args[2] != nullptr) return Eval(*expr.args[2]);
  return Value::Undefined(Cat("the inline if-expression on line ", expr.line,
                              " evaluated to false and no else section was defined."));
}

Value Interpreter::EvalConcat(const Expr& expr) {
  // With a Markup among the parts this is markup_join only under autoescape.
  std::string text;
  for (const ExprPtr& arg : expr.args) {
    text += ToStr(Eval(*arg));
    Budget::StringSize(text.size());
  }
  return Value::String(std::move(text));
}

Value Interpreter::EvalBinary(const Expr& expr) {
  const Value a = Eval(*expr.args[0]);
  const Value b = Eval(*expr.args[1]);
  line_ = expr.line;
  switch (expr.kind) {
    case ExprKind::kAdd:
      return Add(a, b);
    case ExprKind::kSub:
      return Subtract(a, b);
    case ExprKind::kMul:
      return Multiply(a, b);
    case ExprKind::kDiv:
      return Divide(a, b);
    case ExprKind::kFloorDiv:
      return FloorDivide(a, b);
    case ExprKind::kMod:
      return Modulo(*this, a, b);
    case ExprKind::kPow:
      return Power(a, b);
    default:
      throw Error{"unexpected expression", expr.line};
  }
}

Value Interpreter::EvalCompare(const Expr& expr) {
  Value left = Eval(*expr.args[0]);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = Eval(*expr.args[i + 1]);
    line_ = expr.line;
    bool holds = false;
    switch (expr.ops[i]) {
      case CompareOp::kEq:
        holds = Equal(left, right);
        break;
      case CompareOp::kNe:
        holds = !Equal(left, right);
        break;
      case CompareOp::kLt:
        holds = Order(left, right, "<") == -1;
        break;
      case CompareOp::kLe: {
        const int order = Order(left, right, "<=");
        holds = order == -1 || order == 0;
        break;
      }
      case CompareOp::kGt:
        holds = Order(left, right, ">") == 1;
        break;
      case CompareOp::kGe: {
        const int order = Order(left, right, ">=");
        holds = order == 1 || order == 0;
        break;
      }
      case CompareOp::kIn:
        holds = Contains(right, left);
        break;
      case CompareOp::kNotIn:
        holds = !Contains(right, left);
        break;
    }
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Value Interpreter::CallFilter(const std::string& name, const Value& input, Arguments& arguments) {
  Budget::Step();
  const Filter filter = FindFilter(name);
  if (filter == nullptr) Fail(Cat("No filter named '", name, "'."));
  return filter(*this, input, arguments);
}

bool Interpreter::CallTest(const std::string& name, const Value& input, Arguments& arguments) {
  Budget::Step();
  const Filter test = FindTest(name);
  if (test == nullptr) Fail(Cat("No test named '", name, "'."));
  return Truthy(test(*this, input, arguments));
}

}  // namespace tundra::jinja
