// Filters that look at each item by an attribute, a filter or a test.
#include <algorithm>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

// "a.b.0": names and, of digits, positions.
class AttributePath {
 public:
  explicit AttributePath(const Value& attribute) {
    if (attribute.is_none()) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    std::string_view rest = attribute.text();
    while (true) {
      const size_t dot = rest.find('.');
      const std::string part(rest.substr(0, dot));
      const bool digits = !part.empty() && part.size() < 18 &&
                          part.find_first_not_of("0123456789") == std::string::npos;
      parts_.push_back(digits ? Value::Int(std::stoll(part)) : Value::String(part));
      if (dot == std::string_view::npos) return;
      rest.remove_prefix(dot + 1);
    }
  }
  Value Get(Interpreter& interpreter, Value item, const Value* otherwise = nullptr) const {
    for (const Value& part : parts_) {
      item = interpreter.Item(item, part);
      if (otherwise != nullptr && item.is_undefined()) item = *otherwise;
    }
    return item;
  }

 private:
  std::vector<Value> parts_;
};

Value FoldCase(Value value, bool case_sensitive) {
  if (!case_sensitive && value.is_string()) return Value::String(ToLower(value.text()));
  return value;
}

Value Map(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  std::vector<Value> out;
  if (!Truthy(input)) return Value::Iterator({});
  if (arguments.positional.empty() && !arguments.keyword.empty()) {
    const Bound bound("map", arguments, {"attribute", "default"}, 1);
    const AttributePath path(bound[0]);
    const Value otherwise = bound.get(1, Value());
    for (const Value& item : Iterate(input)) {
      out.push_back(path.Get(interpreter, item, bound.NoneOrAbsent(1) ? nullptr : &otherwise));
    }
    return Value::Iterator(std::move(out));
  }
  if (arguments.positional.empty()) Fail("map requires a filter argument");
  const std::string name = ToStr(arguments.positional[0]);
  arguments.positional.erase(arguments.positional.begin());
  for (const Value& item : Iterate(input)) {
    Arguments copy = arguments;
    out.push_back(interpreter.CallFilter(name, item, copy));
  }
  return Value::Iterator(std::move(out));
}

Value Filtered(Interpreter& interpreter, const Value& input, Arguments& arguments,
               bool by_attribute, bool wanted) {
  if (!Truthy(input)) return Value::Iterator({});
  AttributePath path((Value()));
  if (by_attribute) {
    if (arguments.positional.empty()) Fail("Missing parameter for attribute name");
    path = AttributePath(arguments.positional[0]);
    arguments.positional.erase(arguments.positional.begin());
  }
  std::string test;
  const bool has_test = !arguments.positional.empty();
  if (has_test) {
    test = ToStr(arguments.positional[0]);
    arguments.positional.erase(arguments.positional.begin());
  }
  std::vector<Value> out;
  for (const Value& item : Iterate(input)) {
    const Value looked_at = path.Get(interpreter, item);
    Arguments copy = arguments;
    const bool passes = has_test ? interpreter.CallTest(test, looked_at, copy) : Truthy(looked_at);
    if (passes == wanted) out.push_back(item);
  }
  return Value::Iterator(std::move(out));
}

Value Select(Interpreter& i, const Value& input, Arguments& a) {
  return Filtered(i, input, a, false, true);
}
Value Reject(Interpreter& i, const Value& input, Arguments& a) {
  return Filtered(i, input, a, false, false);
}
Value SelectAttr(Interpreter& i, const Value& input, Arguments& a) {
  return Filtered(i, input, a, true, true);
}
Value RejectAttr(Interpreter& i, const Value& input, Arguments& a) {
  return Filtered(i, input, a, true, false);
}

Value Sort(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = bound.Truth(1, false);
  std::vector<AttributePath> paths;
  const Value attribute = bound.get(2, Value());
  if (attribute.is_string()) {
    std::string_view rest = attribute.text();
    for (size_t comma = 0; comma != std::string_view::npos;
         rest.remove_prefix(std::min(comma, rest.size() - 1) + 1)) {
      comma = rest.find(',');
      paths.emplace_back(Value::String(std::string(rest.substr(0, comma))));
      if (comma == std::string_view::npos) break;
    }
  } else {
    paths.emplace_back(attribute);
  }
  struct Entry {
    Value key, item;
  };
  std::vector<Entry> entries;
  for (const Value& item : Iterate(input)) {
    std::vector<Value> keys;
    for (const AttributePath& path : paths)
      keys.push_back(FoldCase(path.Get(interpreter, item), case_sensitive));
    entries.push_back({Value::List(std::move(keys)), item});
  }
  const bool reverse = bound.Truth(0, false);
  std::stable_sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
    return reverse ? Order(b.key, a.key, "<") == -1 : Order(a.key, b.key, "<") == -1;
  });
  std::vector<Value> out;
  for (Entry& entry : entries) out.push_back(std::move(entry.item));
  return Value::List(std::move(out));
}

Value Unique(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(bound.get(1, Value()));
  DictObject seen;
  std::vector<Value> out;
  for (const Value& item : Iterate(input)) {
    const Value key = FoldCase(path.Get(interpreter, item), bound.Truth(0, false));
    if (seen.Find(key) != nullptr) continue;
    seen.Set(key, Value());
    out.push_back(item);
  }
  return Value::Iterator(std::move(out));
}

Value Extreme(Interpreter& interpreter, const Value& input, Arguments& arguments,
              std::string_view name, int wanted) {
  const Bound bound(name, arguments, {"case_sensitive", "attribute"});
  const AttributePath path(bound.get(1, Value()));
  const std::vector<Value> items = Iterate(input);
  if (items.empty()) return Value::Undefined("No aggregated item, sequence was empty.");
  const auto key = [&](const Value& item) {
    return FoldCase(path.Get(interpreter, item), bound.Truth(0, false));
  };
  Value best = items[0];
  Value best_key = key(best);
  for (size_t i = 1; i < items.size(); ++i) {
    Value candidate = key(items[i]);
    if (Order(candidate, best_key, wanted < 0 ? "<" : ">") != wanted) continue;
    best = items[i];
    best_key = std::move(candidate);
  }
  return best;
}

Value Min(Interpreter& i, const Value& input, Arguments& a) {
  return Extreme(i, input, a, "min", -1);
}
Value Max(Interpreter& i, const Value& input, Arguments& a) {
  return Extreme(i, input, a, "max", 1);
}

Value Sum(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const AttributePath path(bound.get(0, Value()));
  Value total = bound.get(1, Value::Int(0));
  if (total.is_string()) Fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : Iterate(input)) total = Add(total, path.Get(interpreter, item));
  return total;
}

Value GroupBy(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(bound[0]);
  const Value otherwise = bound.get(1, Value());
  const Value* fallback = bound.NoneOrAbsent(1) ? nullptr : &otherwise;
  const bool case_sensitive = bound.Truth(2, false);
  struct Entry {
    Value key, item;
  };
  std::vector<Entry> entries;
  for (const Value& item : Iterate(input)) {
    entries.push_back({FoldCase(path.Get(interpreter, item, fallback), case_sensitive), item});
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return Order(a.key, b.key, "<") == -1; });
  std::vector<Value> groups;
  for (size_t i = 0; i < entries.size();) {
    std::vector<Value> members;
    const size_t first = i;
    for (; i < entries.size() && Equal(entries[i].key, entries[first].key); ++i)
      members.push_back(entries[i].item);
    const Value grouper =
        case_sensitive ? entries[first].key : path.Get(interpreter, members[0], fallback);
    groups.push_back(Value::Tuple({grouper, Value::List(std::move(members))}));
    groups.back().mutable_list().view = "group";  // has the attributes grouper and list
  }
  return Value::List(std::move(groups));
}

}  // namespace

void AddSelectionFilters(FilterTable* table) {
  table->insert({{"map", Map},
                 {"select", Select},
                 {"reject", Reject},
                 {"selectattr", SelectAttr},
                 {"rejectattr", RejectAttr},
                 {"sort", Sort},
                 {"unique", Unique},
                 {"min", Min},
                 {"max", Max},
                 {"sum", Sum},
                 {"groupby", GroupBy}});
}

}  // namespace tundra::jinja
