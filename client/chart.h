// A small line chart of characters, for losses in a terminal.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tundra::client {

struct Series {
  char mark = '*';
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y; not finite ones are left out
};

// `width` × `height` characters with axes; "" when no series has a point.
std::string Chart(const std::vector<Series>& series, int width, int height);

}  // namespace tundra::client
