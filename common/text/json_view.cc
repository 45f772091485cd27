#include "common/text/json_view.h"

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra {
namespace {

using nlohmann::json;

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

constexpr int kMaxDepth = 64;

}  // namespace

bool JsonView::IsNull() const { return value_->is_null(); }
bool JsonView::IsObject() const { return value_->is_object(); }
bool JsonView::IsArray() const { return value_->is_array(); }
bool JsonView::IsString() const { return value_->is_string(); }
bool JsonView::IsNumber() const { return value_->is_number(); }
bool JsonView::IsBool() const { return value_->is_boolean(); }
bool JsonView::IsZero() const { return value_->is_number() && value_->get<double>() == 0.0; }

std::string JsonView::Place() const {
  return absl::StrCat(Absl(file_), ": ", path_.empty() ? "the file" : path_);
}

absl::Status JsonView::Invalid(std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(Place(), ": ", Absl(what)));
}

absl::Status JsonView::Unsupported(std::string_view what) const {
  return absl::UnimplementedError(absl::StrCat(Place(), ": ", Absl(what)));
}

absl::Status JsonView::Here(const absl::Status& status) const { return Annotate(status, Place()); }

absl::StatusOr<std::string> JsonView::AsString() const {
  if (!value_->is_string()) {
    return Invalid(absl::StrCat("a string is expected, not ", value_->type_name()));
  }
  return value_->get_ref<const std::string&>();
}

absl::StatusOr<bool> JsonView::AsBool() const {
  if (!value_->is_boolean()) {
    return Invalid(absl::StrCat("true or false is expected, not ", value_->type_name()));
  }
  return value_->get<bool>();
}

absl::StatusOr<int64_t> JsonView::AsInteger(int64_t min, int64_t max) const {
  if (!value_->is_number_integer()) {
    return Invalid(absl::StrCat("an integer is expected, not ", value_->type_name()));
  }
  // A number over the largest int64 is kept unsigned: outside any range here.
  const bool huge = value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX;
  const int64_t value = huge ? INT64_MAX : value_->get<int64_t>();
  if (huge || value < min || value > max) {
    return Invalid(absl::StrCat(value_->dump(), " is outside ", min, " to ", max));
  }
  return value;
}

size_t JsonView::size() const { return value_->is_structured() ? value_->size() : 0; }

absl::StatusOr<JsonView> JsonView::At(size_t i) const {
  if (!value_->is_array()) {
    return Invalid(absl::StrCat("a list is expected, not ", value_->type_name()));
  }
  if (i >= value_->size()) return Invalid(absl::StrCat("the list has no element ", i));
  return JsonView(file_, (*value_)[i], absl::StrCat(path_, "[", i, "]"));
}

absl::Status JsonView::ForEachMember(
    absl::FunctionRef<absl::Status(const std::string&, const JsonView&)> visit) const {
  if (!value_->is_object()) {
    return Invalid(absl::StrCat("an object is expected, not ", value_->type_name()));
  }
  for (const auto& [key, value] : value_->items()) {
    RETURN_IF_ERROR(
        visit(key, JsonView(file_, value, path_.empty() ? key : absl::StrCat(path_, ".", key))));
  }
  return absl::OkStatus();
}

std::optional<JsonView> JsonView::Find(std::string_view key) const {
  if (!value_->is_object()) return std::nullopt;
  const auto it = value_->find(std::string(key));
  if (it == value_->end() || it->is_null()) return std::nullopt;
  return JsonView(file_, *it,
                  path_.empty() ? std::string(key) : absl::StrCat(path_, ".", Absl(key)));
}

absl::StatusOr<JsonView> JsonView::Get(std::string_view key) const {
  if (!value_->is_object()) {
    return Invalid(absl::StrCat("an object is expected, not ", value_->type_name()));
  }
  std::optional<JsonView> found = Find(key);
  if (!found) return Invalid(absl::StrCat("the key '", Absl(key), "' is missing"));
  return *found;
}

absl::StatusOr<std::string> JsonView::GetString(std::string_view key) const {
  ASSIGN_OR_RETURN(const JsonView value, Get(key));
  return value.AsString();
}

absl::StatusOr<std::optional<std::string>> JsonView::FindString(std::string_view key) const {
  const std::optional<JsonView> value = Find(key);
  if (!value) return std::optional<std::string>();
  ASSIGN_OR_RETURN(std::string text, value->AsString());
  return std::optional<std::string>(std::move(text));
}

absl::StatusOr<bool> JsonView::GetBool(std::string_view key, bool otherwise) const {
  const std::optional<JsonView> value = Find(key);
  if (!value) return otherwise;
  return value->AsBool();
}

JsonDocument::JsonDocument(std::string_view file, json value)
    : file_(std::make_unique<std::string>(file)),
      value_(std::make_unique<json>(std::move(value))) {}
JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

absl::StatusOr<JsonDocument> JsonDocument::Parse(std::string_view text, std::string_view file,
                                                 size_t max_bytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(Absl(file), ": ", text.size(),
                                                   " bytes; at most ", max_bytes,
                                                   " are read. Is it the right file?"));
  }
  std::vector<absl::flat_hash_set<std::string>> keys;
  std::string problem;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxDepth) problem = absl::StrCat("nested deeper than ", kMaxDepth);
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key &&
               !keys.back().insert(parsed.get_ref<const std::string&>()).second &&
               problem.empty()) {
      problem =
          absl::StrCat("the key ", parsed.dump(), " is given twice in one object; remove one");
    }
    return true;
  };
  try {
    json value = json::parse(text.begin(), text.end(), watch);
    if (!problem.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(Absl(file), ": ", problem));
    }
    return JsonDocument(file, std::move(value));
  } catch (const json::exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat(Absl(file), ": not valid JSON (torn download?): ", e.what()));
  }
}

}  // namespace tundra
