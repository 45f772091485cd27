#include "common/clock.h"

#include <gtest/gtest.h>

namespace tundra {
namespace {

TEST(FakeClock, JumpOfWallTimeLeavesTheMonotonicReading) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  clock.Advance(absl::Seconds(3));
  clock.JumpWall(-absl::Hours(24));
  EXPECT_EQ(clock.Monotonic(), absl::Seconds(3));
  EXPECT_EQ(clock.Now(), start + absl::Seconds(3) - absl::Hours(24));
}

}  // namespace
}  // namespace tundra
