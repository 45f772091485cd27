// The values of a template, with the semantics of the Python objects that Jinja
// works on: none, bool, int (64 bits here), float, str, list, tuple, dict, views
// and one-shot iterators, namespaces and callables, and Jinja's Undefined. Only
// namespaces, iterators, cyclers and joiners change after they are made, and they
// live within one rendering.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tundra::jinja {

// What a template's evaluation throws. It never leaves this library:
// ChatTemplate turns it into an absl::Status.
struct Error {
  std::string message;
  int line = 0;             // 0: not known yet
  bool over_limit = false;  // a RenderLimits bound was exceeded
};

[[noreturn]] void Fail(std::string message);

// Text made of its parts: strings and integers.
inline void AppendPart(std::string* out, std::string_view part) { out->append(part); }
inline void AppendPart(std::string* out, int64_t part) { out->append(std::to_string(part)); }
template <typename... Parts>
std::string Cat(const Parts&... parts) {
  std::string out;
  (AppendPart(&out, parts), ...);
  return out;
}

// Bounds the work of one rendering: whatever makes or walks values charges the
// budget that is installed on this thread (none while parsing).
class Budget {
 public:
  Budget(uint64_t max_steps, uint64_t max_work_bytes, uint64_t max_string_bytes);
  ~Budget();
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Each fails with over_limit once the bound is passed; Step also when the thread's work is
  // no longer wanted (common/interrupt.h).
  static void Step();
  static void Work(uint64_t bytes);
  static void StringSize(uint64_t bytes);  // of one string about to be made

  uint64_t steps_left() const { return steps_; }
  uint64_t work_bytes_left() const { return work_; }

 private:
  uint64_t steps_;
  uint64_t work_;
  uint64_t max_string_bytes_;
  Budget* outer_;
};

// Fails with over_limit when the stack has grown too far below `base`
// (a __builtin_frame_address), so that recursion ends in an error.
void CheckStack(const void* base);

class Value;
class Interpreter;

// Values nested deeper than this (and JSON input) are refused.
constexpr int kMaxDepth = 200;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kRange,
  kView,      // dict.keys(), .values(), .items()
  kIterator,  // generators: read once
  kDict,
  kNamespace,
  kMacro,
  kMethod,    // a method bound to its object
  kFunction,  // a global function
  kLoop,
  kCycler,
  kJoiner,
};

struct Object {
  virtual ~Object() = default;
  int depth = 0;  // how deep values are nested in it; bounds all recursion over values
};

struct StringObject : Object {
  std::string text;
  size_t chars = 0;
  bool markup = false;  // markupsafe.Markup: escapes what is joined to it
};

// Destroyed in value.cc, where Value is whole: clang needs that.
struct ListObject : Object {
  ~ListObject() override;
  std::vector<Value> items;
  size_t next = 0;        // kIterator only
  std::string_view view;  // kView: "keys", "values", "items"; kTuple: "group" of groupby
  int64_t start = 0, stop = 0, step = 1;  // kRange only
};

// Keeps insertion order, as Python's dict.
struct DictObject : Object {
  ~DictObject() override;
  std::vector<std::pair<Value, Value>> items;
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  // Replaces the value of an equal key.
  void Set(Value key, Value value);

 private:
  // Positions by hash once there are more than a few items.
  mutable std::vector<std::vector<uint32_t>> buckets_;
  void Reindex() const;
};

struct UndefinedObject : Object {
  std::string message;
};

struct MethodObject;
struct FunctionObject;
struct LoopObject;

class Value {
 public:
  Value() : kind_(Kind::kNone) { scalar_.i = 0; }

  static Value None() { return Value(); }
  static Value Undefined(std::string message);
  static Value Bool(bool b);
  static Value Int(int64_t i);
  static Value Float(double d);
  static Value String(std::string text, bool markup = false);
  static Value List(std::vector<Value> items);
  static Value Tuple(std::vector<Value> items);
  static Value View(std::vector<Value> items, std::string_view view);
  static Value Iterator(std::vector<Value> items);
  static Value Range(int64_t start, int64_t stop, int64_t step, std::vector<Value> items);
  static Value Dict(std::shared_ptr<DictObject> dict);
  static Value Namespace(std::shared_ptr<DictObject> attributes);
  static Value Of(Kind kind, std::shared_ptr<Object> object);

  // Copies. Integers beyond 64 bits become floats. Depth is bounded by kMaxDepth.
  static Value FromJson(const nlohmann::ordered_json& json, int depth = 0);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_sequence() const {  // len() and indexing
    return kind_ == Kind::kList || kind_ == Kind::kTuple || kind_ == Kind::kRange;
  }
  bool is_listed() const {
    return is_sequence() || kind_ == Kind::kView || kind_ == Kind::kIterator;
  }

  bool bool_value() const { return scalar_.b; }
  int64_t int_value() const { return kind_ == Kind::kBool ? int64_t{scalar_.b} : scalar_.i; }
  double float_value() const {
    return kind_ == Kind::kFloat ? scalar_.d : static_cast<double>(int_value());
  }
  const StringObject& string() const { return *static_cast<const StringObject*>(object_.get()); }
  const std::string& text() const { return string().text; }
  bool is_markup() const { return is_string() && string().markup; }
  const ListObject& list() const { return *static_cast<const ListObject*>(object_.get()); }
  ListObject& mutable_list() const { return *static_cast<ListObject*>(object_.get()); }
  const DictObject& dict() const { return *static_cast<const DictObject*>(object_.get()); }
  DictObject& mutable_dict() const { return *static_cast<DictObject*>(object_.get()); }
  const std::string& undefined_message() const {
    return static_cast<const UndefinedObject*>(object_.get())->message;
  }
  template <typename T>
  T& object() const {
    return *static_cast<T*>(object_.get());
  }
  int depth() const { return object_ == nullptr ? 0 : object_->depth; }
  const Object* identity() const { return object_.get(); }
  const std::shared_ptr<Object>& shared() const { return object_; }

 private:
  Kind kind_;
  union {
    bool b;
    int64_t i;
    double d;
  } scalar_;
  std::shared_ptr<Object> object_;
};

// Fails when the values are nested kMaxDepth deep already, else 1 + the deepest.
int DepthAbove(const std::vector<Value>& items);

// Arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

struct MethodObject : Object {
  Value self;
  std::string name;
};

using Function = Value (*)(Interpreter&, Arguments&);
struct FunctionObject : Object {
  std::string name;
  Function function = nullptr;
};

struct CyclerObject : Object {
  std::vector<Value> items;
  size_t position = 0;
};

struct JoinerObject : Object {
  Value separator;
  bool used = false;
};

bool Truthy(const Value& value);

// Python's == . Undefined equals Undefined.
bool Equal(const Value& a, const Value& b, int depth = 0);

// Python's order of a and b: -1, 0, 1, or 2 when neither (NaN). Fails with Python's
// TypeError text, naming `op`, where the two have no order.
int Order(const Value& a, const Value& b, std::string_view op, int depth = 0);

// Fails for values that Python cannot hash (list, dict).
size_t Hash(const Value& value);

// Python's str(value) and repr(value).
std::string ToStr(const Value& value);
std::string Repr(const Value& value, int depth = 0);
std::string ReprString(std::string_view text);
std::string ReprFloat(double d);

// Python's name of the type, as in "'int' object is not iterable".
std::string_view TypeName(const Value& value);

// Fails with the value's message when it is undefined.
void RequireDefined(const Value& value);

}  // namespace tundra::jinja
