// What was probably meant by a word that isn't known: for keys of files, and names.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tundra {

// Edits (insert, delete, replace, swap of neighbours) from a to b.
size_t EditDistance(std::string_view a, std::string_view b);

// "did you mean X?" where a name is a misspelling of `word` (two edits at most) or
// the only one that begins with it or that it begins with; else "it knows: …" with all names.
std::string Suggest(std::string_view word, const std::vector<std::string>& names);

}  // namespace tundra
