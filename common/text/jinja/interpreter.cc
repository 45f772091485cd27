// Statements, scopes and macros. Loops are in loops.cc, expressions in
// expressions.cc.
#include "common/text/jinja/interpreter.h"

#include <algorithm>
#include <utility>

#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

// Puts a value back when a scope of C++ ends, by return or by Error.
template <typename T>
class Restore {
 public:
  explicit Restore(T* place) : place_(place), saved_(*place) {}
  ~Restore() { *place_ = saved_; }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T* place_;
  T saved_;
};

}  // namespace

Interpreter::Interpreter(const Template& compiled, absl::Time now, absl::TimeZone zone,
                         int max_depth)
    : template_(compiled), now_(now), zone_(zone), max_depth_(max_depth) {
  context_.resize(compiled.names().size());
  for (size_t i = 0; i < context_.size(); ++i) {
    context_[i].missing = true;
    const auto global = Globals().find(compiled.names()[i]);
    if (global == Globals().end()) continue;
    auto function = std::make_shared<FunctionObject>();
    function->name = compiled.names()[i];
    function->function = global->second;
    context_[i] =
        Variable{static_cast<int>(i), false, Value::Of(Kind::kFunction, std::move(function))};
  }
}

Interpreter::~Interpreter() {
  for (const ScopePtr& scope : kept_scopes_) scope->variables.clear();
  for (const auto& space : namespaces_) space->items.clear();
}

void Interpreter::SetVariable(const std::string& name, Value value) {
  for (size_t i = 0; i < context_.size(); ++i) {
    if (template_.names()[i] == name) {
      context_[i] = Variable{static_cast<int>(i), false, std::move(value)};
    }
  }
}

std::string Interpreter::Run() {
  stack_base_ = __builtin_frame_address(0);
  scope_ = PushScope(nullptr, template_.root().hidden);
  Exec(template_.root().body);
  return std::move(text_);
}

std::vector<std::pair<size_t, size_t>> Interpreter::GenerationSpans(std::string_view text) const {
  // The end is counted in characters from the begin, as Transformers does: it
  // matters when the block stands in a macro, whose text comes later.
  std::vector<std::pair<size_t, size_t>> spans;
  for (const Generation& generation : generations_) {
    const size_t begin = std::min(generation.begin, text.size());
    spans.emplace_back(begin, begin + ByteOffset(text.substr(begin), generation.chars));
  }
  return spans;
}

// --- variables

Interpreter::ScopePtr Interpreter::PushScope(const ScopePtr& parent,
                                             const std::vector<int>& hidden) {
  auto scope = std::make_shared<Scope>();
  scope->parent = parent;
  for (int name : hidden) scope->variables.push_back(Variable{name, true, Value()});
  return scope;
}

// Keeps a scope that a value refers to until the end.
void Interpreter::KeepScope(const ScopePtr& scope) {
  if (!kept_scopes_.empty() && kept_scopes_.back() == scope) return;
  Budget::Work(sizeof(Scope) + sizeof(Variable) * 4);
  kept_scopes_.push_back(scope);
}

Value Interpreter::Lookup(int name) const {
  const Variable* found = &context_[static_cast<size_t>(name)];
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    const auto it = std::find_if(scope->variables.begin(), scope->variables.end(),
                                 [&](const Variable& v) { return v.name == name; });
    if (it != scope->variables.end()) {
      found = &*it;
      break;
    }
  }
  if (!found->missing) return found->value;
  return Value::Undefined(Cat("'", template_.names()[static_cast<size_t>(name)], "' is undefined"));
}

void Interpreter::Set(int name, Value value) {
  for (Variable& variable : scope_->variables) {
    if (variable.name == name) {
      variable.value = std::move(value);
      variable.missing = false;
      return;
    }
  }
  scope_->variables.push_back(Variable{name, false, std::move(value)});
}

Value Interpreter::NewNamespace(std::shared_ptr<DictObject> attributes) {
  Budget::Work(256);
  attributes->depth = 1;
  namespaces_.push_back(attributes);
  return Value::Namespace(std::move(attributes));
}

// ns.a = … is checked for every such target before anything is assigned.
void Interpreter::CheckNamespaces(const Expr& target) {
  if (target.kind == ExprKind::kTuple) {
    for (const ExprPtr& item : target.args) CheckNamespaces(*item);
  }
  if (target.kind != ExprKind::kNamespaceRef) return;
  if (!Lookup(target.name).is(Kind::kNamespace)) {
    Fail("cannot assign attribute on non-namespace object");
  }
}

void Interpreter::Assign(const Expr& target, const Value& value) {
  if (target.kind == ExprKind::kName) return Set(target.name, value);
  if (target.kind == ExprKind::kNamespaceRef) {
    if (target.text.starts_with("_")) {
      Fail(Cat(
          "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '",
          target.text, "'. Please rename the attribute."));
    }
    const Value space = Lookup(target.name);
    space.mutable_dict().Set(Value::String(target.text), value);
    space.mutable_dict().depth = 1;
    return;
  }
  if (!value.is_listed() && !value.is(Kind::kDict) && !value.is_string() && !value.is_undefined()) {
    Fail(Cat("cannot unpack non-iterable ", TypeName(value), " object"));
  }
  const std::vector<Value> items = Iterate(value);
  if (items.size() != target.args.size()) {
    Fail(items.size() < target.args.size() ? Cat("not enough values to unpack (expected ",
                                                 static_cast<int64_t>(target.args.size()), ", got ",
                                                 static_cast<int64_t>(items.size()), ")")
                                           : Cat("too many values to unpack (expected ",
                                                 static_cast<int64_t>(target.args.size()), ")"));
  }
  for (size_t i = 0; i < items.size(); ++i) Assign(*target.args[i], items[i]);
}

// --- statements

void Interpreter::Write(std::string_view text) {
  Budget::StringSize(out_->size() + text.size());
  Budget::Work(text.size());
  out_->append(text);
}

Interpreter::Flow Interpreter::Exec(const Body& body) {
  for (const StmtPtr& stmt : body) {
    if (const Flow flow = Exec(*stmt); flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::Exec(const Stmt& stmt) {
  Budget::Step();
  CheckStack(stack_base_);
  line_ = stmt.line;
  Flow flow = Flow::kNormal;
  switch (stmt.kind) {
    case StmtKind::kText:
      Write(stmt.text);
      break;
    case StmtKind::kOutput:
      for (const ExprPtr& expr : stmt.exprs) Write(ToStr(Eval(*expr)));
      break;
    case StmtKind::kFor:
      ExecFor(stmt);
      break;
    case StmtKind::kIf:
      return ExecIf(stmt);
    case StmtKind::kSet: {
      const Value value = Eval(*stmt.expr);
      CheckNamespaces(*stmt.target);
      Assign(*stmt.target, value);
      break;
    }
    case StmtKind::kSetBlock:
      ExecSetBlock(stmt);
      break;
    case StmtKind::kWith:
      ExecWith(stmt, &flow);
      break;
    case StmtKind::kMacro:
      Set(stmt.name, NewMacro(stmt));
      break;
    case StmtKind::kCallBlock:
      ExecCallBlock(stmt);
      break;
    case StmtKind::kFilterBlock:
      ExecFilterBlock(stmt);
      break;
    case StmtKind::kGeneration:
      ExecGeneration(stmt);
      break;
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
    case StmtKind::kScope:
      return ExecScoped(stmt.scoped);
  }
  return flow;
}

Interpreter::Flow Interpreter::ExecIf(const Stmt& stmt) {
  for (const auto& [test, body] : stmt.branches) {
    if (Truthy(Eval(*test))) return Exec(body);
  }
  return Exec(stmt.else_body);
}

void Interpreter::ExecWith(const Stmt& stmt, Flow* flow) {
  std::vector<Value> values;
  for (const ExprPtr& expr : stmt.exprs) values.push_back(Eval(*expr));
  const Restore<ScopePtr> restore(&scope_);
  scope_ = PushScope(scope_, stmt.scoped.hidden);
  for (size_t i = 0; i < values.size(); ++i) Assign(*stmt.targets[i], values[i]);
  *flow = Exec(stmt.scoped.body);
}

Interpreter::Flow Interpreter::ExecScoped(const ScopedBody& body) {
  const Restore<ScopePtr> restore(&scope_);
  scope_ = PushScope(scope_, body.hidden);
  return Exec(body.body);
}

// The output of a body in a scope of its own, which stays current (the caller
// restores): filters of a set block see the block's variables.
std::string Interpreter::Capture(const ScopedBody& body) {
  std::string captured;
  const Restore<std::string*> restore(&out_);
  scope_ = PushScope(scope_, body.hidden);
  out_ = &captured;
  Exec(body.body);
  return captured;
}

void Interpreter::ExecSetBlock(const Stmt& stmt) {
  Value value;
  {
    const Restore<ScopePtr> restore(&scope_);
    value = Value::String(Capture(stmt.scoped));
    if (stmt.expr != nullptr) value = EvalFilter(*stmt.expr, &value);
  }
  CheckNamespaces(*stmt.target);
  Assign(*stmt.target, value);
}

void Interpreter::ExecFilterBlock(const Stmt& stmt) {
  const Restore<ScopePtr> restore(&scope_);
  const Value body = Value::String(Capture(stmt.scoped));
  Write(ToStr(EvalFilter(*stmt.expr, &body)));
}

void Interpreter::ExecGeneration(const Stmt& stmt) {
  const Restore<ScopePtr> restore(&scope_);
  const std::string body = Capture(stmt.scoped);
  generations_.push_back(Generation{text_.size(), CountChars(body)});
  Write(body);
}

// --- macros and calls

Value Interpreter::NewMacro(const Stmt& stmt) {
  Budget::Work(sizeof(MacroObject));
  auto macro = std::make_shared<MacroObject>();
  macro->stmt = &stmt;
  macro->name = stmt.kind == StmtKind::kMacro ? stmt.text : "caller";
  macro->scope = scope_;
  KeepScope(scope_);
  return Value::Of(Kind::kMacro, std::move(macro));
}

void Interpreter::ExecCallBlock(const Stmt& stmt) {
  const Value caller = NewMacro(stmt);
  const Value callee = Eval(*stmt.expr->args[0]);
  Arguments arguments;
  EvalArguments(*stmt.expr, &arguments);
  arguments.keyword.emplace_back("caller", caller);
  line_ = stmt.line;
  Write(ToStr(Call(callee, arguments)));
}

// Takes the keyword argument of that name out of the list.
static bool TakeKeyword(Arguments& arguments, std::string_view name, Value* value) {
  for (auto it = arguments.keyword.begin(); it != arguments.keyword.end(); ++it) {
    if (it->first != name) continue;
    *value = std::move(it->second);
    arguments.keyword.erase(it);
    return true;
  }
  return false;
}

void Interpreter::BindParameters(const MacroObject& macro, Arguments& arguments, Scope* scope) {
  const Stmt& stmt = *macro.stmt;
  const auto& names = template_.names();
  const auto id = [&](std::string_view name) {
    return static_cast<int>(std::find(names.begin(), names.end(), name) - names.begin());
  };
  std::vector<bool> given;
  bool explicit_caller = false;
  for (size_t i = 0; i < stmt.parameters.size(); ++i) {
    const std::string& name = names[static_cast<size_t>(stmt.parameters[i].name)];
    Value value;
    given.push_back(i < arguments.positional.size());
    if (given[i]) {
      value = arguments.positional[i];
    } else {
      given[i] = TakeKeyword(arguments, name, &value);
    }
    explicit_caller = explicit_caller || name == "caller";
    scope->variables.push_back(Variable{stmt.parameters[i].name, !given[i], std::move(value)});
  }
  if (stmt.uses_caller && !explicit_caller) {
    Value caller;
    if (!TakeKeyword(arguments, "caller", &caller) || caller.is_none()) {
      caller = Value::Undefined("No caller defined");
    }
    scope->variables.push_back(Variable{id("caller"), false, std::move(caller)});
  }
  if (stmt.uses_kwargs) {
    auto kwargs = std::make_shared<DictObject>();
    for (auto& [key, value] : arguments.keyword) kwargs->Set(Value::String(key), value);
    scope->variables.push_back(Variable{id("kwargs"), false, Value::Dict(std::move(kwargs))});
  } else if (!arguments.keyword.empty()) {
    Fail(Cat("macro '", macro.name, "' takes no keyword argument '", arguments.keyword[0].first,
             "'"));
  }
  const size_t count = stmt.parameters.size();
  if (stmt.uses_varargs) {
    std::vector<Value> rest;
    for (size_t i = count; i < arguments.positional.size(); ++i)
      rest.push_back(arguments.positional[i]);
    scope->variables.push_back(Variable{id("varargs"), false, Value::Tuple(std::move(rest))});
  } else if (arguments.positional.size() > count) {
    Fail(Cat("macro '", macro.name, "' takes not more than ", static_cast<int64_t>(count),
             " argument(s)"));
  }
}

Value Interpreter::CallMacro(const MacroObject& macro, Arguments& arguments) {
  if (depth_ >= max_depth_) throw Error{"macros call each other too deeply", line_, true};
  const Restore<int> restore_depth(&depth_);
  const Restore<ScopePtr> restore_scope(&scope_);
  const Restore<std::string*> restore_out(&out_);
  ++depth_;
  const ScopePtr scope = PushScope(macro.scope, macro.stmt->scoped.hidden);
  BindParameters(macro, arguments, scope.get());
  scope_ = scope;
  for (const Parameter& parameter : macro.stmt->parameters) {
    const auto missing = [&] {
      for (const Variable& v : scope->variables) {
        if (v.name == parameter.name) return v.missing;
      }
      return false;
    };
    if (!missing()) continue;
    Set(parameter.name,
        parameter.default_value != nullptr
            ? Eval(*parameter.default_value)
            : Value::Undefined(Cat("parameter '",
                                   template_.names()[static_cast<size_t>(parameter.name)],
                                   "' was not provided")));
  }
  std::string captured;
  out_ = &captured;
  Exec(macro.stmt->scoped.body);
  return Value::String(std::move(captured));
}

Value Interpreter::Call(const Value& callee, Arguments& arguments) {
  CheckStack(stack_base_);
  RequireDefined(callee);
  switch (callee.kind()) {
    case Kind::kMacro:
      return CallMacro(callee.object<MacroObject>(), arguments);
    case Kind::kFunction:
      return callee.object<FunctionObject>().function(*this, arguments);
    case Kind::kMethod: {
      const auto& method = callee.object<MethodObject>();
      if (method.self.is(Kind::kLoop)) return CallLoopMethod(method.self, method.name, arguments);
      return CallMethod(*this, method.self, method.name, arguments);
    }
    case Kind::kLoop:
      return CallLoop(callee, arguments);
    case Kind::kJoiner: {
      const Bound bound("__call__", arguments, {});
      auto& joiner = callee.object<JoinerObject>();
      return std::exchange(joiner.used, true) ? joiner.separator : Value::String("");
    }
    default:
      Fail(Cat("'", TypeName(callee), "' object is not callable"));
  }
}

}  // namespace tundra::jinja
