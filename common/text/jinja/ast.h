// A parsed template: statements and expressions as Jinja's nodes, with variable
// names replaced by numbers in the template's table of names.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/text/jinja/value.h"

namespace tundra::jinja {

enum class ExprKind : uint8_t {
  kConst,
  kName,
  kList,
  kTuple,
  kDict,
  kAttribute,  // args[0].text
  kItem,       // args[0][args[1]]
  kSlice,      // args: begin, end, step; each may be null
  kCall,       // args[0] is what is called
  kFilter,     // text is the filter, args[0] its input (null in a filter block)
  kTest,       // text is the test, args[0] its input
  kCondition,  // args[0] if args[1] else args[2] (may be null)
  kAnd,
  kOr,
  kNot,
  kNegative,
  kPositive,
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kConcat,
  kCompare,       // args[0] ops[0] args[1] ops[1] …
  kNamespaceRef,  // name.text, as the target of a set
};

enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind = ExprKind::kConst;
  int line = 0;
  int depth = 1;  // of the tree below, so that it is bounded
  int name = -1;  // kName, kNamespaceRef
  std::string text;
  Value constant;
  std::vector<ExprPtr> args;  // a call's positional arguments follow args[0]
  std::vector<CompareOp> ops;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  ExprPtr star;       // *args of a call
  ExprPtr star_star;  // **kwargs of a call
};

enum class StmtKind : uint8_t {
  kText,    // text
  kOutput,  // exprs
  kFor,
  kIf,
  kSet,
  kSetBlock,
  kWith,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kGeneration,
  kBreak,
  kContinue,
  kScope,  // a body with variables of its own (block, autoescape false)
};

struct Stmt;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

struct Parameter {
  int name = -1;
  ExprPtr default_value;  // may be null
};

// A body that has variables of its own, with the names that are undefined at its
// start although an outer variable of the name exists: Jinja decides by the
// first use of a name in the text of the body (see scopes.h).
struct ScopedBody {
  Body body;
  std::vector<int> hidden;
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int line = 0;
  std::string text;              // kText; a macro's name
  int name = -1;                 // a macro's name
  std::vector<ExprPtr> exprs;    // kOutput; kWith: values
  ExprPtr target;                // kFor, kSet, kSetBlock
  std::vector<ExprPtr> targets;  // kWith
  ExprPtr expr;                  // kFor: iterable; kSet: value; kCallBlock: the call;
                                 // kFilterBlock, kSetBlock: the filters (may be null)
  ExprPtr test;                  // kFor: the loop's if
  bool recursive = false;
  std::vector<Parameter> parameters;  // kMacro, kCallBlock
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
  ScopedBody scoped;                               // the body of all but kIf
  ScopedBody otherwise;                            // kFor: else
  std::vector<std::pair<ExprPtr, Body>> branches;  // kIf: if and elifs
  Body else_body;                                  // kIf
};

}  // namespace tundra::jinja
