// A check of command-line numbers: like CLI::Range, which lets NaN pass.
#pragma once

#include <CLI/CLI.hpp>
#include <cmath>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tundra {

inline CLI::Validator FiniteRange(double low, double high) {
  const std::string range = absl::StrCat(low, " to ", high);
  return CLI::Validator(
      [=](std::string& text) -> std::string {
        double value = 0;
        const bool good = absl::SimpleAtod(text, &value) && value >= low && value <= high;
        return good ? "" : absl::StrCat("'", text, "' is not a number from ", range);
      },
      range);
}

}  // namespace tundra
