#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <string_view>

namespace tundra::fuzz {
namespace {

constexpr size_t kMostBytes = 64 << 10;
// Nesting this deep is beyond every parser's bound.
constexpr uint64_t kMostRepeats = 4000;

constexpr std::array<uint8_t, 10> kBytes = {0x00, 0x01, 0x7F, 0x80, 0xC0,
                                            0xE0, 0xFF, '"',  '\\', '\n'};
constexpr std::array<uint64_t, 12> kWords = {0,
                                             1,
                                             0x7F,
                                             0xFF,
                                             0x7FFF,
                                             0xFFFF,
                                             0x7FFF'FFFF,
                                             0x8000'0000,
                                             0xFFFF'FFFF,
                                             0x7FFF'FFFF'FFFF'FFFF,
                                             0x8000'0000'0000'0000,
                                             0xFFFF'FFFF'FFFF'FFFF};
constexpr std::array<std::string_view, 18> kNumbers = {"0",
                                                       "1",
                                                       "-1",
                                                       "-0.0",
                                                       "0.5",
                                                       "255",
                                                       "65536",
                                                       "2147483647",
                                                       "2147483648",
                                                       "-2147483649",
                                                       "4294967296",
                                                       "9007199254740993",
                                                       "9223372036854775807",
                                                       "-9223372036854775808",
                                                       "18446744073709551615",
                                                       "18446744073709551616",
                                                       "1e308",
                                                       "1e-320"};
constexpr std::string_view kOpeners = "[{(\"'<-%#\\";

}  // namespace

std::vector<std::string> Truncations(const std::vector<std::string>& corpus, uint64_t most) {
  uint64_t all = 0;
  for (const std::string& input : corpus) all += input.size();
  std::vector<std::string> cuts;
  uint64_t at = 0;
  uint64_t next = 0;
  for (const std::string& input : corpus) {
    for (size_t size = 0; size < input.size(); ++size, ++at) {
      // The n-th of `most` cuts is the first at or after all · n / most.
      if (all > most && at * most < next * all) continue;
      ++next;
      cuts.push_back(input.substr(0, size));
    }
  }
  return cuts;
}

std::string Mutator::Next() {
  std::string input = corpus_[turn_++ % corpus_.size()];
  const uint64_t changes = 1 + Below(4);
  for (uint64_t i = 0; i < changes; ++i) Change(input);
  if (input.size() > kMostBytes) input.resize(kMostBytes);
  return input;
}

void Mutator::Change(std::string& input) {
  if (input.empty()) return Splice(input);
  switch (Below(9)) {
    case 0:
      return FlipBit(input);
    case 1:
      return SetByte(input);
    case 2:
      return SetWord(input);
    case 3:
    case 4:
      return SetNumber(input);
    case 5:
      return Remove(input);
    case 6:
      return Double(input);
    case 7:
      return Splice(input);
    default:
      return Repeat(input);
  }
}

void Mutator::FlipBit(std::string& input) {
  char& byte = input[Below(input.size())];
  byte = static_cast<char>(byte ^ (1 << Below(8)));
}

void Mutator::SetByte(std::string& input) {
  input[Below(input.size())] = static_cast<char>(kBytes[Below(kBytes.size())]);
}

// 2, 4 or 8 bytes, little-endian.
void Mutator::SetWord(std::string& input) {
  const size_t at = Below(input.size());
  const size_t bytes = std::min<size_t>(size_t{2} << Below(3), input.size() - at);
  const uint64_t word = kWords[Below(kWords.size())];
  for (size_t i = 0; i < bytes; ++i) input[at + i] = static_cast<char>(word >> (8 * i));
}

// One written in digits, at or after a place taken by chance.
void Mutator::SetNumber(std::string& input) {
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  const auto from = input.begin() + static_cast<std::ptrdiff_t>(Below(input.size()));
  const auto begin = std::find_if(from, input.end(), is_digit);
  if (begin == input.end()) return FlipBit(input);
  const auto end = std::find_if_not(begin, input.end(), is_digit);
  const std::string_view number = kNumbers[Below(kNumbers.size())];
  input.replace(begin, end, number.begin(), number.end());
}

void Mutator::Remove(std::string& input) {
  const size_t at = Below(input.size());
  input.erase(at, 1 + Below(std::min<size_t>(input.size() - at, 64)));
}

void Mutator::Double(std::string& input) {
  const size_t at = Below(input.size());
  input.insert(at, input.substr(at, 1 + Below(256)));
}

void Mutator::Splice(std::string& input) {
  const std::string& other = corpus_[Below(corpus_.size())];
  if (other.empty()) return;
  const size_t from = Below(other.size());
  const std::string part = other.substr(from, 1 + Below(256));
  const size_t at = Below(input.size() + 1);
  // In the place of as many bytes, or between.
  input.replace(at, Below(2) == 0 ? part.size() : 0, part);
}

// Many of what opens something.
void Mutator::Repeat(std::string& input) {
  const char opener = kOpeners[Below(kOpeners.size())];
  input.insert(Below(input.size() + 1), Below(4) == 0 ? Below(kMostRepeats) : Below(8), opener);
}

}  // namespace tundra::fuzz
