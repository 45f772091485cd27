// A target with one fault of each kind, to see that the driver notices them (driver_test.py).
#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

#include "tests/fuzz/target.h"

namespace {

// Far deeper than any stack, and no loop in disguise.
int Deeper(int depth) {
  volatile char frame[1024] = {};
  frame[0] = static_cast<char>(depth);
  return depth == 0 ? 0 : Deeper(depth - 1) + frame[0];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = tundra::fuzz::View(data, size);
  if (input == "crash") {
    volatile int* const nowhere = nullptr;
    *nowhere = 1;
  }
  if (input == "broken promise") EXPECT_FUZZ(input.empty());
  if (input == "exception") throw std::runtime_error("not caught");
  if (input == "deep") return Deeper(1'000'000'000) == 7 ? 1 : 0;
  if (input == "slow") {
    for (;;) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (input == "huge") {
    // Little at a time, and all given back.
    for (int i = 0; i < 2000; ++i) {
      const auto piece = std::make_unique<std::string>(1 << 20, 'x');
      if (piece->back() != 'x') return 1;
    }
  }
  // Only a cut finds the first, only mutations the second, whose seed is "version 10".
  if (input == "version") std::abort();
  const bool number = input.find("4294967296") != std::string_view::npos;
  if (input.substr(0, 4) == "vers" && number) std::abort();
  return 0;
}
