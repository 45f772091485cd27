#include "common/tls.h"

#include <gtest/gtest.h>

#include "common/certificates_test_util.h"
#include "common/files.h"
#include "common/secret.h"
#include "common/status_test_util.h"

namespace tundra {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TestCertificate;

class TlsTest : public ::testing::Test {
 protected:
  void Put(const std::string& name, const std::string& text) {
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / name, text));
  }
  void PutPair(const TestCertificate& pair) {
    Put("cert", pair.cert());
    Put("key", pair.key());
  }
  TempDir dir_;
  const TestCertificate ca_ = TestCertificate::Authority("ca");
  const TlsFiles files_{dir_ / "cert", dir_ / "key", dir_ / "ca"};
};

TEST_F(TlsTest, ReadsAPairAndWhenItEnds) {
  PutPair(ca_.Issue("server", 7200));
  Put("ca", ca_.cert());
  const auto material = ReadTls(files_, absl::Now());
  TUNDRA_ASSERT_OK(material);
  EXPECT_GT(material->not_after, absl::Now() + absl::Seconds(7000));
  EXPECT_LT(material->not_after, absl::Now() + absl::Seconds(7300));
  EXPECT_EQ(material->ca, ca_.cert());
}

TEST_F(TlsTest, EveryFaultNamesItsFile) {
  const TestCertificate good = ca_.Issue("server");
  const auto fails = [&](const std::string& file, const std::string& text, const char* want) {
    PutPair(good);
    Put("ca", ca_.cert());
    Put(file, text);
    EXPECT_THAT(ReadTls(files_, absl::Now()),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         ::testing::AllOf(HasSubstr(dir_ / file), HasSubstr(want))));
  };
  fails("cert", "nonsense", "no PEM certificate");
  fails("cert", "", "no PEM certificate");
  fails("cert", good.cert().substr(0, 100), "no PEM certificate");
  fails("key", "nonsense", "no PEM private key");
  fails("key", good.cert(), "no PEM private key");
  fails("key", ca_.Issue("other").key(), "is not the private key");
  fails("ca", "nonsense", "no PEM certificate");
  PutPair(ca_.Issue("old", -60));
  EXPECT_THAT(ReadTls(files_, absl::Now()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expired")));
  PutPair(ca_.Issue("early"));
  EXPECT_THAT(ReadTls(files_, absl::Now() - absl::Hours(2)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not valid before")));
  EXPECT_THAT(ReadTls({.cert = dir_ / "cert"}, absl::Now()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--tls-key")));
  EXPECT_THAT(ReadTls({.ca = dir_ / "none"}, absl::Now()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST_F(TlsTest, TheLastGoodPairIsKept) {
  PutPair(ca_.Issue("first"));
  Put("ca", ca_.cert());
  const auto source = TlsSource::Open(files_);
  TUNDRA_ASSERT_OK(source);
  const auto first = (*source)->Get();
  EXPECT_FALSE((*source)->Refresh());
  // Half of a replacement: a key that is not the certificate's.
  const TestCertificate second = ca_.Issue("second");
  Put("key", second.key());
  EXPECT_FALSE((*source)->Refresh());
  EXPECT_EQ((*source)->Get(), first);
  Put("cert", second.cert());
  EXPECT_TRUE((*source)->Refresh());
  EXPECT_EQ((*source)->Get().first->cert, second.cert());
  EXPECT_GT((*source)->Get().second, first.second);
  Put("cert", "nonsense");
  EXPECT_FALSE((*source)->Refresh());
  EXPECT_EQ((*source)->Get().first->cert, second.cert());
}

TEST(SecretTest, SecretsAreLongAndNeverTheSame) {
  const std::string secret = NewSecret();
  EXPECT_EQ(secret.size(), 7u + 43u);
  EXPECT_NE(secret, NewSecret());
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "t", "  " + secret + "\n"));
  EXPECT_EQ(*ReadSecretFile(dir / "t"), secret);
  for (const std::string& bad : {std::string("short"), std::string(40, ' '), std::string(600, 'a'),
                                 secret + " " + secret, std::string(40, '\x01')}) {
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "t", bad));
    EXPECT_THAT(ReadSecretFile(dir / "t"),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("openssl rand")))
        << bad;
    EXPECT_THAT(CheckSecret(bad, "$TUNDRA_TOKEN"),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("$TUNDRA_TOKEN")));
  }
}

TEST(SecretTest, AStampTellsAReplacedFile) {
  TempDir dir;
  EXPECT_EQ(FileStamp(dir / "t"), "");
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "t", "one"));
  const std::string one = FileStamp(dir / "t");
  EXPECT_EQ(FileStamp(dir / "t"), one);
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "t", "two"));
  EXPECT_NE(FileStamp(dir / "t"), one);
}

TEST(VerifyClientChain, TellsUntilWhenAChainIsGood) {
  const absl::Time now = absl::Now();
  const TestCertificate ca = TestCertificate::Authority("ca");
  const TestCertificate other = TestCertificate::Authority("other");
  const std::string leaf = ca.Issue("worker", 600).cert();
  const auto end = VerifyClientChain(leaf, other.cert() + ca.cert(), now);
  TUNDRA_ASSERT_OK(end);
  EXPECT_GT(*end, now + absl::Seconds(590));
  EXPECT_LT(*end, now + absl::Seconds(610));
  EXPECT_THAT(VerifyClientChain(leaf, ca.cert(), *end + absl::Seconds(1)),
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("expired")));
  EXPECT_THAT(VerifyClientChain(leaf, ca.cert(), now - absl::Hours(2)),
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("not yet valid")));
  for (const std::string& ca_text : {other.cert(), std::string(), std::string("nonsense")}) {
    EXPECT_THAT(VerifyClientChain(leaf, ca_text, now),
                StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("issuer")));
  }
  EXPECT_THAT(VerifyClientChain("nonsense", ca.cert(), now),
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("no certificate")));
}

}  // namespace
}  // namespace tundra
