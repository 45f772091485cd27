// Names that people read, on terminals and in logs.
#pragma once

#include <string_view>

namespace tundra {

// Whether the text has a character that a terminal obeys rather than shows (escape, line break, …):
// U+0000 to U+001F, U+007F to U+009F.
bool HasControlCharacters(std::string_view text);

}  // namespace tundra
