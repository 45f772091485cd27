// json.dumps.
#include <algorithm>
#include <cmath>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/unicode.h"

namespace tundra::jinja {
namespace {

void AppendUnit(uint32_t unit, std::string* out) {
  static constexpr char kHex[] = "0123456789abcdef";
  *out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) *out += kHex[(unit >> shift) & 15];
}

void AppendString(std::string_view text, bool ensure_ascii, std::string* out) {
  *out += '"';
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeChar(text, &pos);
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '\f':
        *out += "\\f";
        break;
      case '\b':
        *out += "\\b";
        break;
      default:
        if (c < 0x20 || (ensure_ascii && c > 0x7E && c < 0x10000)) {
          AppendUnit(c, out);
        } else if (ensure_ascii && c >= 0x10000) {
          AppendUnit(0xD800 + ((c - 0x10000) >> 10), out);
          AppendUnit(0xDC00 + ((c - 0x10000) & 0x3FF), out);
        } else {
          out->append(text.substr(begin, pos - begin));
        }
    }
  }
  *out += '"';
}

std::string FloatText(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return ReprFloat(d);
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}
  void Write(const Value& value, int level);
  std::string Take() { return std::move(out_); }

 private:
  void NewLine(int level) {
    if (!style_.indented) return;
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += style_.indent;
  }
  void WriteList(const std::vector<Value>& items, int level);
  void WriteDict(const DictObject& dict, int level);
  void WriteKey(const Value& key);

  const JsonStyle& style_;
  std::string out_;
};

void JsonWriter::WriteKey(const Value& key) {
  switch (key.kind()) {
    case Kind::kString:
      return AppendString(key.text(), style_.ensure_ascii, &out_);
    case Kind::kBool:
      out_ += key.bool_value() ? "\"true\"" : "\"false\"";
      return;
    case Kind::kNone:
      out_ += "\"null\"";
      return;
    case Kind::kInt:
      out_ += Cat("\"", key.int_value(), "\"");
      return;
    case Kind::kFloat:
      out_ += Cat("\"", FloatText(key.float_value()), "\"");
      return;
    default:
      Fail(Cat("keys must be str, int, float, bool or None, not ", TypeName(key)));
  }
}

void JsonWriter::WriteList(const std::vector<Value>& items, int level) {
  if (items.empty()) {
    out_ += "[]";
    return;
  }
  out_ += '[';
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out_ += style_.item_separator;
    NewLine(level + 1);
    Write(items[i], level + 1);
  }
  NewLine(level);
  out_ += ']';
}

void JsonWriter::WriteDict(const DictObject& dict, int level) {
  if (dict.items.empty()) {
    out_ += "{}";
    return;
  }
  std::vector<std::pair<Value, Value>> items = dict.items;
  if (style_.sort_keys) {
    std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
      return Order(a.first, b.first, "<") == -1;
    });
  }
  out_ += '{';
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out_ += style_.item_separator;
    NewLine(level + 1);
    WriteKey(items[i].first);
    out_ += style_.key_separator;
    Write(items[i].second, level + 1);
  }
  NewLine(level);
  out_ += '}';
}

void JsonWriter::Write(const Value& value, int level) {
  Budget::Work(64);
  Budget::StringSize(out_.size());
  switch (value.kind()) {
    case Kind::kNone:
      out_ += "null";
      return;
    case Kind::kBool:
      out_ += value.bool_value() ? "true" : "false";
      return;
    case Kind::kInt:
      out_ += std::to_string(value.int_value());
      return;
    case Kind::kFloat:
      out_ += FloatText(value.float_value());
      return;
    case Kind::kString:
      return AppendString(value.text(), style_.ensure_ascii, &out_);
    case Kind::kList:
    case Kind::kTuple:
      return WriteList(value.list().items, level);
    case Kind::kDict:
      return WriteDict(value.dict(), level);
    default:
      Fail(Cat("Object of type ", TypeName(value), " is not JSON serializable"));
  }
}

}  // namespace

std::string ToJson(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.Write(value, 0);
  return writer.Take();
}

}  // namespace tundra::jinja
