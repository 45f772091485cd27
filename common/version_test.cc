#include "common/version.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status_test_util.h"

namespace tundra {
namespace {

using ::testing::HasSubstr;

TEST(Version, ACoordinatorTakesItsOwnMinorVersionAndTheOneBefore) {
  for (const auto& [worker, coordinator] :
       std::vector<std::pair<const char*, const char*>>{{"1.4.0", "1.4.0"},
                                                        {"1.4.9", "1.4.0"},
                                                        {"1.3.7", "1.4.0"},
                                                        {"1.9.2", "2.0.0"},
                                                        {"1.0.0", "2.0.5"},
                                                        {"0.1.0", "0.2.0"},
                                                        {"1.4.0-rc1", "1.4.0+debian.2"},
                                                        {"0.4294967295.0", "1.0.0"}}) {
    TUNDRA_EXPECT_OK(CheckWorkerVersion(worker, coordinator)) << worker << " at " << coordinator;
  }
}

TEST(Version, OlderOnesAreToldToUpgradeAndNewerOnesWhatToUpgradeFirst) {
  for (const auto& [worker, coordinator] : std::vector<std::pair<const char*, const char*>>{
           {"1.2.9", "1.4.0"}, {"0.9.0", "1.1.0"}, {"1.9.0", "3.0.0"}, {"1.9.0", "2.1.0"}}) {
    const absl::Status status = CheckWorkerVersion(worker, coordinator);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << worker << coordinator;
    EXPECT_THAT(status.message(), HasSubstr("upgrade the worker"));
    EXPECT_THAT(status.message(), HasSubstr(worker));
  }
  for (const auto& [worker, coordinator] : std::vector<std::pair<const char*, const char*>>{
           {"1.5.0", "1.4.9"}, {"2.0.0", "1.9.0"}, {"0.4294967295.0", "0.0.0"}}) {
    const absl::Status status = CheckWorkerVersion(worker, coordinator);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << worker << coordinator;
    EXPECT_THAT(status.message(), HasSubstr("upgrade the coordinator first"));
  }
}

TEST(Version, WhatIsNoVersionIsRefused) {
  for (const std::string worker : {"", "1", "1.2", "1.2.", "1.2.x", "v1.2.3", "1.2.3.4", "-1.2.3",
                                   "1.2.4294967296", "1..3", "1.2.3 "}) {
    EXPECT_EQ(CheckWorkerVersion(worker, "1.2.3").code(), absl::StatusCode::kInvalidArgument)
        << worker;
  }
  EXPECT_LT(CheckWorkerVersion("1.2.3-" + std::string(10000, 'x'), "1.2.3").message().size(), 200);
}

TEST(Version, TheProgramsOwnIsOne) {
  TUNDRA_EXPECT_OK(CheckWorkerVersion(ProgramVersion(), ProgramVersion()));
}

}  // namespace
}  // namespace tundra
