#include "coordinator/config.h"

#include <gtest/gtest.h>

#include "common/files.h"
#include "common/status_test_util.h"

namespace tundra::coordinator {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class ConfigTest : public ::testing::Test {
 protected:
  absl::Status Read(const std::string& text) {
    TUNDRA_EXPECT_OK(WriteFileAtomically(dir_ / "c.yaml", text));
    return ReadConfigFile(dir_ / "c.yaml", config_);
  }
  TempDir dir_;
  Config config_;
};

TEST_F(ConfigTest, TheSampleIsTheDefaults) {
  config_.listen = "changed";
  config_.lease_seconds = 99;
  TUNDRA_ASSERT_OK(Read(SampleConfig()));
  EXPECT_EQ(config_.listen, Config().listen);
  EXPECT_EQ(config_.lease_seconds, Config().lease_seconds);
  TUNDRA_EXPECT_OK(CheckConfig(config_));
  TUNDRA_EXPECT_OK(Read(""));
}

TEST_F(ConfigTest, TheSampleInTheDocumentationIsThisOne) {
  const char* const source = getenv("TUNDRA_SOURCE_DIR");
  if (source == nullptr) GTEST_SKIP() << "TUNDRA_SOURCE_DIR is not set; ctest sets it";
  const absl::StatusOr<std::string> text = ReadFile(std::string(source) + "/docs/coordinator.yaml");
  TUNDRA_ASSERT_OK(text);
  EXPECT_EQ(*text, SampleConfig()) << "tundra-coordinator --print-config > docs/coordinator.yaml";
}

TEST_F(ConfigTest, SaysWhereAndWhatIsWrong) {
  EXPECT_THAT(Read("http: 127.0.0.1:1\nlisten_on: x\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::AllOf(HasSubstr("c.yaml:2"), HasSubstr("did you mean listen"))));
  EXPECT_THAT(Read("lease_seconds: soon\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lease_seconds")));
  EXPECT_THAT(
      Read("listen: 127.0.0.1:1\nhttp: 127.0.0.1:2\nlisten: 127.0.0.1:3\n"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               ::testing::AllOf(HasSubstr("c.yaml:3"), HasSubstr("listen is given twice"))));
  EXPECT_THAT(Read("- a\n- b\n"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("KEY")));
  EXPECT_THAT(Read("a: [1, 2\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("c.yaml")));
  EXPECT_THAT(ReadConfigFile(dir_ / "none.yaml", config_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.yaml")));
  config_.lease_seconds = 1;
  EXPECT_THAT(CheckConfig(config_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("twice")));
  config_ = Config();
  config_.heartbeat_seconds = 0.0 / 0.0;
  EXPECT_FALSE(CheckConfig(config_).ok());
}

}  // namespace
}  // namespace tundra::coordinator
