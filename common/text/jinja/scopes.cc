#include "common/text/jinja/scopes.h"

#include <map>
#include <set>
#include <utility>

#include "common/text/jinja/builtins.h"

namespace tundra::jinja {
namespace {

enum class Load { kParameter, kResolve, kAlias, kUndefined };

// The names one scope refers to, and how each gets its first value.
struct Symbols {
  const Symbols* parent = nullptr;
  std::set<int> refs;
  std::set<int> stores;
  std::map<int, Load> loads;

  bool Knows(int name) const {
    return refs.count(name) > 0 || (parent != nullptr && parent->Knows(name));
  }
  void Define(int name, Load load) {
    refs.insert(name);
    loads[name] = load;
  }
  void Store(int name) {
    stores.insert(name);
    if (refs.count(name) > 0) return;
    Define(name, parent != nullptr && parent->Knows(name) ? Load::kAlias : Load::kUndefined);
  }
  void Declare(int name) {
    stores.insert(name);
    Define(name, Load::kParameter);
  }
  void Read(int name) {
    if (!Knows(name)) Define(name, Load::kResolve);
  }
  void MergeBranches(const std::vector<Symbols>& branches);
};

void Symbols::MergeBranches(const std::vector<Symbols>& branches) {
  std::set<int> stored;
  for (const Symbols& branch : branches) stored.insert(branch.stores.begin(), branch.stores.end());
  for (int name : stores) stored.erase(name);
  for (const Symbols& branch : branches) {
    refs.insert(branch.refs.begin(), branch.refs.end());
    stores.insert(branch.stores.begin(), branch.stores.end());
    for (const auto& [name, load] : branch.loads) loads[name] = load;
  }
  for (int name : stored) {
    loads[name] = parent != nullptr && parent->Knows(name) ? Load::kAlias : Load::kResolve;
  }
}

class Resolver {
 public:
  explicit Resolver(const std::vector<std::string>& names) : names_(names) {}
  void Root(ScopedBody* root);

 private:
  enum class Context { kLoad, kStore, kDeclare };

  // What a scope reads and writes itself, without the scopes inside it.
  void VisitBody(const Body& body, Symbols* symbols);
  void VisitStmt(const Stmt& stmt, Symbols* symbols);
  void VisitIf(const Stmt& stmt, size_t branch, Symbols* symbols);
  void VisitExpr(const Expr* expr, Symbols* symbols, Context context = Context::kLoad);

  // Goes into the scopes inside.
  void EnterBody(Body* body, const Symbols& symbols, bool soft, int loops);
  void EnterStmt(Stmt* stmt, const Symbols& symbols, bool soft, int loops);
  void EnterFor(Stmt* stmt, const Symbols& symbols, bool soft, int loops);
  void EnterMacro(Stmt* stmt, const Symbols& symbols);
  void CheckExpr(const Expr* expr, bool soft);
  void Finish(ScopedBody* scoped, const Symbols& symbols, int loops);

  bool Mentions(const Body& body, const std::string& name) const;
  bool Mentions(const Stmt& stmt, const std::string& name) const;
  bool Mentions(const Expr* expr, const std::string& name) const;
  int Id(const std::string& name) const;
  void ForbidLoopTarget(const Stmt& stmt) const;

  const std::vector<std::string>& names_;
};

// --- reads and writes of one scope

void Resolver::VisitBody(const Body& body, Symbols* symbols) {
  for (const StmtPtr& stmt : body) VisitStmt(*stmt, symbols);
}

void Resolver::VisitIf(const Stmt& stmt, size_t branch, Symbols* symbols) {
  // Jinja hangs all elifs of an if side by side under its first test.
  VisitExpr(stmt.branches[branch].first.get(), symbols);
  Symbols body = *symbols;
  VisitBody(stmt.branches[branch].second, &body);
  Symbols elifs = *symbols;
  Symbols otherwise = *symbols;
  if (branch == 0) {
    for (size_t i = 1; i < stmt.branches.size(); ++i) VisitIf(stmt, i, &elifs);
    VisitBody(stmt.else_body, &otherwise);
  }
  symbols->MergeBranches({body, elifs, otherwise});
}

void Resolver::VisitStmt(const Stmt& stmt, Symbols* symbols) {
  switch (stmt.kind) {
    case StmtKind::kOutput:
    case StmtKind::kWith:
      for (const ExprPtr& expr : stmt.exprs) VisitExpr(expr.get(), symbols);
      break;
    case StmtKind::kIf:
      VisitIf(stmt, 0, symbols);
      break;
    case StmtKind::kSet:
      VisitExpr(stmt.expr.get(), symbols);
      VisitExpr(stmt.target.get(), symbols, Context::kStore);
      break;
    case StmtKind::kSetBlock:
      VisitExpr(stmt.target.get(), symbols, Context::kStore);
      break;
    case StmtKind::kMacro:
      symbols->Store(stmt.name);
      break;
    case StmtKind::kFor:
    case StmtKind::kCallBlock:
    case StmtKind::kFilterBlock:
      VisitExpr(stmt.expr.get(), symbols);
      break;
    case StmtKind::kText:
    case StmtKind::kGeneration:
    case StmtKind::kBreak:
    case StmtKind::kContinue:
    case StmtKind::kScope:
      break;
  }
}

void Resolver::VisitExpr(const Expr* expr, Symbols* symbols, Context context) {
  if (expr == nullptr) return;
  if (expr->kind == ExprKind::kName) {
    if (context == Context::kLoad) symbols->Read(expr->name);
    if (context == Context::kStore) symbols->Store(expr->name);
    if (context == Context::kDeclare) symbols->Declare(expr->name);
    return;
  }
  if (expr->kind == ExprKind::kNamespaceRef) return symbols->Read(expr->name);
  for (const ExprPtr& arg : expr->args) VisitExpr(arg.get(), symbols, context);
  for (const auto& [key, value] : expr->keywords) VisitExpr(value.get(), symbols, context);
  VisitExpr(expr->star.get(), symbols, context);
  VisitExpr(expr->star_star.get(), symbols, context);
}

// --- inner scopes

int Resolver::Id(const std::string& name) const {
  for (size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == name) return static_cast<int>(i);
  }
  return -1;
}

void Resolver::Finish(ScopedBody* scoped, const Symbols& symbols, int loops) {
  for (const auto& [name, load] : symbols.loads) {
    if (load == Load::kUndefined) scoped->hidden.push_back(name);
  }
  EnterBody(&scoped->body, symbols, false, loops);
}

void Resolver::Root(ScopedBody* root) {
  Symbols symbols;
  VisitBody(root->body, &symbols);
  Finish(root, symbols, 0);
}

void Resolver::EnterBody(Body* body, const Symbols& symbols, bool soft, int loops) {
  for (StmtPtr& stmt : *body) EnterStmt(stmt.get(), symbols, soft, loops);
}

void Resolver::ForbidLoopTarget(const Stmt& stmt) const {
  const auto mentions = [&](const ExprPtr& target) {
    return target != nullptr && target->kind != ExprKind::kNamespaceRef &&
           Mentions(target.get(), "loop");
  };
  bool found = mentions(stmt.target);
  for (const ExprPtr& target : stmt.targets) found = found || mentions(target);
  if (found) throw Error{"Can't assign to special loop variable in for-loop target", stmt.line};
}

void Resolver::EnterStmt(Stmt* stmt, const Symbols& symbols, bool soft, int loops) {
  if (loops > 0) ForbidLoopTarget(*stmt);
  Symbols inner;
  inner.parent = &symbols;
  for (const ExprPtr& expr : stmt->exprs) CheckExpr(expr.get(), soft);
  switch (stmt->kind) {
    case StmtKind::kFor:
      return EnterFor(stmt, symbols, soft, loops);
    case StmtKind::kIf:
      for (auto& [test, body] : stmt->branches) {
        CheckExpr(test.get(), true);
        EnterBody(&body, symbols, true, loops);
      }
      return EnterBody(&stmt->else_body, symbols, true, loops);
    case StmtKind::kMacro:
    case StmtKind::kCallBlock:
      CheckExpr(stmt->expr.get(), soft);
      return EnterMacro(stmt, symbols);
    case StmtKind::kBreak:
    case StmtKind::kContinue:
      if (loops == 0) {
        throw Error{
            stmt->kind == StmtKind::kBreak ? "'break' outside loop" : "'continue' outside loop",
            stmt->line};
      }
      return;
    case StmtKind::kSet:
      return CheckExpr(stmt->expr.get(), soft);
    case StmtKind::kWith:
      for (const ExprPtr& target : stmt->targets) {
        VisitExpr(target.get(), &inner, Context::kDeclare);
      }
      VisitBody(stmt->scoped.body, &inner);
      return Finish(&stmt->scoped, inner, loops);
    case StmtKind::kSetBlock:
    case StmtKind::kFilterBlock:
    case StmtKind::kGeneration:
    case StmtKind::kScope:
      VisitBody(stmt->scoped.body, &inner);
      VisitExpr(stmt->kind == StmtKind::kFilterBlock ? stmt->expr.get() : nullptr, &inner);
      CheckExpr(stmt->expr.get(), false);
      // A body that is captured is not left by break or continue.
      return Finish(&stmt->scoped, inner, stmt->kind == StmtKind::kScope ? loops : 0);
    case StmtKind::kText:
    case StmtKind::kOutput:
      return;
  }
}

void Resolver::EnterFor(Stmt* stmt, const Symbols& symbols, bool soft, int loops) {
  if (Mentions(stmt->target.get(), "loop")) {
    throw Error{"Can't assign to special loop variable in for-loop target", stmt->line};
  }
  CheckExpr(stmt->expr.get(), soft);
  CheckExpr(stmt->test.get(), false);
  Symbols inner;
  inner.parent = &symbols;
  if (const int loop = Id("loop");
      loop >= 0 && (stmt->recursive || Mentions(stmt->scoped.body, "loop"))) {
    inner.Declare(loop);
  }
  VisitExpr(stmt->target.get(), &inner, Context::kDeclare);
  VisitBody(stmt->scoped.body, &inner);
  Finish(&stmt->scoped, inner, loops + 1);
  Symbols otherwise;
  otherwise.parent = &symbols;
  VisitBody(stmt->otherwise.body, &otherwise);
  Finish(&stmt->otherwise, otherwise, loops);
}

void Resolver::EnterMacro(Stmt* stmt, const Symbols& symbols) {
  Symbols inner;
  inner.parent = &symbols;
  std::set<std::string> parameters;
  for (const Parameter& parameter : stmt->parameters) {
    if (!parameters.insert(names_[static_cast<size_t>(parameter.name)]).second) {
      throw Error{"duplicate argument in the definition of a macro", stmt->line};
    }
    inner.Declare(parameter.name);
  }
  for (const Parameter& parameter : stmt->parameters) {
    VisitExpr(parameter.default_value.get(), &inner);
    CheckExpr(parameter.default_value.get(), false);
  }
  const auto uses = [&](const std::string& name) {
    if (!Mentions(stmt->scoped.body, name)) return false;
    if (parameters.count(name) == 0) inner.Declare(Id(name));
    return true;
  };
  stmt->uses_caller = uses("caller");
  stmt->uses_kwargs = uses("kwargs") && parameters.count("kwargs") == 0;
  stmt->uses_varargs = uses("varargs") && parameters.count("varargs") == 0;
  VisitBody(stmt->scoped.body, &inner);
  Finish(&stmt->scoped, inner, 0);
}

void Resolver::CheckExpr(const Expr* expr, bool soft) {
  if (expr == nullptr) return;
  if (expr->kind == ExprKind::kFilter && !soft && !FilterExists(expr->text)) {
    throw Error{Cat("No filter named '", expr->text, "'."), expr->line};
  }
  if (expr->kind == ExprKind::kTest && !soft && !TestExists(expr->text)) {
    throw Error{Cat("No test named '", expr->text, "'."), expr->line};
  }
  soft = soft || expr->kind == ExprKind::kCondition;
  for (const ExprPtr& arg : expr->args) CheckExpr(arg.get(), soft);
  for (const auto& [key, value] : expr->keywords) CheckExpr(value.get(), soft);
  CheckExpr(expr->star.get(), soft);
  CheckExpr(expr->star_star.get(), soft);
}

// --- mentions of a name, inner scopes included

bool Resolver::Mentions(const Expr* expr, const std::string& name) const {
  if (expr == nullptr) return false;
  if (expr->kind == ExprKind::kName || expr->kind == ExprKind::kNamespaceRef) {
    return names_[static_cast<size_t>(expr->name)] == name;
  }
  for (const ExprPtr& arg : expr->args) {
    if (Mentions(arg.get(), name)) return true;
  }
  for (const auto& [key, value] : expr->keywords) {
    if (Mentions(value.get(), name)) return true;
  }
  return Mentions(expr->star.get(), name) || Mentions(expr->star_star.get(), name);
}

bool Resolver::Mentions(const Stmt& stmt, const std::string& name) const {
  if (Mentions(stmt.expr.get(), name) || Mentions(stmt.test.get(), name)) return true;
  for (const ExprPtr& expr : stmt.exprs) {
    if (Mentions(expr.get(), name)) return true;
  }
  for (const Parameter& parameter : stmt.parameters) {
    if (Mentions(parameter.default_value.get(), name)) return true;
  }
  for (const auto& [test, body] : stmt.branches) {
    if (Mentions(test.get(), name) || Mentions(body, name)) return true;
  }
  return Mentions(stmt.scoped.body, name) || Mentions(stmt.otherwise.body, name) ||
         Mentions(stmt.else_body, name);
}

bool Resolver::Mentions(const Body& body, const std::string& name) const {
  for (const StmtPtr& stmt : body) {
    if (Mentions(*stmt, name)) return true;
  }
  return false;
}

}  // namespace

void ResolveScopes(ScopedBody* root, const std::vector<std::string>& names) {
  Resolver(names).Root(root);
}

}  // namespace tundra::jinja
