// What every fuzz target defines, in libFuzzer's form: one input in, always 0 out. It must neither
// crash nor leave anything behind, whatever the bytes are, and what a parser takes must keep the
// promises of its header (EXPECT_FUZZ).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// A promise that does not hold ends the process, as a crash does. Not assert(), which optimised
// builds leave out.
#define EXPECT_FUZZ(condition)                                                     \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " << #condition << std::endl; \
      std::abort();                                                                \
    }                                                                              \
  } while (false)

namespace tundra::fuzz {

inline std::string_view View(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// What stands between the parts of an input that is several files.
inline constexpr std::string_view kBetween = "\n%%%\n";

// The first `count` parts; those that are not there are empty, the last one has the rest.
inline std::vector<std::string> Parts(std::string_view input, size_t count) {
  std::vector<std::string> parts;
  while (parts.size() + 1 < count) {
    const size_t at = input.find(kBetween);
    parts.emplace_back(input.substr(0, at));
    input = at == std::string_view::npos ? std::string_view() : input.substr(at + kBetween.size());
  }
  parts.emplace_back(input);
  return parts;
}

}  // namespace tundra::fuzz
