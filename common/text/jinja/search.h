// Substring search for templates: charged to the rendering's budget, so that a
// template cannot search long texts for ever.
#pragma once

#include <cstddef>
#include <string_view>

namespace tundra::jinja {

// As text.find(part, from); linear.
size_t Find(std::string_view text, std::string_view part, size_t from = 0);

// As text.rfind(part).
size_t FindLast(std::string_view text, std::string_view part);

}  // namespace tundra::jinja
