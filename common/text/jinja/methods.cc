// Which methods exist, and those of dict, list and tuple. str is in
// string_methods.cc.
#include <algorithm>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"

namespace tundra::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

bool Has(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

MethodAccess Find(const Names& allowed, const Names& forbidden, std::string_view name) {
  if (Has(allowed, name)) return MethodAccess::kAllowed;
  return Has(forbidden, name) ? MethodAccess::kForbidden : MethodAccess::kNone;
}

Value DictGet(const Value& self, Arguments& arguments) {
  const Bound bound("get", arguments, {"key", "default"}, 1);
  if (!arguments.keyword.empty()) Fail("dict.get() takes no keyword arguments");
  const Value* found = self.dict().Find(bound[0]);
  return found != nullptr ? *found : bound.get(1, Value::None());
}

Value CallDictMethod(const Value& self, const std::string& name, Arguments& arguments) {
  if (name == "get") return DictGet(self, arguments);
  if (name == "fromkeys") {
    const Bound bound(name, arguments, {"iterable", "value"}, 1);
    auto made = std::make_shared<DictObject>();
    for (const Value& key : Iterate(bound[0])) made->Set(key, bound.get(1, Value::None()));
    return Value::Dict(std::move(made));
  }
  const Bound bound(name, arguments, {});
  if (name == "copy") {
    auto copy = std::make_shared<DictObject>();
    for (const auto& [key, value] : self.dict().items) copy->Set(key, value);
    return Value::Dict(std::move(copy));
  }
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict().items) {
    items.push_back(name == "keys" ? key : name == "values" ? value : Value::Tuple({key, value}));
  }
  return Value::View(std::move(items), name == "keys"     ? "keys"
                                       : name == "values" ? "values"
                                                          : "items");
}

Value CallListMethod(const Value& self, const std::string& name, Arguments& arguments) {
  const auto& items = self.list().items;
  if (name == "copy") {
    const Bound bound(name, arguments, {});
    return Value::List(items);
  }
  const Bound bound(name, arguments, {"value", "start", "stop"}, 1);
  if (name == "count") {
    return Value::Int(std::count_if(items.begin(), items.end(),
                                    [&](const Value& item) { return Equal(item, bound[0]); }));
  }
  const auto length = static_cast<int64_t>(items.size());
  const auto clamp = [&](int64_t index) {
    return std::clamp<int64_t>(index < 0 ? index + length : index, 0, length);
  };
  const int64_t stop = clamp(bound.Int(2, length));
  for (int64_t i = clamp(bound.Int(1, 0)); i < stop; ++i) {
    if (Equal(items[static_cast<size_t>(i)], bound[0])) return Value::Int(i);
  }
  Fail(Cat(Repr(bound[0]), " is not in ", TypeName(self)));
}

}  // namespace

MethodAccess FindMethod(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::kString:
      return Find(
          {"capitalize",  "casefold",   "center",     "count",        "endswith",     "expandtabs",
           "find",        "format",     "format_map", "index",        "isalnum",      "isalpha",
           "isascii",     "isdecimal",  "isdigit",    "isidentifier", "islower",      "isnumeric",
           "isprintable", "isspace",    "istitle",    "isupper",      "join",         "ljust",
           "lower",       "lstrip",     "partition",  "removeprefix", "removesuffix", "replace",
           "rfind",       "rindex",     "rjust",      "rpartition",   "rsplit",       "rstrip",
           "split",       "splitlines", "startswith", "strip",        "swapcase",     "title",
           "upper",       "zfill"},
          {}, name);
    case Kind::kDict:
      return Find({"get", "keys", "values", "items", "copy", "fromkeys"},
                  {"clear", "pop", "popitem", "setdefault", "update"}, name);
    case Kind::kList:
      return Find({"count", "index", "copy"},
                  {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"},
                  name);
    case Kind::kTuple:
    case Kind::kRange:
      return Find({"count", "index"}, {}, name);
    case Kind::kCycler:
      return Find({"next", "reset"}, {}, name);
    default:
      return MethodAccess::kNone;
  }
}

Value CallMethod(Interpreter& interpreter, const Value& self, const std::string& name,
                 Arguments& arguments) {
  switch (self.kind()) {
    case Kind::kString:
      return CallStringMethod(interpreter, self, name, arguments);
    case Kind::kDict:
      return CallDictMethod(self, name, arguments);
    case Kind::kCycler: {
      const Bound bound(name, arguments, {});
      auto& cycler = self.object<CyclerObject>();
      if (name == "reset") {
        cycler.position = 0;
        return Value::None();
      }
      const Value current = cycler.items[cycler.position];
      cycler.position = (cycler.position + 1) % cycler.items.size();
      return current;
    }
    default:
      return CallListMethod(self, name, arguments);
  }
}

}  // namespace tundra::jinja
