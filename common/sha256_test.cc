#include "common/sha256.h"

#include "common/files.h"
#include "common/status_test_util.h"

namespace tundra {
namespace {

// Source: FIPS 180-2, appendix B.1 and B.3.
TEST(Sha256, MatchesThePublishedVectors) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, FileAndPiecesGiveTheHashOfTheWhole) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "f", "abc"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(std::string of_file, Sha256OfFile(dir / "f"));
  Sha256 pieces;
  pieces.Update("a");
  pieces.Update("bc");
  EXPECT_EQ(of_file, pieces.Finish());
  EXPECT_EQ(of_file, Sha256Hex("abc"));
}

TEST(Sha256, RecognisesItsHex) {
  EXPECT_TRUE(IsSha256Hex(Sha256Hex("")));
  EXPECT_FALSE(IsSha256Hex("abc"));
  EXPECT_FALSE(IsSha256Hex(std::string(64, 'A')));
}

}  // namespace
}  // namespace tundra
