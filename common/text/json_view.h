// JsonView: a value inside a JSON file that knows its place, so that every
// error names the file and the key. Readers of a base's JSON files use it; no
// exception of the JSON library leaves json_view.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tundra {

class JsonView {
 public:
  JsonView(std::string_view file, const nlohmann::json& value, std::string path = "")
      : file_(file), path_(std::move(path)), value_(&value) {}

  bool IsNull() const;
  bool IsObject() const;
  bool IsArray() const;
  bool IsString() const;
  bool IsNumber() const;
  bool IsBool() const;
  bool IsZero() const;  // the number 0 or 0.0

  // The value itself as a type. Errors: kInvalidArgument for another type.
  absl::StatusOr<std::string> AsString() const;
  absl::StatusOr<bool> AsBool() const;
  absl::StatusOr<int64_t> AsInteger(int64_t min, int64_t max) const;
  // Size of an array or object; 0 for anything else.
  size_t size() const;

  // Element i of an array.
  absl::StatusOr<JsonView> At(size_t i) const;
  // Calls visit(key, value) for every member; stops at the first error.
  absl::Status ForEachMember(
      absl::FunctionRef<absl::Status(const std::string&, const JsonView&)> visit) const;

  // A member; Find gives nullopt when it is absent or null (or this no object).
  std::optional<JsonView> Find(std::string_view key) const;
  absl::StatusOr<JsonView> Get(std::string_view key) const;
  absl::StatusOr<std::string> GetString(std::string_view key) const;
  // The member, or the default where it is absent or null.
  absl::StatusOr<std::optional<std::string>> FindString(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key, bool otherwise) const;

  // "file: path: what", as kInvalidArgument and kUnimplemented.
  absl::Status Invalid(std::string_view what) const;
  absl::Status Unsupported(std::string_view what) const;
  // Puts the place before a status that lacks it.
  absl::Status Here(const absl::Status& status) const;

 private:
  std::string Place() const;
  std::string_view file_;
  std::string path_;
  const nlohmann::json* value_;
};

// A parsed file. Errors: kInvalidArgument for malformed JSON (with the byte),
// a key given twice in one object, nesting over 64, or more than max_bytes.
class JsonDocument {
 public:
  static absl::StatusOr<JsonDocument> Parse(std::string_view text, std::string_view file,
                                            size_t max_bytes);
  JsonDocument(JsonDocument&&) noexcept;
  JsonDocument& operator=(JsonDocument&&) noexcept;
  ~JsonDocument();

  // Valid while the document lives.
  JsonView root() const { return JsonView(*file_, *value_); }

 private:
  JsonDocument(std::string_view file, nlohmann::json value);
  std::unique_ptr<std::string> file_;
  std::unique_ptr<nlohmann::json> value_;
};

}  // namespace tundra
