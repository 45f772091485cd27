// The numbered migrations of the schema. They only add, so that the program one
// version older still runs on what the newer one made.
#pragma once

#include <string>
#include <vector>

namespace tundra::coordinator {

struct Migration {
  int number = 0;
  std::vector<std::string> statements;
};

// In order, numbers 1, 2, 3, ….
const std::vector<Migration>& Migrations();

}  // namespace tundra::coordinator
