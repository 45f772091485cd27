#include "common/interrupt.h"

#include <gtest/gtest.h>

#include <thread>

namespace tundra {
namespace {

// Enough calls for the predicate to be asked at least once.
bool AskLong() {
  for (int i = 0; i < 100; ++i) {
    if (Interrupted()) return true;
  }
  return false;
}

TEST(Interrupt, IsFalseWithoutAScope) { EXPECT_FALSE(AskLong()); }

TEST(Interrupt, AsksTheInnermostScopeOfThisThreadAndStaysTrue) {
  bool unwanted = false;
  const InterruptScope outer([&] { return unwanted; });
  EXPECT_FALSE(AskLong());
  {
    const InterruptScope inner([] { return false; });
    unwanted = true;
    EXPECT_FALSE(AskLong());
    bool elsewhere = true;
    std::thread([&] { elsewhere = AskLong(); }).join();
    EXPECT_FALSE(elsewhere);
  }
  EXPECT_TRUE(AskLong());
  unwanted = false;
  EXPECT_TRUE(AskLong());
}

}  // namespace
}  // namespace tundra
