// Fields of a JSON object, read with their type, range and default checked; every
// message names the file, the field, its value and what is allowed.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace tundra {

// Borrows the object. A fallback of nullopt makes the field required.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string_view source, std::string_view prefix)
      : object_(object), source_(source), prefix_(prefix) {}

  // Null and missing are the same, as in transformers.
  const nlohmann::json* Get(const char* name) const {
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  absl::Status Bad(const char* name, std::string_view why) const {
    const nlohmann::json* value = Get(name);
    const std::string shown = value == nullptr ? "" : " = " + value->dump().substr(0, 200);
    return absl::InvalidArgumentError(
        absl::StrCat(source_, ": ", prefix_, name, shown, ": ", std::string(why)));
  }
  absl::StatusOr<int64_t> Integer(const char* name, std::optional<int64_t> fallback, int64_t low,
                                  int64_t high) const {
    const nlohmann::json* value = Get(name);
    if (value == nullptr && fallback) return *fallback;
    const bool integer = value != nullptr && value->is_number_integer() &&
                         (!value->is_number_unsigned() ||
                          value->get<uint64_t>() <= std::numeric_limits<int64_t>::max());
    if (!integer || value->get<int64_t>() < low || value->get<int64_t>() > high) {
      return Bad(name, absl::StrCat("an integer from ", low, " to ", high, " is needed"));
    }
    return value->get<int64_t>();
  }
  absl::StatusOr<double> Number(const char* name, std::optional<double> fallback, double low,
                                double high) const {
    const nlohmann::json* value = Get(name);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_number() || !(value->get<double>() >= low) ||
        !(value->get<double>() <= high)) {
      return Bad(name, absl::StrCat("a number from ", low, " to ", high, " is needed"));
    }
    return value->get<double>();
  }
  absl::StatusOr<bool> Bool(const char* name, bool fallback) const {
    const nlohmann::json* value = Get(name);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return Bad(name, "true or false is needed");
    return value->get<bool>();
  }
  absl::StatusOr<std::string> Text(const char* name, std::string_view fallback) const {
    const nlohmann::json* value = Get(name);
    if (value == nullptr) return std::string(fallback);
    if (!value->is_string()) return Bad(name, "a string is needed");
    return value->get<std::string>();
  }

 private:
  const nlohmann::json& object_;
  std::string source_;
  std::string prefix_;
};

}  // namespace tundra
