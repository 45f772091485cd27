// Reads a page in Prometheus's text format, and compares it with a table, for tests.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tundra::testing {

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

struct MetricRow {
  std::string type;
  std::string name;
  // By what follows the name.
  std::map<std::string, double> values;
};

// The page has each row with its type, a help text and these values, and no metric that is in no
// row.
inline void ExpectMetrics(const std::string& page, const std::vector<MetricRow>& table) {
  const std::map<std::string, double> samples = Samples(page);
  std::set<std::string> known;
  for (const MetricRow& row : table) {
    known.insert(row.name);
    EXPECT_THAT(page, ::testing::HasSubstr(absl::StrCat("# TYPE ", row.name, " ", row.type, "\n")));
    EXPECT_THAT(page, ::testing::HasSubstr(absl::StrCat("# HELP ", row.name, " ")));
    for (const auto& [rest, value] : row.values) {
      EXPECT_THAT(samples, ::testing::Contains(std::pair(absl::StrCat(row.name, rest), value)));
    }
  }
  const std::vector<std::string> lines = absl::StrSplit(page, '\n');
  for (const std::string& line : lines) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() < 3 || words[1] != "TYPE") continue;
    EXPECT_THAT(known, ::testing::Contains(words[2]));
  }
}

}  // namespace tundra::testing
