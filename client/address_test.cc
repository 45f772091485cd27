// Which service a command talks to; and the small texts: charts and bars.
#include "client/address.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "client/chart.h"
#include "client/process.h"
#include "client/progress.h"
#include "common/files.h"
#include "common/rpc.h"
#include "common/status_test_util.h"

namespace tundra::client {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::tundra::testing::StatusIs;

class AddressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::unsetenv("TUNDRA_CONFIG");
    ::setenv("XDG_CONFIG_HOME", dir_.path().c_str(), 1);
    ::setenv("TUNDRA_HOME", dir_.path().c_str(), 1);
    ::unsetenv("TUNDRA_CONTEXT");
    ::unsetenv("TUNDRA_ADDRESS");
    for (const char* name : {"TUNDRA_TOKEN", "TUNDRA_TOKEN_FILE", "TUNDRA_TLS_CA"})
      ::unsetenv(name);
  }
  void TearDown() override {
    for (const char* name :
         {"TUNDRA_CONFIG", "XDG_CONFIG_HOME", "TUNDRA_HOME", "TUNDRA_CONTEXT", "TUNDRA_ADDRESS"}) {
      ::unsetenv(name);
    }
  }
  void Config(const std::string& text) {
    ::setenv("TUNDRA_CONFIG", (dir_ / "config.yaml").c_str(), 1);
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "config.yaml", text));
  }
  std::string Found(const AddressFlags& flags = {}) {
    const auto address = FindAddress(flags);
    return address.ok() ? address->value : std::string(address.status().message());
  }
  TempDir dir_;
};

TEST_F(AddressTest, NearerSourcesWin) {
  EXPECT_EQ(Found(), "127.0.0.1:7700");
  TUNDRA_ASSERT_OK(
      WriteFileAtomically(LocalStatePath(dir_.path()), R"({"address": "127.0.0.1:1"})"));
  EXPECT_EQ(Found(), "127.0.0.1:1");
  Config(
      "current_context: a\ncontexts:\n  a: {address: \"127.0.0.1:2\"}\n  b: {address: "
      "\"127.0.0.1:4\"}\n");
  EXPECT_EQ(Found(), "127.0.0.1:2");
  ::setenv("TUNDRA_ADDRESS", "127.0.0.1:3", 1);
  EXPECT_EQ(Found(), "127.0.0.1:3");
  ::setenv("TUNDRA_CONTEXT", "b", 1);
  EXPECT_EQ(Found(), "127.0.0.1:4");
  AddressFlags flags;
  flags.context = "a";
  EXPECT_EQ(Found(flags), "127.0.0.1:2");
  flags.address = "127.0.0.1:5";
  EXPECT_EQ(Found(flags), "127.0.0.1:5");
}

TEST_F(AddressTest, AConfigurationFileThatIsNamedMustBeThere) {
  EXPECT_EQ(Found(), "127.0.0.1:7700") << "the usual place may be empty";
  ::setenv("TUNDRA_CONFIG", (dir_ / "none.yaml").c_str(), 1);
  EXPECT_THAT(FindAddress({}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.yaml")));
}

TEST_F(AddressTest, KeysThatAreGivenTwiceAreRefusedByLine) {
  Config("contexts:\n  a: {address: \"127.0.0.1:1\"}\n  a: {address: \"127.0.0.1:2\"}\n");
  EXPECT_THAT(Found(), HasSubstr("config.yaml:3: a is given twice"));
  Config("contexts:\n  a:\n    address: x:1\n    tls: false\n    address: x:2\n");
  EXPECT_THAT(Found(), HasSubstr("config.yaml:5: address is given twice"));
}

TEST_F(AddressTest, AServiceThatIsStillStartingOrABrokenNoteIsNoAddress) {
  for (const char* text : {R"({"address": ""})", R"({"address": 7})", "[]", "{", ""}) {
    TUNDRA_ASSERT_OK(WriteFileAtomically(LocalStatePath(dir_.path()), text));
    EXPECT_EQ(Found(), "127.0.0.1:7700") << text;
  }
}

TEST_F(AddressTest, BrokenConfigurationIsExplainedAndNeverThrows) {
  for (const char* text : {"contexts: [", "current_context: a\ncontexts: 3\n",
                           "current_context: a\ncontexts: {a: 3}\n", "current_context: [x]\n",
                           "current_context: a\ncontexts: {b: {address: x}}\n"}) {
    Config(text);
    EXPECT_THAT(FindAddress({}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("config.yaml")))
        << text;
  }
  EXPECT_THAT(Found(), HasSubstr("there are: b"));
}

TEST_F(AddressTest, TokensAndTlsComeFromFlagsContextsAndTheEnvironmentInThisOrder) {
  const std::string variable(40, 'v');
  Config("current_context: lab\ncontexts:\n  lab: {address: \"h:1\", tls_ca: /ca, token_file: " +
         (dir_ / "context") + "}\n  plain: {address: \"127.0.0.1:1\"}\n");
  auto found = FindAddress({});
  TUNDRA_ASSERT_OK(found);
  EXPECT_TRUE(found->security.tls);
  EXPECT_EQ(found->security.files.ca, "/ca");
  EXPECT_EQ(found->security.token_file, dir_ / "context");
  found = FindAddress({.tls_ca = "/other", .token_file = dir_ / "flag"});
  EXPECT_EQ(found->security.files.ca, "/other");
  EXPECT_EQ(found->security.token_file, dir_ / "flag");
  ::setenv("TUNDRA_TOKEN", variable.c_str(), 1);
  EXPECT_EQ(FindAddress({})->security.token, "") << "the context's comes first";
  EXPECT_EQ(FindAddress({.context = "plain"})->security.token, variable);
  EXPECT_FALSE(FindAddress({.context = "plain"})->security.tls);
  ::setenv("TUNDRA_TOKEN", "evil\nheader: x", 1);
  EXPECT_THAT(FindAddress({.context = "plain"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("$TUNDRA_TOKEN")));
  ::unsetenv("TUNDRA_TOKEN");
}

TEST_F(AddressTest, TheTokenOfLocalUpIsForItsOwnServiceWhileItRuns) {
  const auto note = [&](const std::string& start_time) {
    TUNDRA_ASSERT_OK(WriteFileAtomically(
        LocalStatePath(DefaultDataDir()),
        R"({"address": "127.0.0.1:77", "token_file": "/local.token", "processes": [{"pid": )" +
            std::to_string(::getpid()) + R"(, "start_time": ")" + start_time + "\"}]}"));
  };
  note(StartTime(::getpid()));
  EXPECT_EQ(FindAddress({})->security.token_file, "/local.token");
  EXPECT_EQ(FindAddress({.address = "127.0.0.1:77"})->security.token_file, "/local.token");
  EXPECT_EQ(FindAddress({.address = "127.0.0.1:78"})->security.token_file, "");
  // Another process has the number, and maybe the port.
  for (const char* const gone : {"1", ""}) {
    note(gone);
    EXPECT_EQ(FindAddress({})->value, "127.0.0.1:77");
    EXPECT_EQ(FindAddress({})->security.token_file, "");
  }
}

TEST(LoopbackTest, OnlyNumbersAndNamesOfThisHostPass) {
  for (const char* good : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:/tmp/x"}) {
    TUNDRA_EXPECT_OK(CheckLoopback(good, false, false)) << good;
  }
  for (const char* bad : {"127.example.org:1", "127.0.0.1.example.org:1", "0.0.0.0:1", "10.0.0.1:1",
                          "localhost.example.org:1"}) {
    EXPECT_THAT(CheckLoopback(bad, false, false),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--insecure")))
        << bad;
    TUNDRA_EXPECT_OK(CheckLoopback(bad, false, true));
    TUNDRA_EXPECT_OK(CheckLoopback(bad, true, false));
  }
  for (const char* bad : {":1", "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1",
                          "127.0.0.1:x", "localhost:1x"}) {
    for (const bool insecure : {false, true}) {
      EXPECT_THAT(CheckLoopback(bad, false, insecure),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("HOST:PORT")))
          << bad;
    }
  }
}

TEST(ChartTest, DrawsFirstAndLastPointsAtTheEdges) {
  const std::string text = Chart({{'*', "loss", {{0, 4}, {10, 1}}}}, 40, 5);
  EXPECT_THAT(text, HasSubstr("   4.000 |*"));
  EXPECT_THAT(text, HasSubstr("   1.000 |                             *\n"));
  EXPECT_THAT(text, HasSubstr("step 0"));
  EXPECT_THAT(text, HasSubstr("* loss"));
}

TEST(ChartTest, AnyFiguresGiveAChartOrNothing) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(Chart({}, 40, 5), "");
  EXPECT_EQ(Chart({{'*', "nan", {{1, NAN}, {NAN, 1}, {1, kInf}, {1, -kInf}}}}, 40, 5), "");
  // One point, flat lines of any size, a span beyond a double, no room.
  for (const double y : {0.0, 1e20, -1e20, 1e-300, 1e299}) {
    EXPECT_THAT(Chart({{'*', "flat", {{1, y}, {2, y}}}}, 40, 5), HasSubstr("*"));
  }
  EXPECT_THAT(Chart({{'*', "wide", {{1, -1e308}, {2, 1e308}, {3, 1}}}}, 40, 5), HasSubstr("*"));
  for (const int size : {-5, 0, 1, 2}) {
    EXPECT_THAT(Chart({{'*', "x", {{1, 1}, {2, 2}}}}, size, size), HasSubstr("*"));
  }
}

TEST(BarTest, AnyFractionGivesABarOfItsWidth) {
  EXPECT_EQ(BarText(0.5, 4), "[##--]");
  for (const double fraction : {-1.0, 0.0, 2.0, 1e300, static_cast<double>(NAN)}) {
    EXPECT_EQ(BarText(fraction, 10).size(), 12u) << fraction;
  }
  EXPECT_EQ(BarText(NAN, 2), "[--]");
  EXPECT_EQ(BarText(1e300, 2), "[##]");
}

}  // namespace
}  // namespace tundra::client
