// Statements. Expressions are in parser_expressions.cc.
#include "common/text/jinja/parser.h"

#include <algorithm>
#include <utility>

#include "common/text/jinja/parser_internal.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

constexpr int kMaxNesting = 200;

}  // namespace

Parser::Nested::Nested(Parser* parser) : parser_(parser) {
  if (++parser_->nesting_ > kMaxNesting) {
    const int line = parser_->Current().line;
    --parser_->nesting_;
    parser_->FailAt(line, "the template is nested too deeply");
  }
}

// --- tokens

const Token& Parser::Take() {
  const Token& token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::SkipName(std::string_view name) {
  if (!Current().IsName(name)) return false;
  Take();
  return true;
}

bool Parser::SkipOperator(std::string_view op) {
  if (!Current().IsOperator(op)) return false;
  Take();
  return true;
}

void Parser::FailAt(int line, std::string message) const { throw Error{std::move(message), line}; }

void Parser::FailExpected(std::string_view expected) const {
  if (Current().type == TokenType::kEof) {
    FailAt(Current().line, Cat("unexpected end of template, expected '", expected, "'."));
  }
  FailAt(Current().line,
         Cat("expected token '", expected, "', got ", ReprString(Current().Describe())));
}

const Token& Parser::ExpectName() {
  if (Current().type != TokenType::kName) FailExpected("name");
  return Take();
}

void Parser::ExpectName(std::string_view name) {
  if (!SkipName(name)) FailExpected(name);
}

void Parser::ExpectOperator(std::string_view op) {
  if (!SkipOperator(op)) FailExpected(op);
}

void Parser::Expect(TokenType type, std::string_view described) {
  if (Current().type != type) FailExpected(described);
  Take();
}

bool Parser::CurrentIsOneOf(Names names) const {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view name) { return Current().IsName(name); });
}

int Parser::Intern(const std::string& name) {
  const auto [it, added] = name_ids_.emplace(name, static_cast<int>(names_.size()));
  if (added) names_.push_back(name);
  return it->second;
}

StmtPtr Parser::NewStmt(StmtKind kind, int line) const {
  auto stmt = std::make_unique<Stmt>();
  stmt->kind = kind;
  stmt->line = line;
  return stmt;
}

// --- bodies

ParsedTemplate Parser::Run() {
  ParsedTemplate parsed;
  parsed.body = ParseBody({});
  parsed.names = std::move(names_);
  parsed.has_generation = has_generation_;
  return parsed;
}

Body Parser::ParseBody(Names ends) {
  const Nested nested(this);
  Body body;
  while (Current().type != TokenType::kEof) {
    const int line = Current().line;
    if (Current().type == TokenType::kData) {
      StmtPtr text = NewStmt(StmtKind::kText, line);
      text->text = Take().text;
      body.push_back(std::move(text));
    } else if (Current().type == TokenType::kVariableBegin) {
      Take();
      StmtPtr output = NewStmt(StmtKind::kOutput, line);
      output->exprs.push_back(ParseTuple({}));
      Expect(TokenType::kVariableEnd, "end of print statement");
      body.push_back(std::move(output));
    } else {
      Expect(TokenType::kBlockBegin, "begin of statement block");
      if (CurrentIsOneOf(ends)) return body;
      ParseStatement(&body);
      Expect(TokenType::kBlockEnd, "end of statement block");
    }
  }
  return body;
}

Body Parser::ParseStatements(Names ends, bool drop_end) {
  SkipOperator(":");
  Expect(TokenType::kBlockEnd, "end of statement block");
  Body body = ParseBody(ends);
  if (Current().type == TokenType::kEof) {
    std::string expected;
    for (std::string_view end : ends) expected += Cat(expected.empty() ? "'" : " or '", end, "'");
    FailAt(Current().line,
           Cat("Unexpected end of template. Jinja was looking for the following tags: ", expected,
               ". The innermost block that needs to be closed is '", tag_stack_.back(), "'."));
  }
  if (drop_end) Take();
  return body;
}

void Parser::FailUnknownTag(const Token& tag) const {
  std::string message = Cat("Encountered unknown tag '", tag.text, "'.");
  if (!tag_stack_.empty()) {
    message += Cat(" The innermost block that needs to be closed is '", tag_stack_.back(), "'.");
  }
  FailAt(tag.line, std::move(message));
}

void Parser::ParseStatement(Body* body) {
  const Token tag = Current();
  if (tag.type != TokenType::kName) FailAt(tag.line, "tag name expected");
  using Method = StmtPtr (Parser::*)();
  static constexpr std::pair<std::string_view, Method> kTags[] = {
      {"for", &Parser::ParseFor},
      {"if", &Parser::ParseIf},
      {"set", &Parser::ParseSet},
      {"with", &Parser::ParseWith},
      {"macro", &Parser::ParseMacro},
      {"call", &Parser::ParseCallBlock},
      {"filter", &Parser::ParseFilterBlock},
      {"generation", &Parser::ParseGeneration},
      {"break", &Parser::ParseLoopControl},
      {"continue", &Parser::ParseLoopControl},
      {"print", &Parser::ParsePrint},
      {"block", &Parser::ParseBlock},
      {"autoescape", &Parser::ParseAutoescape}};
  for (const auto& [name, method] : kTags) {
    if (tag.text != name) continue;
    tag_stack_.push_back(tag.text);
    body->push_back((this->*method)());
    tag_stack_.pop_back();
    return;
  }
  if (tag.text == "extends" || tag.text == "include" || tag.text == "import" ||
      tag.text == "from") {
    FailAt(tag.line, Cat("'", tag.text, "' needs other templates, which a chat template has not"));
  }
  FailUnknownTag(tag);
}

// --- statements

StmtPtr Parser::ParseFor() {
  StmtPtr stmt = NewStmt(StmtKind::kFor, Take().line);
  stmt->target = ParseAssignTarget("in");
  ExpectName("in");
  stmt->expr = ParseTuple({.with_condition = false, .end = "recursive"});
  if (SkipName("if")) stmt->test = ParseExpression();
  stmt->recursive = SkipName("recursive");
  stmt->scoped.body = ParseStatements({"endfor", "else"}, false);
  if (Take().text != "endfor") stmt->otherwise.body = ParseStatements({"endfor"}, true);
  return stmt;
}

StmtPtr Parser::ParseIf() {
  StmtPtr stmt = NewStmt(StmtKind::kIf, Take().line);
  while (true) {
    ExprPtr test = ParseTuple({.with_condition = false});
    Body body = ParseStatements({"elif", "else", "endif"}, false);
    stmt->branches.emplace_back(std::move(test), std::move(body));
    const Token& end = Take();
    if (end.IsName("elif")) continue;
    if (end.IsName("else")) stmt->else_body = ParseStatements({"endif"}, true);
    return stmt;
  }
}

StmtPtr Parser::ParseSet() {
  const int line = Take().line;
  ExprPtr target = ParseAssignTarget("", true);
  if (SkipOperator("=")) {
    StmtPtr stmt = NewStmt(StmtKind::kSet, line);
    stmt->target = std::move(target);
    stmt->expr = ParseTuple({});
    return stmt;
  }
  StmtPtr stmt = NewStmt(StmtKind::kSetBlock, line);
  stmt->target = std::move(target);
  stmt->expr = ParseFilters(nullptr, false);
  stmt->scoped.body = ParseStatements({"endset"}, true);
  return stmt;
}

StmtPtr Parser::ParseWith() {
  StmtPtr stmt = NewStmt(StmtKind::kWith, Take().line);
  while (Current().type != TokenType::kBlockEnd) {
    if (!stmt->targets.empty()) ExpectOperator(",");
    stmt->targets.push_back(ParseAssignTarget());
    ExpectOperator("=");
    stmt->exprs.push_back(ParseExpression());
  }
  stmt->scoped.body = ParseStatements({"endwith"}, true);
  return stmt;
}

void Parser::ParseSignature(Stmt* stmt) {
  ExpectOperator("(");
  bool with_defaults = false;
  while (!Current().IsOperator(")")) {
    if (!stmt->parameters.empty()) ExpectOperator(",");
    Parameter parameter;
    parameter.name = ParseNameTarget();
    if (SkipOperator("=")) {
      parameter.default_value = ParseExpression();
      with_defaults = true;
    } else if (with_defaults) {
      FailAt(Current().line, "non-default argument follows default argument");
    }
    stmt->parameters.push_back(std::move(parameter));
  }
  ExpectOperator(")");
}

StmtPtr Parser::ParseMacro() {
  StmtPtr stmt = NewStmt(StmtKind::kMacro, Take().line);
  stmt->name = ParseNameTarget();
  stmt->text = names_[static_cast<size_t>(stmt->name)];
  ParseSignature(stmt.get());
  stmt->scoped.body = ParseStatements({"endmacro"}, true);
  return stmt;
}

StmtPtr Parser::ParseCallBlock() {
  StmtPtr stmt = NewStmt(StmtKind::kCallBlock, Take().line);
  if (Current().IsOperator("(")) ParseSignature(stmt.get());
  stmt->expr = ParseExpression();
  if (stmt->expr->kind != ExprKind::kCall) FailAt(stmt->line, "expected call");
  stmt->scoped.body = ParseStatements({"endcall"}, true);
  return stmt;
}

StmtPtr Parser::ParseFilterBlock() {
  StmtPtr stmt = NewStmt(StmtKind::kFilterBlock, Take().line);
  stmt->expr = ParseFilters(nullptr, true);
  stmt->scoped.body = ParseStatements({"endfilter"}, true);
  return stmt;
}

StmtPtr Parser::ParseGeneration() {
  StmtPtr stmt = NewStmt(StmtKind::kGeneration, Take().line);
  stmt->scoped.body = ParseStatements({"endgeneration"}, true);
  has_generation_ = true;
  return stmt;
}

StmtPtr Parser::ParseLoopControl() {
  const Token& tag = Take();
  return NewStmt(tag.text == "break" ? StmtKind::kBreak : StmtKind::kContinue, tag.line);
}

StmtPtr Parser::ParsePrint() {
  StmtPtr stmt = NewStmt(StmtKind::kOutput, Take().line);
  while (Current().type != TokenType::kBlockEnd) {
    if (!stmt->exprs.empty()) ExpectOperator(",");
    stmt->exprs.push_back(ParseExpression());
  }
  return stmt;
}

// Without inheritance a block is its body, in a scope that sees the variables of
// the top level only; being inside a loop makes the difference.
StmtPtr Parser::ParseBlock() {
  StmtPtr stmt = NewStmt(StmtKind::kScope, Take().line);
  const std::string name = ExpectName().text;
  if (tag_stack_.size() > 1) FailAt(stmt->line, "a block inside another tag is not supported");
  SkipName("scoped");
  stmt->scoped.body = ParseStatements({"endblock"}, true);
  SkipName(name);
  return stmt;
}

StmtPtr Parser::ParseAutoescape() {
  StmtPtr stmt = NewStmt(StmtKind::kScope, Take().line);
  const ExprPtr option = ParseExpression();
  if (option->kind != ExprKind::kConst || Truthy(option->constant)) {
    FailAt(stmt->line, "autoescape is not supported in chat templates, except as false");
  }
  stmt->scoped.body = ParseStatements({"endautoescape"}, true);
  return stmt;
}

ParsedTemplate Parse(std::vector<Token> tokens) { return Parser(std::move(tokens)).Run(); }

}  // namespace tundra::jinja
