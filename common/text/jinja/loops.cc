// For loops and the `loop` variable, as jinja2.runtime.LoopContext.
#include <utility>

#include "common/text/jinja/interpreter.h"

namespace tundra::jinja {

// The next item that passes the loop's own `if`.
bool Interpreter::Fetch(LoopObject* loop, Value* item) {
  while (loop->next < loop->items.size()) {
    Budget::Step();
    *item = loop->items[loop->next++];
    if (loop->stmt->test == nullptr) return true;
    const ScopePtr saved = scope_;
    scope_ = PushScope(loop->scope, {});
    bool passes = false;
    try {
      Assign(*loop->stmt->target, *item);
      passes = Truthy(Eval(*loop->stmt->test));
    } catch (...) {
      scope_ = saved;
      throw;
    }
    scope_ = saved;
    if (passes) return true;
  }
  return false;
}

bool Interpreter::Peek(LoopObject* loop) {
  if (!loop->has_after && !loop->after_ended) {
    loop->has_after = Fetch(loop, &loop->after);
    loop->after_ended = !loop->has_after;
  }
  return loop->has_after;
}

bool Interpreter::Advance(LoopObject* loop) {
  Value item;
  if (loop->has_after) {
    item = std::move(loop->after);
    loop->has_after = false;
  } else if (loop->after_ended || !Fetch(loop, &item)) {
    return false;
  }
  ++loop->index0;
  loop->before = std::move(loop->current);
  loop->current = std::move(item);
  return true;
}

int64_t Interpreter::LoopLength(LoopObject* loop) {
  if (loop->length >= 0) return loop->length;
  if (loop->stmt->test == nullptr) {
    loop->length = static_cast<int64_t>(loop->items.size());
    return loop->length;
  }
  // The rest is tested now, as Jinja does.
  std::vector<Value> rest;
  Value item;
  while (Fetch(loop, &item)) rest.push_back(item);
  loop->length = static_cast<int64_t>(rest.size()) + loop->index0 + 1 + (loop->has_after ? 1 : 0);
  loop->after_ended = loop->after_ended && rest.empty();
  loop->items = std::move(rest);
  loop->next = 0;
  static const Stmt* const kUntested = new Stmt();
  loop->stmt = loop->stmt->recursive ? loop->stmt : kUntested;
  return loop->length;
}

void Interpreter::ExecFor(const Stmt& stmt) {
  if (!stmt.recursive) return RunLoop(stmt, Eval(*stmt.expr), 0);
  std::string captured;
  std::string* const saved = out_;
  out_ = &captured;
  try {
    RunLoop(stmt, Eval(*stmt.expr), 0);
  } catch (...) {
    out_ = saved;
    throw;
  }
  out_ = saved;
  Write(captured);
}

void Interpreter::RunLoop(const Stmt& stmt, const Value& iterable, int64_t depth0) {
  const ScopePtr outer = scope_;
  auto loop = std::make_shared<LoopObject>();
  loop->stmt = &stmt;
  loop->items = Iterate(iterable);
  loop->depth = DepthAbove(loop->items);
  loop->depth0 = depth0;
  if (stmt.test != nullptr || stmt.recursive) {
    loop->scope = outer;
    KeepScope(outer);
  }
  static const std::string kLoop = "loop";
  int loop_name = -1;
  for (size_t i = 0; i < template_.names().size(); ++i) {
    if (template_.names()[i] == kLoop) loop_name = static_cast<int>(i);
  }
  const Value loop_value = Value::Of(Kind::kLoop, loop);
  bool completed = false;
  try {
    while (Advance(loop.get())) {
      Budget::Step();
      scope_ = PushScope(outer, stmt.scoped.hidden);
      if (loop_name >= 0) scope_->variables.push_back(Variable{loop_name, false, loop_value});
      line_ = stmt.line;
      Assign(*stmt.target, loop->current);
      const Flow flow = Exec(stmt.scoped.body);
      if (flow == Flow::kBreak) break;
      // As Jinja compiles it: else is skipped once a body came to its end.
      completed = completed || flow == Flow::kNormal;
    }
    if (!completed && !stmt.otherwise.body.empty()) {
      scope_ = outer;
      ExecScoped(stmt.otherwise);
    }
  } catch (...) {
    scope_ = outer;
    throw;
  }
  scope_ = outer;
}

Value Interpreter::LoopAttribute(const Value& value, const std::string& name) {
  LoopObject* loop = &value.object<LoopObject>();
  if (name == "index") return Value::Int(loop->index0 + 1);
  if (name == "index0") return Value::Int(loop->index0);
  if (name == "first") return Value::Bool(loop->index0 == 0);
  if (name == "last") return Value::Bool(!Peek(loop));
  if (name == "length") return Value::Int(LoopLength(loop));
  if (name == "revindex") return Value::Int(LoopLength(loop) - loop->index0);
  if (name == "revindex0") return Value::Int(LoopLength(loop) - loop->index0 - 1);
  if (name == "depth") return Value::Int(loop->depth0 + 1);
  if (name == "depth0") return Value::Int(loop->depth0);
  if (name == "previtem") {
    return loop->index0 == 0 ? Value::Undefined("there is no previous item") : loop->before;
  }
  if (name == "nextitem") {
    return Peek(loop) ? loop->after : Value::Undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") {
    auto method = std::make_shared<MethodObject>();
    method->self = value;
    method->name = name;
    method->depth = value.depth() + 1;
    return Value::Of(Kind::kMethod, std::move(method));
  }
  return Value::Undefined(Cat("'jinja2.runtime.LoopContext object' has no attribute '", name, "'"));
}

Value Interpreter::CallLoopMethod(const Value& value, const std::string& name,
                                  Arguments& arguments) {
  auto& loop = value.object<LoopObject>();
  if (!arguments.keyword.empty()) Fail(Cat(name, "() takes no keyword arguments"));
  if (name == "cycle") {
    if (arguments.positional.empty()) Fail("no items for cycling given");
    return arguments.positional[static_cast<size_t>(loop.index0) % arguments.positional.size()];
  }
  const Value now = Value::Tuple(arguments.positional);
  const bool changed = !loop.has_changed || !Equal(loop.last_changed, now);
  loop.has_changed = true;
  loop.last_changed = now;
  return Value::Bool(changed);
}

// loop(children) in a recursive loop: the loop's body over other items.
Value Interpreter::CallLoop(const Value& value, Arguments& arguments) {
  const Bound bound("loop", arguments, {"iterable"}, 1);
  auto& loop = value.object<LoopObject>();
  if (!loop.stmt->recursive) {
    Fail("The loop must have the 'recursive' marker to be called recursively.");
  }
  if (depth_ >= max_depth_) throw Error{"a loop calls itself too deeply", line_, true};
  const ScopePtr saved_scope = scope_;
  std::string* const saved_out = out_;
  std::string captured;
  const auto restore = [&] {
    --depth_;
    scope_ = saved_scope;
    out_ = saved_out;
  };
  ++depth_;
  scope_ = loop.scope;
  out_ = &captured;
  try {
    RunLoop(*loop.stmt, bound[0], loop.depth0 + 1);
  } catch (...) {
    restore();
    throw;
  }
  restore();
  return Value::String(std::move(captured));
}

}  // namespace tundra::jinja
