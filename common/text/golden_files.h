// Reads the golden files of tests/parity/golden, for tests.
#pragma once

#include <zlib.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace tundra {

// Where the golden files lie; ctest sets the environment variable.
inline std::string GoldenPath(const std::string& name) {
  const char* source = std::getenv("TUNDRA_SOURCE_DIR");
  if (source == nullptr) throw std::runtime_error("set TUNDRA_SOURCE_DIR to the repository's root");
  return std::string(source) + "/tests/parity/golden/" + name;
}

// A file's bytes, unpacked when it is gzip.
inline std::string ReadGolden(const std::string& name) {
  const std::string path = GoldenPath(name);
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) throw std::runtime_error("can't open " + path);
  std::string out;
  char buffer[1 << 16];
  int n = 0;
  while ((n = gzread(file, buffer, sizeof buffer)) > 0) out.append(buffer, static_cast<size_t>(n));
  const bool bad = n < 0;
  gzclose(file);
  if (bad) throw std::runtime_error("can't unpack " + path);
  return out;
}

inline std::vector<nlohmann::json> ReadGoldenLines(const std::string& name) {
  std::istringstream lines(ReadGolden(name));
  std::vector<nlohmann::json> out;
  for (std::string line; std::getline(lines, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

}  // namespace tundra
