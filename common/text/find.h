// Substring search in linear time, whatever the two texts are: the standard
// library's is quadratic on texts that repeat themselves.
#pragma once

#include <string.h>

#include <string_view>

namespace tundra {

// As text.find(part, from).
inline size_t FindText(std::string_view text, std::string_view part, size_t from = 0) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* const at = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  if (at == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(at) - text.data());
}

}  // namespace tundra
