// Expressions, in the order of their binding: condition, or, and, not, compare,
// sum, concat (~), product, power, unary, postfix, filters and tests.
#include <algorithm>
#include <utility>

#include "common/text/jinja/parser_internal.h"

namespace tundra::jinja {
namespace {

constexpr int kMaxTreeDepth = 400;  // of chains such as a + b + c …

bool FindCompareOp(const Token& token, CompareOp* op) {
  static constexpr std::pair<std::string_view, CompareOp> kOps[] = {
      {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
      {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
  for (const auto& [text, found] : kOps) {
    if (token.IsOperator(text)) {
      *op = found;
      return true;
    }
  }
  return false;
}

}  // namespace

ExprPtr Parser::NewExpr(ExprKind kind, int line) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  return expr;
}

void Parser::Add(Expr* parent, ExprPtr child) {
  if (child != nullptr) parent->depth = std::max(parent->depth, child->depth + 1);
  parent->args.push_back(std::move(child));
}

void Parser::CheckDepth(const Expr& expr) const {
  if (expr.depth > kMaxTreeDepth) FailAt(expr.line, "the expression is nested too deeply");
}

ExprPtr Parser::Binary(ExprKind kind, int line, ExprPtr left, ExprPtr right) const {
  ExprPtr expr = NewExpr(kind, line);
  Add(expr.get(), std::move(left));
  Add(expr.get(), std::move(right));
  CheckDepth(*expr);
  return expr;
}

ExprPtr Parser::ParseExpression(bool with_condition) {
  const Nested nested(this);
  return with_condition ? ParseCondition() : ParseOr();
}

ExprPtr Parser::ParseCondition() {
  int line = Current().line;
  ExprPtr value = ParseOr();
  while (SkipName("if")) {
    ExprPtr condition = NewExpr(ExprKind::kCondition, line);
    ExprPtr test = ParseOr();
    ExprPtr otherwise;
    if (SkipName("else")) {
      const Nested nested(this);
      otherwise = ParseCondition();
    }
    Add(condition.get(), std::move(value));
    Add(condition.get(), std::move(test));
    Add(condition.get(), std::move(otherwise));
    CheckDepth(*condition);
    value = std::move(condition);
    line = Current().line;
  }
  return value;
}

ExprPtr Parser::ParseOr() {
  int line = Current().line;
  ExprPtr left = ParseAnd();
  while (SkipName("or")) {
    left = Binary(ExprKind::kOr, line, std::move(left), ParseAnd());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseAnd() {
  int line = Current().line;
  ExprPtr left = ParseNot();
  while (SkipName("and")) {
    left = Binary(ExprKind::kAnd, line, std::move(left), ParseNot());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseNot() {
  if (!Current().IsName("not")) return ParseCompare();
  const Nested nested(this);
  ExprPtr expr = NewExpr(ExprKind::kNot, Take().line);
  Add(expr.get(), ParseNot());
  return expr;
}

ExprPtr Parser::ParseCompare() {
  const int line = Current().line;
  ExprPtr first = ParseSum();
  ExprPtr compare;
  while (true) {
    CompareOp op = CompareOp::kEq;
    if (FindCompareOp(Current(), &op)) {
      Take();
    } else if (SkipName("in")) {
      op = CompareOp::kIn;
    } else if (Current().IsName("not") && Next().IsName("in")) {
      Take();
      Take();
      op = CompareOp::kNotIn;
    } else {
      return compare != nullptr ? std::move(compare) : std::move(first);
    }
    if (compare == nullptr) {
      compare = NewExpr(ExprKind::kCompare, line);
      Add(compare.get(), std::move(first));
    }
    compare->ops.push_back(op);
    Add(compare.get(), ParseSum());
    CheckDepth(*compare);
  }
}

ExprPtr Parser::ParseSum() {
  int line = Current().line;
  ExprPtr left = ParseConcat();
  while (Current().IsOperator("+") || Current().IsOperator("-")) {
    const ExprKind kind = Take().text == "+" ? ExprKind::kAdd : ExprKind::kSub;
    left = Binary(kind, line, std::move(left), ParseConcat());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseConcat() {
  const int line = Current().line;
  ExprPtr first = ParseProduct();
  if (!Current().IsOperator("~")) return first;
  ExprPtr concat = NewExpr(ExprKind::kConcat, line);
  Add(concat.get(), std::move(first));
  while (SkipOperator("~")) Add(concat.get(), ParseProduct());
  CheckDepth(*concat);
  return concat;
}

ExprPtr Parser::ParseProduct() {
  static constexpr std::pair<std::string_view, ExprKind> kOps[] = {{"*", ExprKind::kMul},
                                                                   {"/", ExprKind::kDiv},
                                                                   {"//", ExprKind::kFloorDiv},
                                                                   {"%", ExprKind::kMod}};
  int line = Current().line;
  ExprPtr left = ParsePower();
  while (true) {
    const auto* op = std::find_if(std::begin(kOps), std::end(kOps),
                                  [&](const auto& o) { return Current().IsOperator(o.first); });
    if (op == std::end(kOps)) return left;
    Take();
    left = Binary(op->second, line, std::move(left), ParsePower());
    line = Current().line;
  }
}

ExprPtr Parser::ParsePower() {
  int line = Current().line;
  ExprPtr left = ParseUnary();
  while (SkipOperator("**")) {
    left = Binary(ExprKind::kPow, line, std::move(left), ParseUnary());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseUnary(bool with_filter) {
  const Nested nested(this);
  const int line = Current().line;
  ExprPtr node;
  if (Current().IsOperator("-") || Current().IsOperator("+")) {
    node = NewExpr(Take().text == "-" ? ExprKind::kNegative : ExprKind::kPositive, line);
    Add(node.get(), ParseUnary(false));
  } else {
    node = ParsePrimary();
  }
  node = ParsePostfix(std::move(node));
  return with_filter ? ParseFilterExpression(std::move(node)) : std::move(node);
}

ExprPtr Parser::ParseNameOrConstant(bool with_namespace) {
  const Token& token = Take();
  const std::string& text = token.text;
  ExprPtr expr = NewExpr(ExprKind::kConst, token.line);
  if (text == "true" || text == "True" || text == "false" || text == "False") {
    expr->constant = Value::Bool(text == "true" || text == "True");
  } else if (text == "none" || text == "None") {
    expr->constant = Value::None();
  } else {
    expr->kind = ExprKind::kName;
    expr->name = Intern(text);
    expr->text = text;
    if (with_namespace && SkipOperator(".")) {
      expr->kind = ExprKind::kNamespaceRef;
      expr->text = ExpectName().text;
    }
  }
  return expr;
}

ExprPtr Parser::ParsePrimary(bool with_namespace) {
  const Token& token = Current();
  if (token.type == TokenType::kName) return ParseNameOrConstant(with_namespace);
  ExprPtr expr = NewExpr(ExprKind::kConst, token.line);
  if (token.type == TokenType::kString) {
    std::string text;
    while (Current().type == TokenType::kString) text += Take().text;
    expr->constant = Value::String(std::move(text));
    return expr;
  }
  if (token.type == TokenType::kInteger || token.type == TokenType::kFloat) {
    expr->constant =
        token.type == TokenType::kInteger ? Value::Int(token.integer) : Value::Float(token.real);
    Take();
    return expr;
  }
  if (SkipOperator("(")) {
    expr = ParseTuple({.parentheses = true});
    ExpectOperator(")");
    return expr;
  }
  if (token.IsOperator("[")) return ParseList();
  if (token.IsOperator("{")) return ParseDict();
  FailAt(token.line, Cat("unexpected '", token.Describe(), "'"));
}

bool Parser::AtTupleEnd(std::string_view end) const {
  const Token& token = Current();
  return token.type == TokenType::kVariableEnd || token.type == TokenType::kBlockEnd ||
         token.IsOperator(")") || (!end.empty() && token.IsName(end));
}

ExprPtr Parser::ParseTuple(const TupleRules& rules) {
  const Nested nested(this);
  int line = Current().line;
  ExprPtr tuple = NewExpr(ExprKind::kTuple, line);
  bool is_tuple = false;
  while (true) {
    if (!tuple->args.empty()) ExpectOperator(",");
    if (AtTupleEnd(rules.end)) break;
    Add(tuple.get(), rules.simplified ? ParsePrimary(rules.with_namespace)
                                      : ParseExpression(rules.with_condition));
    if (!Current().IsOperator(",")) break;
    is_tuple = true;
    line = Current().line;
  }
  if (!is_tuple) {
    if (!tuple->args.empty()) return std::move(tuple->args[0]);
    if (!rules.parentheses) {
      FailAt(Current().line, Cat("Expected an expression, got '", Current().Describe(), "'"));
    }
  }
  tuple->line = line;
  return tuple;
}

ExprPtr Parser::ParseList() {
  ExprPtr list = NewExpr(ExprKind::kList, Take().line);
  while (!Current().IsOperator("]")) {
    if (!list->args.empty()) ExpectOperator(",");
    if (Current().IsOperator("]")) break;
    Add(list.get(), ParseExpression());
  }
  ExpectOperator("]");
  return list;
}

ExprPtr Parser::ParseDict() {
  ExprPtr dict = NewExpr(ExprKind::kDict, Take().line);
  while (!Current().IsOperator("}")) {
    if (!dict->args.empty()) ExpectOperator(",");
    if (Current().IsOperator("}")) break;
    Add(dict.get(), ParseExpression());
    ExpectOperator(":");
    Add(dict.get(), ParseExpression());
  }
  ExpectOperator("}");
  return dict;
}

ExprPtr Parser::ParsePostfix(ExprPtr node) {
  while (true) {
    if (Current().IsOperator(".") || Current().IsOperator("[")) {
      node = ParseSubscript(std::move(node));
    } else if (Current().IsOperator("(")) {
      node = ParseCall(std::move(node));
    } else {
      return node;
    }
    CheckDepth(*node);
  }
}

ExprPtr Parser::ParseFilterExpression(ExprPtr node) {
  while (true) {
    if (Current().IsOperator("|")) {
      node = ParseFilters(std::move(node), false);
    } else if (Current().IsName("is")) {
      node = ParseTest(std::move(node));
    } else if (Current().IsOperator("(")) {
      node = ParseCall(std::move(node));
    } else {
      return node;
    }
    CheckDepth(*node);
  }
}

ExprPtr Parser::ParseSubscript(ExprPtr node) {
  const Token& open = Take();
  if (open.text == ".") {
    const Token& attribute = Take();
    if (attribute.type == TokenType::kName) {
      ExprPtr expr = NewExpr(ExprKind::kAttribute, open.line);
      expr->text = attribute.text;
      Add(expr.get(), std::move(node));
      return expr;
    }
    if (attribute.type != TokenType::kInteger) FailAt(attribute.line, "expected name or number");
    ExprPtr index = NewExpr(ExprKind::kConst, attribute.line);
    index->constant = Value::Int(attribute.integer);
    return Binary(ExprKind::kItem, open.line, std::move(node), std::move(index));
  }
  const int line = open.line;
  ExprPtr tuple = NewExpr(ExprKind::kTuple, line);
  while (!Current().IsOperator("]")) {
    if (!tuple->args.empty()) ExpectOperator(",");
    Add(tuple.get(), ParseSubscribed());
  }
  ExpectOperator("]");
  ExprPtr index = tuple->args.size() == 1 ? std::move(tuple->args[0]) : std::move(tuple);
  return Binary(ExprKind::kItem, line, std::move(node), std::move(index));
}

ExprPtr Parser::ParseSubscribed() {
  const int line = Current().line;
  ExprPtr begin, end, step;
  if (!Current().IsOperator(":")) {
    begin = ParseExpression();
    if (!Current().IsOperator(":")) return begin;
  }
  Take();
  const auto at_end = [&] { return Current().IsOperator("]") || Current().IsOperator(","); };
  if (!Current().IsOperator(":") && !at_end()) end = ParseExpression();
  if (SkipOperator(":") && !at_end()) step = ParseExpression();
  ExprPtr slice = NewExpr(ExprKind::kSlice, line);
  Add(slice.get(), std::move(begin));
  Add(slice.get(), std::move(end));
  Add(slice.get(), std::move(step));
  return slice;
}

ExprPtr Parser::ParseCall(ExprPtr node) {
  ExprPtr call = NewExpr(ExprKind::kCall, Current().line);
  Add(call.get(), std::move(node));
  ParseCallArguments(call.get());
  return call;
}

void Parser::ParseCallArguments(Expr* call) {
  const int line = Current().line;
  ExpectOperator("(");
  bool positional = false;
  bool comma = false;
  const auto ensure = [&](bool ok) {
    if (!ok) FailAt(line, "invalid syntax for function call expression");
  };
  const auto deepen = [&](const ExprPtr& child) {
    call->depth = std::max(call->depth, child->depth + 1);
  };
  while (!Current().IsOperator(")")) {
    if (comma) {
      ExpectOperator(",");
      if (Current().IsOperator(")")) break;
    }
    comma = true;
    if (SkipOperator("*")) {
      ensure(call->star == nullptr && call->star_star == nullptr);
      call->star = ParseExpression();
      deepen(call->star);
    } else if (SkipOperator("**")) {
      ensure(call->star_star == nullptr);
      call->star_star = ParseExpression();
      deepen(call->star_star);
    } else if (Current().type == TokenType::kName && Next().IsOperator("=")) {
      ensure(call->star_star == nullptr);
      const std::string key = Take().text;
      Take();
      ExprPtr value = ParseExpression();
      deepen(value);
      for (const auto& [other, unused] : call->keywords) {
        if (other == key) FailAt(line, Cat("keyword argument repeated: ", key));
      }
      call->keywords.emplace_back(key, std::move(value));
      positional = true;
    } else {
      ensure(call->star == nullptr && call->star_star == nullptr && !positional);
      Add(call, ParseExpression());
    }
  }
  ExpectOperator(")");
}

ExprPtr Parser::ParseFilters(ExprPtr node, bool start_inline) {
  while (Current().IsOperator("|") || start_inline) {
    if (!start_inline) Take();
    start_inline = false;
    const Token& token = ExpectName();
    ExprPtr filter = NewExpr(ExprKind::kFilter, token.line);
    filter->text = token.text;
    while (SkipOperator(".")) filter->text += "." + ExpectName().text;
    Add(filter.get(), std::move(node));
    if (Current().IsOperator("(")) ParseCallArguments(filter.get());
    CheckDepth(*filter);
    node = std::move(filter);
  }
  return node;
}

ExprPtr Parser::ParseTest(ExprPtr node) {
  const int line = Take().line;
  const bool negated = SkipName("not");
  ExprPtr test = NewExpr(ExprKind::kTest, line);
  test->text = ExpectName().text;
  while (SkipOperator(".")) test->text += "." + ExpectName().text;
  Add(test.get(), std::move(node));
  const Token& token = Current();
  const bool starts_value = token.type == TokenType::kName || token.type == TokenType::kString ||
                            token.type == TokenType::kInteger || token.type == TokenType::kFloat ||
                            token.IsOperator("[") || token.IsOperator("{");
  if (token.IsOperator("(")) {
    ParseCallArguments(test.get());
  } else if (starts_value && !CurrentIsOneOf({"else", "or", "and"})) {
    if (token.IsName("is")) FailAt(token.line, "You cannot chain multiple tests with is");
    Add(test.get(), ParsePostfix(ParsePrimary()));
  }
  CheckDepth(*test);
  if (!negated) return test;
  ExprPtr negation = NewExpr(ExprKind::kNot, line);
  Add(negation.get(), std::move(test));
  return negation;
}

void Parser::RequireAssignable(const Expr& target) const {
  if (target.kind == ExprKind::kName || target.kind == ExprKind::kNamespaceRef) return;
  if (target.kind == ExprKind::kTuple) {
    for (const ExprPtr& item : target.args) RequireAssignable(*item);
    return;
  }
  FailAt(target.line, "can't assign to this expression");
}

ExprPtr Parser::ParseAssignTarget(std::string_view end, bool with_namespace) {
  ExprPtr target = ParseTuple({.simplified = true, .end = end, .with_namespace = with_namespace});
  RequireAssignable(*target);
  return target;
}

int Parser::ParseNameTarget() {
  const Token& token = ExpectName();
  static constexpr std::string_view kReserved[] = {"true", "false", "none",
                                                   "True", "False", "None"};
  if (std::find(std::begin(kReserved), std::end(kReserved), token.text) != std::end(kReserved)) {
    FailAt(token.line, "can't assign to 'name'");
  }
  return Intern(token.text);
}

}  // namespace tundra::jinja
