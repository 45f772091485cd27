#include <algorithm>

#include "common/text/jinja/builtins.h"

namespace tundra::jinja {

Bound::Bound(std::string_view function, Arguments& arguments,
             std::initializer_list<std::string_view> names, size_t required)
    : function_(function), values_(names.size()), given_(names.size(), false) {
  if (arguments.positional.size() > names.size()) {
    Fail(Cat(function, "() takes at most ", static_cast<int64_t>(names.size()), " arguments (",
             static_cast<int64_t>(arguments.positional.size()), " given)"));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = arguments.positional[i];
    given_[i] = true;
  }
  for (const auto& [key, value] : arguments.keyword) {
    const auto it = std::find(names.begin(), names.end(), key);
    if (it == names.end()) {
      Fail(Cat(function, "() got an unexpected keyword argument '", key, "'"));
    }
    const auto i = static_cast<size_t>(it - names.begin());
    if (given_[i]) Fail(Cat(function, "() got multiple values for argument '", key, "'"));
    values_[i] = value;
    given_[i] = true;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!given_[i]) {
      Fail(Cat(function, "() missing a required argument: '", *(names.begin() + i), "'"));
    }
  }
}

int64_t Bound::Int(size_t i, int64_t otherwise) const {
  if (!given_[i]) return otherwise;
  if (!values_[i].is_integral()) {
    RequireDefined(values_[i]);
    Fail(Cat(function_, "(): '", TypeName(values_[i]),
             "' object cannot be interpreted as an integer"));
  }
  return values_[i].int_value();
}

bool Bound::Truth(size_t i, bool otherwise) const {
  return given_[i] ? Truthy(values_[i]) : otherwise;
}

std::string Bound::Str(size_t i, std::string otherwise) const {
  if (!given_[i]) return otherwise;
  if (!values_[i].is_string()) {
    RequireDefined(values_[i]);
    Fail(Cat(function_, "() argument must be str, not ", TypeName(values_[i])));
  }
  return values_[i].text();
}

}  // namespace tundra::jinja
