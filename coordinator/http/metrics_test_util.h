// Reads a page in Prometheus's text format, for tests.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace tundra::coordinator {

// Samples by name and labels, "name{label=\"value\"}".
inline std::map<std::string, double> Samples(const std::string& page) {
  std::map<std::string, double> samples;
  const std::vector<std::string> lines = absl::StrSplit(page, '\n', absl::SkipEmpty());
  for (const std::string& line : lines) {
    if (line.front() == '#') continue;
    const size_t space = line.rfind(' ');
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
    samples[line.substr(0, space)] = value;
  }
  return samples;
}

}  // namespace tundra::coordinator
