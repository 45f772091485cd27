// Filters that work on lists, dictionaries and iterators as a whole.
#include <algorithm>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

Value LengthFilter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("length", arguments, {});
  return Value::Int(Length(input));
}

Value ListFilter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("list", arguments, {});
  return Value::List(Iterate(input));
}

Value First(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("first", arguments, {});
  if (input.is(Kind::kIterator)) {
    ListObject& list = input.mutable_list();
    if (list.next < list.items.size()) return list.items[list.next++];
    return Value::Undefined("No first item, sequence was empty.");
  }
  const std::vector<Value> items = Iterate(input);
  return items.empty() ? Value::Undefined("No first item, sequence was empty.") : items.front();
}

Value Last(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("last", arguments, {});
  if (input.is(Kind::kIterator)) Fail("'generator' object is not reversible");
  const std::vector<Value> items = Iterate(input);
  return items.empty() ? Value::Undefined("No last item, sequence was empty.") : items.back();
}

Value Join(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const std::string separator = bound.has(0) ? ToStr(bound[0]) : "";
  std::string out;
  bool first = true;
  for (Value item : Iterate(input)) {
    if (!bound.NoneOrAbsent(1)) {
      Arguments attribute;
      attribute.keyword.emplace_back("attribute", bound[1]);
      const Value mapped = interpreter.CallFilter("map", Value::List({item}), attribute);
      item = Iterate(mapped).at(0);
    }
    if (!first) out += separator;
    first = false;
    out += ToStr(item);
    Budget::StringSize(out.size());
  }
  return Value::String(std::move(out));
}

Value Reverse(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("reverse", arguments, {});
  if (input.is_string()) return Slice(input, Value(), Value(), Value::Int(-1));
  if (!input.is_listed() && !input.is(Kind::kDict) && !input.is_undefined()) {
    Fail("argument must be iterable");
  }
  std::vector<Value> items = Iterate(input);
  std::reverse(items.begin(), items.end());
  return input.is(Kind::kIterator) ? Value::List(std::move(items))
                                   : Value::Iterator(std::move(items));
}

Value Items(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("items", arguments, {});
  std::vector<Value> pairs;
  if (!input.is_undefined()) {
    if (!input.is(Kind::kDict)) Fail("Can only get item pairs from a mapping.");
    for (const auto& [key, value] : input.dict().items) pairs.push_back(Value::Tuple({key, value}));
  }
  return Value::Iterator(std::move(pairs));
}

Value DictSort(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.Str(1, "key");
  if (by != "key" && by != "value") Fail("You can only sort by either \"key\" or \"value\"");
  RequireDefined(input);
  if (!input.is(Kind::kDict)) Fail(Cat("'", TypeName(input), "' object has no attribute 'items'"));
  const bool case_sensitive = bound.Truth(0, false);
  struct Entry {
    Value key, pair;
  };
  std::vector<Entry> entries;
  for (const auto& [key, value] : input.dict().items) {
    Value sort_key = by == "key" ? key : value;
    if (!case_sensitive && sort_key.is_string()) sort_key = Value::String(ToLower(sort_key.text()));
    entries.push_back({sort_key, Value::Tuple({key, value})});
  }
  const bool reverse = bound.Truth(2, false);
  std::stable_sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
    return reverse ? Order(b.key, a.key, "<") == -1 : Order(a.key, b.key, "<") == -1;
  });
  std::vector<Value> out;
  for (Entry& entry : entries) out.push_back(std::move(entry.pair));
  return Value::List(std::move(out));
}

Value Batch(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t count = bound.Int(0, 1);
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : Iterate(input)) {
    if (static_cast<int64_t>(batch.size()) == count)
      batches.push_back(Value::List(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (!batch.empty()) {
    if (!bound.NoneOrAbsent(1) && static_cast<int64_t>(batch.size()) < count) {
      Budget::Work(static_cast<uint64_t>(count) * sizeof(Value));
      batch.resize(static_cast<size_t>(count), bound[1]);
    }
    batches.push_back(Value::List(std::move(batch)));
  }
  return Value::Iterator(std::move(batches));
}

Value SliceFilter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const int64_t slices = bound.Int(0, 1);
  const std::vector<Value> items = Iterate(input);
  const auto length = static_cast<int64_t>(items.size());
  if (slices == 0) Fail("integer division or modulo by zero");
  std::vector<Value> out;
  if (slices < 0) return Value::Iterator(std::move(out));
  Budget::Work(static_cast<uint64_t>(std::min<int64_t>(slices, int64_t{1} << 40)) * sizeof(Value));
  const int64_t each = length / slices;
  const int64_t extra = length % slices;
  int64_t offset = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t start = offset + i * each;
    if (i < extra) ++offset;
    const int64_t end = offset + (i + 1) * each;
    std::vector<Value> part(items.begin() + start, items.begin() + end);
    if (!bound.NoneOrAbsent(1) && i >= extra) part.push_back(bound[1]);
    out.push_back(Value::List(std::move(part)));
  }
  return Value::Iterator(std::move(out));
}

Value Default(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  const bool replace = input.is_undefined() || (bound.Truth(1, false) && !Truthy(input));
  return replace ? bound.get(0, Value::String("")) : input;
}

Value PrettyPrint(Interpreter&, const Value& input, Arguments& arguments) {
  // pprint.pformat for what fits one line; longer values are not broken.
  const Bound bound("pprint", arguments, {});
  return Value::String(Repr(input));
}

Value Attr(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  RequireDefined(input);
  const std::string name = bound.Str(0, "");
  if (input.is(Kind::kDict) && FindMethod(input, name) == MethodAccess::kNone) {
    return Value::Undefined(Cat("'dict object' has no attribute ", ReprString(name)));
  }
  return interpreter.Attribute(input, name);
}

Value XmlAttr(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound("xmlattr", arguments, {"autospace"});
  if (!input.is(Kind::kDict)) Fail("xmlattr needs a dict");
  std::string out;
  for (const auto& [key, value] : input.dict().items) {
    if (value.is_none() || value.is_undefined()) continue;
    const std::string name = ToStr(key);
    if (name.find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      Fail(Cat("Invalid character in attribute name: ", ReprString(name)));
    }
    out += Cat(out.empty() ? "" : " ", EscapeHtml(name), "=\"",
               value.is_markup() ? value.text() : EscapeHtml(ToStr(value)), "\"");
  }
  if (bound.Truth(0, true) && !out.empty()) out = Cat(" ", out);
  return Value::String(std::move(out));
}

}  // namespace

void AddSequenceFilters(FilterTable* table) {
  table->insert({{"length", LengthFilter},
                 {"count", LengthFilter},
                 {"list", ListFilter},
                 {"first", First},
                 {"last", Last},
                 {"join", Join},
                 {"reverse", Reverse},
                 {"items", Items},
                 {"dictsort", DictSort},
                 {"batch", Batch},
                 {"slice", SliceFilter},
                 {"default", Default},
                 {"d", Default},
                 {"pprint", PrettyPrint},
                 {"attr", Attr},
                 {"xmlattr", XmlAttr}});
}

}  // namespace tundra::jinja
