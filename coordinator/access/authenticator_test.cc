// What a call shows, against what the coordinator knows by now.
#include "coordinator/access/authenticator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/certificates_test_util.h"
#include "common/files.h"
#include "common/secret.h"
#include "common/status_test_util.h"
#include "coordinator/store/sqlite_store.h"

namespace tundra::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TestCertificate;

class AuthenticatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "ca.pem", ca_.cert()));
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "worker-token", NewSecret()));
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "admin", NewSecret()));
    TUNDRA_ASSERT_OK_AND_ASSIGN(tls_, TlsSource::Open({.ca = dir_ / "ca.pem"}));
    SqliteOptions sqlite;
    sqlite.data_dir = dir_.path();
    TUNDRA_ASSERT_OK_AND_ASSIGN(store_, OpenSqliteStore(std::move(sqlite)));
    AuthOptions options;
    options.bootstrap_token_file = dir_ / "admin";
    options.worker_token_file = dir_ / "worker-token";
    options.tls = tls_;
    options.on_failure = [this](std::string_view reason) { reasons_.emplace_back(reason); };
    authenticator_ = std::make_unique<Authenticator>(store_.get(), &clock_, options);
    TUNDRA_ASSERT_OK(authenticator_->Start());
  }

  TempDir dir_;
  FakeClock clock_{absl::Now()};
  const TestCertificate ca_ = TestCertificate::Authority("ca");
  std::shared_ptr<TlsSource> tls_;
  std::unique_ptr<Store> store_;
  std::vector<std::string> reasons_;
  std::unique_ptr<Authenticator> authenticator_;
};

TEST_F(AuthenticatorTest, TheFirstAdminsTokenIsAudited) {
  TUNDRA_ASSERT_OK(store_->Read([&](ReadTxn& txn) -> absl::Status {
    const auto entries = *txn.ListAudit(INT64_MAX, 10);
    EXPECT_EQ(entries.size(), 1u);
    EXPECT_EQ(entries[0].method(), "Bootstrap");
    EXPECT_EQ(entries[0].resource(), "tokens/" + txn.ListTokens()->at(0).id.value);
    return absl::OkStatus();
  }));
}

TEST_F(AuthenticatorTest, KnowsWhoseATokenIsAndCountsNothing) {
  const auto shows = [](const std::string& value) {
    Credentials shown;
    shown.authorization = value;
    return shown;
  };
  EXPECT_TRUE(authenticator_->Knows(shows("Bearer " + *ReadSecretFile(dir_ / "admin"))));
  EXPECT_TRUE(authenticator_->Knows(shows("Bearer " + *ReadSecretFile(dir_ / "worker-token"))));
  EXPECT_FALSE(authenticator_->Knows(shows("Bearer " + NewSecret())));
  EXPECT_FALSE(authenticator_->Knows(shows("")));
  EXPECT_FALSE(authenticator_->Knows(Credentials()));
  EXPECT_TRUE(reasons_.empty());
}

TEST_F(AuthenticatorTest, AConnectionOutlivesNoCertificate) {
  Credentials shown;
  shown.certificate = "worker-one";
  shown.chain = ca_.Issue("worker-one", 600).cert();
  const Authorization who = authenticator_->Authorize(shown, "Session");
  TUNDRA_ASSERT_OK(who.status);
  TUNDRA_EXPECT_OK(authenticator_->Recheck(who.caller));
  clock_.Advance(absl::Minutes(11));
  EXPECT_THAT(authenticator_->Recheck(who.caller),
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("expired")));
  EXPECT_THAT(authenticator_->Authorize(shown, "PutBlob").status,
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("expired")));
  EXPECT_THAT(reasons_, ElementsAre("bad_certificate", "bad_certificate"));
}

TEST_F(AuthenticatorTest, ASessionOutlivesNoSecret) {
  Credentials shown;
  shown.authorization = "Bearer " + *ReadSecretFile(dir_ / "worker-token");
  const Authorization who = authenticator_->Authorize(shown, "Session");
  TUNDRA_ASSERT_OK(who.status);
  TUNDRA_EXPECT_OK(authenticator_->Recheck(who.caller));
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "worker-token", NewSecret()));
  authenticator_->Refresh();
  EXPECT_THAT(authenticator_->Recheck(who.caller),
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("replaced")));
}

}  // namespace
}  // namespace tundra::coordinator
