#include "worker/train/schedule.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "common/status_test_util.h"

namespace tundra {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

nlohmann::json Golden() {
  const char* root = std::getenv("TUNDRA_SOURCE_DIR");
  const std::string path =
      std::string(root != nullptr ? root : ".") + "/worker/train/testdata/optimizer_golden.json";
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << "no " << path << "; run from the repository or through ctest";
  return file.good() ? nlohmann::json::parse(file) : nlohmann::json::object();
}

TEST(ScheduleTest, GivesTheFactorsOfTransformers) {
  const nlohmann::json golden = Golden();
  for (const auto& test : golden.at("schedules")) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const ScheduleKind kind,
                                ParseScheduleKind(test.at("name").get<std::string>()));
    const auto factors = test.at("factors").get<std::vector<double>>();
    for (size_t step = 0; step < factors.size(); ++step) {
      EXPECT_NEAR(ScheduleFactor(kind, static_cast<int64_t>(step), test.at("warmup").get<int64_t>(),
                                 test.at("total").get<int64_t>()),
                  factors[step], 1e-15)
          << test.at("name") << " " << test.at("warmup") << " " << step;
    }
  }
}

TEST(ScheduleTest, WarmupIsTheCeilingOfTheRatioAsInTransformers) {
  const nlohmann::json golden = Golden();
  for (const auto& test : golden.at("warmup_steps")) {
    EXPECT_EQ(WarmupSteps(test.at("ratio").get<double>(), test.at("total").get<int64_t>()),
              test.at("steps").get<int64_t>())
        << test.dump();
  }
}

TEST(ScheduleTest, TheFirstRateOfAWarmupIsZero) {
  for (const ScheduleKind kind :
       {ScheduleKind::kConstantWithWarmup, ScheduleKind::kLinear, ScheduleKind::kCosine}) {
    EXPECT_EQ(ScheduleFactor(kind, 0, 3, 100), 0.0);
    EXPECT_EQ(ScheduleFactor(kind, 3, 3, 100), 1.0);
  }
}

TEST(ScheduleTest, UnknownNamesAreRefusedWithTheKnownOnes) {
  EXPECT_THAT(ParseScheduleKind("cosin"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("linear, cosine")));
}

}  // namespace
}  // namespace tundra
