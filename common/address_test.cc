#include "common/address.h"

#include <gtest/gtest.h>

#include "common/status_test_util.h"

namespace tundra {
namespace {

TEST(Address, SplitsHostAndPort) {
  using Parts = std::pair<std::string, int>;
  EXPECT_EQ(*SplitAddress("127.0.0.1:7700"), Parts("127.0.0.1", 7700));
  EXPECT_EQ(*SplitAddress("[::1]:0"), Parts("::1", 0));
  EXPECT_EQ(*SplitAddress("node.example.org:65535"), Parts("node.example.org", 65535));
  for (const std::string bad : {"", ":1", "host", "host:", "host:x", "host:-1", "host:65536"}) {
    EXPECT_FALSE(SplitAddress(bad).ok()) << bad;
    EXPECT_FALSE(CheckAddress(bad).ok()) << bad;
    EXPECT_FALSE(IsLoopbackAddress(bad)) << bad;
  }
  TUNDRA_EXPECT_OK(CheckAddress("unix:/run/tundra.sock"));
}

TEST(Address, TellsWhatOnlyThisMachineReaches) {
  for (const std::string here :
       {"localhost:1", "127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "unix:/run/x"}) {
    EXPECT_TRUE(IsLoopbackAddress(here)) << here;
  }
  for (const std::string anywhere :
       {"0.0.0.0:1", "[::]:1", "127.example.org:1", "localhost.example.org:1", "10.0.0.1:1"}) {
    EXPECT_FALSE(IsLoopbackAddress(anywhere)) << anywhere;
  }
}

}  // namespace
}  // namespace tundra
