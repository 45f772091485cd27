// What templates can call: filters, tests, methods of str, list and dict, and
// global functions, each as Python's and Jinja's of that name.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/jinja/value.h"

namespace tundra::jinja {

using Filter = Value (*)(Interpreter&, const Value& input, Arguments& arguments);

// Null when there is none of that name.
Filter FindFilter(std::string_view name);
Filter FindTest(std::string_view name);
bool FilterExists(std::string_view name);
bool TestExists(std::string_view name);

// The tables, by subject.
using FilterTable = std::map<std::string_view, Filter>;
void AddTextFilters(FilterTable* table);
void AddNumberFilters(FilterTable* table);
void AddSequenceFilters(FilterTable* table);
void AddSelectionFilters(FilterTable* table);

// range, dict, namespace, cycler, joiner, lipsum-less globals, raise_exception, strftime_now.
const std::map<std::string_view, Function>& Globals();

// Whether Python's type of `value` has a method of that name that templates may
// know of, and whether the sandbox forbids it (it changes the object).
enum class MethodAccess { kNone, kAllowed, kForbidden };
MethodAccess FindMethod(const Value& value, std::string_view name);
Value CallMethod(Interpreter& interpreter, const Value& self, const std::string& name,
                 Arguments& arguments);
Value CallStringMethod(Interpreter& interpreter, const Value& self, std::string_view name,
                       Arguments& arguments);

// Arguments by position or name. Fails, as Python does, on unknown names, on
// too many arguments and on missing ones among the first `required`.
class Bound {
 public:
  Bound(std::string_view function, Arguments& arguments,
        std::initializer_list<std::string_view> names, size_t required = 0);
  bool has(size_t i) const { return given_[i]; }
  const Value& operator[](size_t i) const { return values_[i]; }
  Value get(size_t i, Value otherwise) const { return given_[i] ? values_[i] : otherwise; }
  int64_t Int(size_t i, int64_t otherwise) const;  // fails unless it is an integer
  bool Truth(size_t i, bool otherwise) const;
  std::string Str(size_t i, std::string otherwise) const;  // fails unless it is a string
  bool NoneOrAbsent(size_t i) const { return !given_[i] || values_[i].is_none(); }

 private:
  std::string function_;
  std::vector<Value> values_;
  std::vector<bool> given_;
};

// --- operators (operators.cc), with Python's rules and TypeErrors

Value Add(const Value& a, const Value& b);
Value Subtract(const Value& a, const Value& b);
Value Multiply(const Value& a, const Value& b);
Value Divide(const Value& a, const Value& b);
Value FloorDivide(const Value& a, const Value& b);
Value Modulo(Interpreter& interpreter, const Value& a, const Value& b);
Value Power(const Value& a, const Value& b);
Value Negate(const Value& a);
Value Positive(const Value& a);
bool Contains(const Value& container, const Value& item);

// len(value); fails where Python does.
int64_t Length(const Value& value);

// The items a for loop sees; reads an iterator to its end.
std::vector<Value> Iterate(const Value& value);

// value[begin:end:step] with none for what is left out.
Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step);

// One item by index, negative from the end; null when out of range.
bool ItemAt(const Value& sequence, int64_t index, Value* out);

// --- texts (format.cc, json.cc)

// text % arguments, a tuple, a dict or one value.
std::string PercentFormat(std::string_view text, const Value& arguments);
// text.format(…); fields may have attributes and items.
std::string BraceFormat(Interpreter& interpreter, std::string_view text, Arguments& arguments);
// format(value, spec).
std::string FormatSpec(const Value& value, std::string_view spec);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// json.dumps.
std::string ToJson(const Value& value, const JsonStyle& style);

// markupsafe.escape.
std::string EscapeHtml(std::string_view text);

}  // namespace tundra::jinja
