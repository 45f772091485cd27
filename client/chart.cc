#include "client/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace tundra::client {
namespace {

// Finite, and so far from the end of a double that a span of two is finite too.
bool Drawable(double value) { return std::abs(value) < 1e300; }

}  // namespace

std::string Chart(const std::vector<Series>& series, int width, int height) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double x_min = kInfinity, x_max = -kInfinity, y_min = kInfinity, y_max = -kInfinity;
  for (const Series& s : series) {
    for (const auto& [x, y] : s.points) {
      if (!Drawable(x) || !Drawable(y)) continue;
      x_min = std::min(x_min, x);
      x_max = std::max(x_max, x);
      y_min = std::min(y_min, y);
      y_max = std::max(y_max, y);
    }
  }
  if (x_min > x_max) return "";
  height = std::max(2, height);
  // A flat line gets a scale too, also where 1 is nothing beside its value.
  if (y_max - y_min <= 1e-9 * std::max(1.0, std::abs(y_min))) {
    y_max = y_min + std::max(1.0, std::abs(y_min));
  }
  constexpr int kLabel = 9;
  const int columns = std::max(10, width - kLabel - 1);
  std::vector<std::string> rows(static_cast<size_t>(height),
                                std::string(static_cast<size_t>(columns), ' '));
  for (const Series& s : series) {
    for (const auto& [x, y] : s.points) {
      if (!Drawable(x) || !Drawable(y)) continue;
      const double fx = x_max > x_min ? (x - x_min) / (x_max - x_min) : 0;
      const double fy = (y_max - y) / (y_max - y_min);
      rows[static_cast<size_t>(std::lround(fy * (height - 1)))]
          [static_cast<size_t>(std::lround(fx * (columns - 1)))] = s.mark;
    }
  }
  std::string text;
  for (int i = 0; i < height; ++i) {
    const double y = y_max - (y_max - y_min) * i / std::max(1, height - 1);
    const bool labelled = i == 0 || i == height - 1 || i == height / 2;
    text += labelled ? absl::StrFormat("%8.3f |", y) : std::string(kLabel, ' ') + "|";
    text += rows[static_cast<size_t>(i)] + "\n";
  }
  text += std::string(kLabel, ' ') + "+" + std::string(static_cast<size_t>(columns), '-') + "\n";
  const std::string left = absl::StrFormat("step %g", x_min);
  const std::string right = absl::StrFormat("step %g", x_max);
  const int gap = columns - static_cast<int>(left.size() + right.size());
  text += std::string(kLabel + 1, ' ') + left +
          std::string(static_cast<size_t>(std::max(1, gap)), ' ') + right + "\n" +
          std::string(kLabel + 1, ' ');
  for (const Series& s : series) {
    if (!s.points.empty()) text += absl::StrFormat("%c %s   ", s.mark, s.name);
  }
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

}  // namespace tundra::client
