// Runs a compiled template once. Holds the variables, the output and the spans
// of {% generation %}; everything it makes dies with it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/text/jinja/ast.h"
#include "common/text/jinja/builtins.h"
#include "common/text/jinja/template.h"

namespace tundra::jinja {

struct Variable {
  int name = -1;
  bool missing = false;  // undefined here, whatever outer scopes say
  Value value;
};

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<Variable> variables;
};

struct MacroObject : Object {
  const Stmt* stmt = nullptr;
  std::string name;
  std::shared_ptr<Scope> scope;  // where it was defined
};

// The `loop` variable. Items are fetched as the loop goes, since the loop's own
// `if` may depend on what its body does.
struct LoopObject : Object {
  const Stmt* stmt = nullptr;
  std::shared_ptr<Scope> scope;
  std::vector<Value> items;
  size_t next = 0;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  bool has_after = false, after_ended = false;
  Value after, current, before;
  bool has_current = false;
  int64_t length = -1;
  bool has_changed = false;
  Value last_changed;
};

class Interpreter {
 public:
  Interpreter(const Template& compiled, absl::Time now, absl::TimeZone zone, int max_depth);
  ~Interpreter();

  void SetVariable(const std::string& name, Value value);

  // Returns the text. Throws Error. Call once.
  std::string Run();

  // Byte offsets into the text of Run.
  std::vector<std::pair<size_t, size_t>> GenerationSpans(std::string_view text) const;
  int line() const { return line_; }

  // --- for builtins
  Value CallFilter(const std::string& name, const Value& input, Arguments& arguments);
  bool CallTest(const std::string& name, const Value& input, Arguments& arguments);
  Value Call(const Value& callee, Arguments& arguments);
  Value Attribute(const Value& value, const std::string& name);
  Value Item(const Value& value, const Value& key);
  Value NewNamespace(std::shared_ptr<DictObject> attributes);
  absl::Time now() const { return now_; }
  absl::TimeZone zone() const { return zone_; }

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  using ScopePtr = std::shared_ptr<Scope>;

  // --- statements (interpreter.cc)
  Flow Exec(const Body& body);
  Flow Exec(const Stmt& stmt);
  Flow ExecIf(const Stmt& stmt);
  void ExecWith(const Stmt& stmt, Flow* flow);
  Flow ExecScoped(const ScopedBody& body);
  std::string Capture(const ScopedBody& body);
  void ExecSetBlock(const Stmt& stmt);
  void ExecFilterBlock(const Stmt& stmt);
  void ExecGeneration(const Stmt& stmt);
  void ExecCallBlock(const Stmt& stmt);
  Value NewMacro(const Stmt& stmt);
  void Write(std::string_view text);
  void Assign(const Expr& target, const Value& value);
  void CheckNamespaces(const Expr& target);

  // --- loops (loops.cc)
  void ExecFor(const Stmt& stmt);
  void RunLoop(const Stmt& stmt, const Value& iterable, int64_t depth0);
  bool Fetch(LoopObject* loop, Value* item);
  bool Advance(LoopObject* loop);
  bool Peek(LoopObject* loop);
  int64_t LoopLength(LoopObject* loop);
  Value LoopAttribute(const Value& loop, const std::string& name);
  Value CallLoop(const Value& loop, Arguments& arguments);
  Value CallLoopMethod(const Value& loop, const std::string& name, Arguments& arguments);

  // --- calls
  Value MacroAttribute(const MacroObject& macro, const std::string& name);
  Value CallMacro(const MacroObject& macro, Arguments& arguments);
  void BindParameters(const MacroObject& macro, Arguments& arguments, Scope* scope);

  // --- expressions (expressions.cc)
  Value Eval(const Expr& expr);
  Value EvalOptional(const ExprPtr& expr) { return expr == nullptr ? Value() : Eval(*expr); }
  Value EvalSequence(const Expr& expr);
  Value EvalDict(const Expr& expr);
  Value EvalItem(const Expr& expr);
  Value EvalCall(const Expr& expr);
  Value EvalFilter(const Expr& expr, const Value* input);
  Value EvalTest(const Expr& expr);
  Value EvalCondition(const Expr& expr);
  Value EvalBinary(const Expr& expr);
  Value EvalConcat(const Expr& expr);
  Value EvalCompare(const Expr& expr);
  void EvalArguments(const Expr& expr, Arguments* arguments);

  // --- variables
  Value Lookup(int name) const;
  void Set(int name, Value value);
  ScopePtr PushScope(const ScopePtr& parent, const std::vector<int>& hidden);
  void KeepScope(const ScopePtr& scope);

  struct Generation {
    size_t begin;  // byte offset into the text
    size_t chars;
  };

  const Template& template_;
  absl::Time now_;
  absl::TimeZone zone_;
  const int max_depth_;
  int depth_ = 0;  // of macro calls and recursive loops
  int line_ = 0;
  const void* stack_base_ = nullptr;
  std::vector<Variable> context_;  // by name number; missing where not passed
  ScopePtr scope_;
  std::string text_;           // the top level's output
  std::string* out_ = &text_;  // where output goes now
  std::vector<Generation> generations_;
  // Scopes and namespaces can refer to themselves; they are emptied at the end.
  std::vector<ScopePtr> kept_scopes_;
  std::vector<std::shared_ptr<DictObject>> namespaces_;
};

}  // namespace tundra::jinja
