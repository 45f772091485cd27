#include "common/printable.h"

#include <gtest/gtest.h>

#include <string>

namespace tundra {
namespace {

TEST(Printable, TellsWhatATerminalWouldObey) {
  for (const std::string good :
       {"", "pirate-support", "Čeština 日本語 🦊", "a b", "\xc2\xa0"}) {
    EXPECT_FALSE(HasControlCharacters(good)) << good;
  }
  for (const std::string bad : {"a\nb", "\t", "\x1b[31mred", "\x7f", "\xc2\x9b", "x\r"}) {
    EXPECT_TRUE(HasControlCharacters(bad));
  }
  EXPECT_TRUE(HasControlCharacters(std::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace tundra
