#include "common/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace tundra {
namespace {

// The known answers of Random123 (kat_vectors, philox4x32 10 rounds).
TEST(PhiloxTest, GivesThePublishedNumbers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, IsAConstantExpression) {
  static_assert(Philox4x32({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5);
}

TEST(PhiloxTest, KeyHoldsTheWholeSeed) {
  EXPECT_EQ(PhiloxKeyOf(0x0123456789abcdef), (PhiloxKey{0x89abcdef, 0x01234567}));
}

TEST(PhiloxTest, UniformIsBelowOneAndReachesZero) {
  EXPECT_EQ(PhiloxUniform(0), 0.0f);
  EXPECT_LT(PhiloxUniform(0xffffffff), 1.0f);
  EXPECT_EQ(PhiloxUniform(0x80000000), 0.5f);
}

TEST(PhiloxTest, NearbyCountersShareNothing) {
  std::set<uint32_t> seen;
  for (uint32_t i = 0; i < 1000; ++i) {
    for (const uint32_t word : Philox4x32({i, 0, 0, 0}, {17, 0})) seen.insert(word);
  }
  EXPECT_GE(seen.size(), 3995u);  // 4000 of 2^32: a handful of collisions at the most
}

}  // namespace
}  // namespace tundra
