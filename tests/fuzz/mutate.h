// Inputs for the driver, made from the corpus: equal seeds give equal inputs on every machine.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace tundra::fuzz {

// The beginnings of the inputs, shortest first of each: all of them if there are at most `most`,
// else as many, spread evenly.
std::vector<std::string> Truncations(const std::vector<std::string>& corpus, uint64_t most);

// One to four changes of an input at a time: flipped bits, edge values in bytes, words and written
// numbers, parts removed, doubled, moved from another input.
class Mutator {
 public:
  // `corpus` is not empty and outlives this.
  Mutator(uint64_t seed, const std::vector<std::string>& corpus) : random_(seed), corpus_(corpus) {}

  std::string Next();

 private:
  // 0 to bound - 1. The standard fixes what the engine gives, but not its distributions.
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  void Change(std::string& input);
  void FlipBit(std::string& input);
  void SetByte(std::string& input);
  void SetWord(std::string& input);
  void SetNumber(std::string& input);
  void Remove(std::string& input);
  void Double(std::string& input);
  void Splice(std::string& input);
  void Repeat(std::string& input);

  std::mt19937_64 random_;
  const std::vector<std::string>& corpus_;
  uint64_t turn_ = 0;
};

}  // namespace tundra::fuzz
