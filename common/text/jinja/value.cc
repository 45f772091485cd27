#include "common/text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "absl/strings/str_format.h"
#include "common/interrupt.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

constexpr uint64_t kVisitBytes = 16;  // what looking at one value costs of the work budget
constexpr size_t kIndexFrom = 9;      // dictionaries of fewer items are searched in order

thread_local Budget* g_budget = nullptr;

Value MakeList(Kind kind, std::vector<Value> items) {
  Budget::Work(64 + items.size() * sizeof(Value));
  auto object = std::make_shared<ListObject>();
  object->depth = DepthAbove(items);
  object->items = std::move(items);
  return Value::Of(kind, std::move(object));
}

bool EqualItems(const std::vector<Value>& a, const std::vector<Value>& b, int depth) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Equal(a[i], b[i], depth + 1)) return false;
  }
  return true;
}

bool EqualDicts(const DictObject& a, const DictObject& b, int depth) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.Find(key);
    if (other == nullptr || !Equal(value, *other, depth + 1)) return false;
  }
  return true;
}

std::string ReprItems(const std::vector<Value>& items, int depth) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    out += Repr(items[i], depth + 1);
  }
  return out;
}

std::string ReprDict(const DictObject& dict, int depth) {
  std::string out = "{";
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) out += ", ";
    out += Cat(Repr(dict.items[i].first, depth + 1), ": ", Repr(dict.items[i].second, depth + 1));
  }
  return out + "}";
}

void CheckDepth(int depth) {
  if (depth > kMaxDepth) Fail("values are nested too deeply");
}

}  // namespace

void Fail(std::string message) { throw Error{std::move(message)}; }

Budget::Budget(uint64_t max_steps, uint64_t max_work_bytes, uint64_t max_string_bytes)
    : steps_(max_steps),
      work_(max_work_bytes),
      max_string_bytes_(max_string_bytes),
      outer_(g_budget) {
  g_budget = this;
}

Budget::~Budget() { g_budget = outer_; }

void Budget::Step() {
  if (g_budget == nullptr) return;
  if (g_budget->steps_ == 0) throw Error{"the template runs too long (steps limit)", 0, true};
  if (--g_budget->steps_ % 1024 == 0 && Interrupted()) throw Error{"given up", 0, true};
}

void Budget::Work(uint64_t bytes) {
  if (g_budget == nullptr) return;
  if (bytes > g_budget->work_) {
    g_budget->work_ = 0;
    throw Error{"the template makes too much data (work limit)", 0, true};
  }
  g_budget->work_ -= bytes;
}

void Budget::StringSize(uint64_t bytes) {
  if (g_budget == nullptr) return;
  if (bytes > g_budget->max_string_bytes_) {
    throw Error{"the template makes a text that is too long (output limit)", 0, true};
  }
}

void CheckStack(const void* base) {
  constexpr ptrdiff_t kMaxStackBytes = 3 << 20;
  const auto* here = static_cast<const char*>(__builtin_frame_address(0));
  if (static_cast<const char*>(base) - here > kMaxStackBytes) {
    throw Error{"the template is nested too deeply (recursion limit)", 0, true};
  }
}

int DepthAbove(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  CheckDepth(depth + 1);
  return depth + 1;
}

ListObject::~ListObject() = default;

// --- dictionaries

DictObject::~DictObject() = default;

void DictObject::Reindex() const {
  size_t count = 16;
  while (count < items.size() * 2) count *= 2;
  buckets_.assign(count, {});
  for (uint32_t i = 0; i < items.size(); ++i) {
    buckets_[Hash(items[i].first) & (count - 1)].push_back(i);
  }
}

const Value* DictObject::Find(const Value& key) const {
  const size_t hash = Hash(key);  // also fails for unhashable keys
  if (items.size() < kIndexFrom) {
    for (const auto& item : items) {
      if (Equal(item.first, key)) return &item.second;
    }
    return nullptr;
  }
  if (buckets_.empty()) Reindex();
  for (uint32_t i : buckets_[hash & (buckets_.size() - 1)]) {
    if (Equal(items[i].first, key)) return &items[i].second;
  }
  return nullptr;
}

const Value* DictObject::Find(std::string_view key) const {
  if (items.size() < kIndexFrom) {
    for (const auto& item : items) {
      if (item.first.is_string() && item.first.text() == key) return &item.second;
    }
    return nullptr;
  }
  return Find(Value::String(std::string(key)));
}

void DictObject::Set(Value key, Value value) {
  if (const Value* found = Find(key); found != nullptr) {
    depth = std::max(depth, 1 + value.depth());
    CheckDepth(depth);
    *const_cast<Value*>(found) = std::move(value);
    return;
  }
  const size_t hash = Hash(key);
  Budget::Work(4 * sizeof(Value));
  depth = std::max({depth, 1 + key.depth(), 1 + value.depth()});
  CheckDepth(depth);
  items.emplace_back(std::move(key), std::move(value));
  if (buckets_.empty()) return;
  if (items.size() > buckets_.size()) {
    Reindex();
  } else {
    buckets_[hash & (buckets_.size() - 1)].push_back(static_cast<uint32_t>(items.size() - 1));
  }
}

// --- making values

Value Value::Of(Kind kind, std::shared_ptr<Object> object) {
  Value value;
  value.kind_ = kind;
  value.object_ = std::move(object);
  return value;
}

Value Value::Undefined(std::string message) {
  auto object = std::make_shared<UndefinedObject>();
  object->message = std::move(message);
  return Of(Kind::kUndefined, std::move(object));
}

Value Value::Bool(bool b) {
  Value value;
  value.kind_ = Kind::kBool;
  value.scalar_.b = b;
  return value;
}

Value Value::Int(int64_t i) {
  Value value;
  value.kind_ = Kind::kInt;
  value.scalar_.i = i;
  return value;
}

Value Value::Float(double d) {
  Value value;
  value.kind_ = Kind::kFloat;
  value.scalar_.d = d;
  return value;
}

Value Value::String(std::string text, bool markup) {
  Budget::StringSize(text.size());
  Budget::Work(64 + text.size());
  auto object = std::make_shared<StringObject>();
  object->text = std::move(text);
  object->chars = CountChars(object->text);
  object->markup = markup;
  return Of(Kind::kString, std::move(object));
}

Value Value::List(std::vector<Value> items) { return MakeList(Kind::kList, std::move(items)); }
Value Value::Tuple(std::vector<Value> items) { return MakeList(Kind::kTuple, std::move(items)); }
Value Value::Iterator(std::vector<Value> items) {
  return MakeList(Kind::kIterator, std::move(items));
}

Value Value::View(std::vector<Value> items, std::string_view view) {
  Value value = MakeList(Kind::kView, std::move(items));
  value.mutable_list().view = view;
  return value;
}

Value Value::Range(int64_t start, int64_t stop, int64_t step, std::vector<Value> items) {
  Value value = MakeList(Kind::kRange, std::move(items));
  ListObject& list = value.mutable_list();
  list.start = start, list.stop = stop, list.step = step;
  return value;
}

Value Value::Dict(std::shared_ptr<DictObject> dict) { return Of(Kind::kDict, std::move(dict)); }
Value Value::Namespace(std::shared_ptr<DictObject> attributes) {
  return Of(Kind::kNamespace, std::move(attributes));
}

Value Value::FromJson(const nlohmann::ordered_json& json, int depth) {
  CheckDepth(depth);
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::null:
    case Type::discarded:
    case Type::binary:
      return None();
    case Type::boolean:
      return Bool(json.get<bool>());
    case Type::number_integer:
      return Int(json.get<int64_t>());
    case Type::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number > static_cast<uint64_t>(INT64_MAX)) return Float(static_cast<double>(number));
      return Int(static_cast<int64_t>(number));
    }
    case Type::number_float:
      return Float(json.get<double>());
    case Type::string:
      return String(json.get_ref<const std::string&>());
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(FromJson(item, depth + 1));
      return List(std::move(items));
    }
    case Type::object: {
      auto dict = std::make_shared<DictObject>();
      for (const auto& [key, item] : json.items()) {
        dict->Set(String(key), FromJson(item, depth + 1));
      }
      return Dict(std::move(dict));
    }
  }
  return None();
}

// --- semantics

bool Truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.bool_value();
    case Kind::kInt:
      return value.int_value() != 0;
    case Kind::kFloat:
      return value.float_value() != 0;
    case Kind::kString:
      return !value.text().empty();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView:
      return !value.list().items.empty();
    case Kind::kDict:
      return !value.dict().items.empty();
    case Kind::kIterator:
    case Kind::kNamespace:
    case Kind::kMacro:
    case Kind::kMethod:
    case Kind::kFunction:
    case Kind::kLoop:
    case Kind::kCycler:
    case Kind::kJoiner:
      return true;
  }
  return true;
}

bool Equal(const Value& a, const Value& b, int depth) {
  Budget::Work(kVisitBytes);
  CheckDepth(depth);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.int_value() == b.int_value();
    return a.float_value() == b.float_value();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
      return a.identity() == b.identity() || EqualItems(a.list().items, b.list().items, depth);
    case Kind::kDict:
      return a.identity() == b.identity() || EqualDicts(a.dict(), b.dict(), depth);
    case Kind::kMethod:
      return a.object<MethodObject>().name == b.object<MethodObject>().name &&
             a.object<MethodObject>().self.identity() == b.object<MethodObject>().self.identity();
    default:
      return a.identity() == b.identity();
  }
}

int Order(const Value& a, const Value& b, std::string_view op, int depth) {
  CheckDepth(depth);
  RequireDefined(a);
  RequireDefined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) {
      return a.int_value() < b.int_value() ? -1 : a.int_value() > b.int_value() ? 1 : 0;
    }
    const double x = a.float_value();
    const double y = b.float_value();
    if (std::isnan(x) || std::isnan(y)) return 2;  // neither <, == nor >
    return x < y ? -1 : x > y ? 1 : 0;
  }
  if (a.is_string() && b.is_string()) {
    const int order = a.text().compare(b.text());  // UTF-8 keeps the order of code points
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (a.kind() == b.kind() && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    const auto& x = a.list().items;
    const auto& y = b.list().items;
    for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!Equal(x[i], y[i], depth + 1)) return Order(x[i], y[i], op, depth + 1);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  Fail(Cat("'", op, "' not supported between instances of '", TypeName(a), "' and '", TypeName(b),
           "'"));
}

size_t Hash(const Value& value) {
  Budget::Work(kVisitBytes);
  switch (value.kind()) {
    case Kind::kUndefined:
      return 1;
    case Kind::kNone:
      return 2;
    case Kind::kBool:
    case Kind::kInt:
      return std::hash<double>()(static_cast<double>(value.int_value()));
    case Kind::kFloat:
      return std::hash<double>()(value.float_value());
    case Kind::kString:
      return std::hash<std::string_view>()(value.text());
    case Kind::kTuple: {
      size_t hash = 17;
      for (const Value& item : value.list().items) hash = hash * 1000003 + Hash(item);
      return hash;
    }
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
      Fail(Cat("unhashable type: '", TypeName(value), "'"));
    default:
      return std::hash<const void*>()(value.identity());
  }
}

std::string ReprFloat(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  // The shortest digits that read back as d, then Python's choice of notation.
  char buffer[64];
  const auto result =
      std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(result.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t digits_from = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + digits_from, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    return absl::StrFormat("%se%s%02d", std::string(text.substr(0, e)), exponent < 0 ? "-" : "+",
                           std::abs(exponent));
  }
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed);
  std::string out(buffer, static_cast<size_t>(fixed.ptr - buffer));
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string ReprString(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeChar(text, &pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || c == 0x7F) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned>(c));
    } else if (c < 0x7F || IsPrintable(c)) {
      out += text.substr(begin, pos - begin);
    } else if (c < 0x100) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned>(c));
    } else if (c < 0x10000) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(c));
    } else {
      absl::StrAppendFormat(&out, "\\U%08x", static_cast<unsigned>(c));
    }
  }
  return out + quote;
}

std::string Repr(const Value& value, int depth) {
  Budget::Work(4 * kVisitBytes);
  CheckDepth(depth);
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return value.bool_value() ? "True" : "False";
    case Kind::kInt:
      return Cat(value.int_value());
    case Kind::kFloat:
      return ReprFloat(value.float_value());
    case Kind::kString:
      return value.is_markup() ? Cat("Markup(", ReprString(value.text()), ")")
                               : ReprString(value.text());
    case Kind::kList:
      return Cat("[", ReprItems(value.list().items, depth), "]");
    case Kind::kTuple:
      return Cat("(", ReprItems(value.list().items, depth),
                 value.list().items.size() == 1 ? ",)" : ")");
    case Kind::kRange: {
      const ListObject& range = value.list();
      return range.step == 1 ? Cat("range(", range.start, ", ", range.stop, ")")
                             : Cat("range(", range.start, ", ", range.stop, ", ", range.step, ")");
    }
    case Kind::kView:
      return Cat("dict_", value.list().view, "([", ReprItems(value.list().items, depth), "])");
    case Kind::kDict:
      return ReprDict(value.dict(), depth);
    case Kind::kNamespace:
      return Cat("<Namespace ", ReprDict(value.dict(), depth), ">");
    default:
      // Python prints an address here, which no template can depend on.
      return Cat("<", TypeName(value), ">");
  }
}

std::string ToStr(const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return "";
  return Repr(value);
}

std::string_view TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return value.is_markup() ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kRange:
      return "range";
    case Kind::kView:
      return value.list().view == "keys"     ? "dict_keys"
             : value.list().view == "values" ? "dict_values"
                                             : "dict_items";
    case Kind::kIterator:
      return "generator";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kMethod:
      return "builtin_function_or_method";
    case Kind::kFunction:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
  }
  return "object";
}

void RequireDefined(const Value& value) {
  if (value.is_undefined()) Fail(value.undefined_message());
}

}  // namespace tundra::jinja
