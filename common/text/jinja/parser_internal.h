// The parser's class, shared by the files that hold its statements and its
// expressions.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/text/jinja/parser.h"

namespace tundra::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  ParsedTemplate Run();

 private:
  using Names = std::initializer_list<std::string_view>;

  // --- tokens
  const Token& Current() const { return tokens_[at_]; }
  const Token& Next() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  const Token& Take();
  bool SkipName(std::string_view name);
  bool SkipOperator(std::string_view op);
  const Token& ExpectName();
  void ExpectName(std::string_view name);
  void ExpectOperator(std::string_view op);
  void Expect(TokenType type, std::string_view described);
  [[noreturn]] void FailAt(int line, std::string message) const;
  [[noreturn]] void FailExpected(std::string_view expected) const;
  bool CurrentIsOneOf(Names names) const;

  // --- statements (parser.cc)
  Body ParseBody(Names ends);  // up to an end tag, whose name is then current
  Body ParseStatements(Names ends, bool drop_end);
  void ParseStatement(Body* body);
  [[noreturn]] void FailUnknownTag(const Token& tag) const;
  StmtPtr ParseFor();
  StmtPtr ParseIf();
  StmtPtr ParseSet();
  StmtPtr ParseWith();
  StmtPtr ParseMacro();
  StmtPtr ParseCallBlock();
  StmtPtr ParseFilterBlock();
  StmtPtr ParseGeneration();
  StmtPtr ParseLoopControl();
  StmtPtr ParsePrint();
  StmtPtr ParseBlock();
  StmtPtr ParseAutoescape();
  void ParseSignature(Stmt* stmt);
  StmtPtr NewStmt(StmtKind kind, int line) const;

  // --- expressions (parser_expressions.cc)
  ExprPtr ParseExpression(bool with_condition = true);
  ExprPtr ParseCondition();
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filter = true);
  ExprPtr ParsePrimary(bool with_namespace = false);
  ExprPtr ParseNameOrConstant(bool with_namespace);
  struct TupleRules {
    bool simplified = false;
    bool with_condition = true;
    std::string_view end = {};  // a name that ends the tuple
    bool parentheses = false;
    bool with_namespace = false;
  };
  ExprPtr ParseTuple(const TupleRules& rules);
  bool AtTupleEnd(std::string_view end) const;
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParsePostfix(ExprPtr node);
  ExprPtr ParseFilterExpression(ExprPtr node);
  ExprPtr ParseSubscript(ExprPtr node);
  ExprPtr ParseSubscribed();
  ExprPtr ParseCall(ExprPtr node);
  void ParseCallArguments(Expr* call);
  ExprPtr ParseFilters(ExprPtr node, bool start_inline);
  ExprPtr ParseTest(ExprPtr node);
  ExprPtr ParseAssignTarget(std::string_view end = "", bool with_namespace = false);
  int ParseNameTarget();
  void RequireAssignable(const Expr& target) const;
  ExprPtr NewExpr(ExprKind kind, int line) const;
  ExprPtr Binary(ExprKind kind, int line, ExprPtr left, ExprPtr right) const;
  static void Add(Expr* parent, ExprPtr child);
  void CheckDepth(const Expr& expr) const;
  int Intern(const std::string& name);

  // Bounds nesting, of which the parser's own recursion is a part.
  class Nested {
   public:
    explicit Nested(Parser* parser);
    ~Nested() { --parser_->nesting_; }

   private:
    Parser* parser_;
  };

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  std::vector<std::string> tag_stack_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, int> name_ids_;
  bool has_generation_ = false;
};

}  // namespace tundra::jinja
