#include "common/text/jinja/search.h"

#include <algorithm>

#include "common/text/find.h"
#include "common/text/jinja/value.h"

namespace tundra::jinja {

size_t Find(std::string_view text, std::string_view part, size_t from) {
  const size_t at = FindText(text, part, from);
  const size_t looked_at = at == std::string_view::npos ? text.size() : at + part.size();
  Budget::Work((looked_at - std::min(from, looked_at)) / 4);
  return at;
}

size_t FindLast(std::string_view text, std::string_view part) {
  // There is no linear search from the right at hand, so each stretch of places is paid
  // for by what comparing the part at all of them costs.
  constexpr size_t kPlaces = 4096;
  if (part.size() > text.size()) return std::string_view::npos;
  size_t end = text.size() - part.size() + 1;  // of the places not looked at
  while (end > 0) {
    const size_t begin = end > kPlaces ? end - kPlaces : 0;
    Budget::Work((end - begin) * (1 + part.size() / 16));
    const size_t at = text.substr(begin, end - 1 - begin + part.size()).rfind(part);
    if (at != std::string_view::npos) return begin + at;
    end = begin;
  }
  return std::string_view::npos;
}

}  // namespace tundra::jinja
