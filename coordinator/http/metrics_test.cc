// The coordinator's metrics page: each figure moves with what it counts, nothing else is there,
// and what callers make up has a bound.
#include "coordinator/http/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "common/metrics_test_util.h"
#include "coordinator/http/capped_labels.h"

namespace tundra::coordinator {
namespace {

using testing::ExpectMetrics;
using testing::MetricRow;
using testing::Samples;

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

void CountEverything(Metrics& metrics) {
  metrics.OnRpc("GetJob", 0, absl::Milliseconds(500));
  metrics.OnRpc("GetJob", 8, absl::Milliseconds(250));
  metrics.OnCommit(absl::Milliseconds(125));
  metrics.OnSteps("red", 3, 300, 6);
  metrics.OnSteps("blue", 1, 50, 2);
  metrics.OnReplayedSteps(4);
  metrics.OnDeviceSeconds("red", 10);
  metrics.OnRecovery(absl::Seconds(8));
  metrics.OnFailure("OUT_OF_MEMORY");
  metrics.OnFencedWrite();
  metrics.OnAuthFailure("unknown_token");
  metrics.SetCertExpiry(absl::FromUnixSeconds(1'800'000'000));
}

GaugeReadings SomeReadings() {
  GaugeReadings readings;
  readings.leader = true;
  readings.jobs = {{"QUEUED", 5}, {"RUNNING", 2}};
  readings.workers = {{"connected", 3}};
  readings.queue_devices = {{"red", 4}};
  readings.quota_used_ratio = {{{"red", "devices"}, 0.5}};
  readings.queue_oldest_seconds = 60;
  readings.checkpoint_oldest_age_seconds = 70;
  readings.stalled_jobs = 1;
  readings.volume_size_bytes = 5000;
  readings.volume_available_bytes = 600;
  return readings;
}

TEST(MetricsTest, EachNameHasItsTypeItsLabelsAndTheValueThatWasCounted) {
  Metrics metrics("1.2.3");
  CountEverything(metrics);
  const std::string page = metrics.Render(SomeReadings());
  const std::vector<MetricRow> table = {
      {"gauge", "tundra_jobs", {{"{state=\"QUEUED\"}", 5}, {"{state=\"RUNNING\"}", 2}}},
      {"gauge", "tundra_queue_devices", {{"{tenant=\"red\"}", 4}}},
      {"gauge", "tundra_queue_oldest_seconds", {{"", 60}}},
      {"gauge", "tundra_workers", {{"{state=\"connected\"}", 3}}},
      {"gauge", "tundra_leader", {{"", 1}}},
      {"gauge", "tundra_checkpoint_oldest_age_seconds", {{"", 70}}},
      {"gauge", "tundra_stalled_jobs", {{"", 1}}},
      {"gauge", "tundra_quota_used_ratio", {{"{resource=\"devices\",tenant=\"red\"}", 0.5}}},
      {"gauge", "tundra_cert_expiry_timestamp_seconds", {{"", 1.8e9}}},
      {"gauge", "tundra_volume_size_bytes", {{"", 5000}}},
      {"gauge", "tundra_volume_available_bytes", {{"", 600}}},
      {"gauge", "tundra_build_info", {{"{version=\"1.2.3\"}", 1}}},
      {"counter", "tundra_tokens_total", {{"{tenant=\"red\"}", 300}, {"{tenant=\"blue\"}", 50}}},
      {"counter", "tundra_device_seconds_total", {{"{tenant=\"red\"}", 10}}},
      {"counter",
       "tundra_useful_device_seconds_total",
       {{"{tenant=\"red\"}", 6}, {"{tenant=\"blue\"}", 2}}},
      {"counter", "tundra_steps_total", {{"", 4}}},
      {"counter", "tundra_replayed_steps_total", {{"", 4}}},
      {"counter",
       "tundra_job_failures_total",
       {{"{reason=\"OUT_OF_MEMORY\"}", 1}, {"{reason=\"INTERNAL\"}", 0}}},
      {"counter", "tundra_fenced_writes_total", {{"", 1}}},
      {"counter", "tundra_auth_failures_total", {{"{reason=\"unknown_token\"}", 1}}},
      {"histogram", "tundra_recovery_duration_seconds", {{"_sum", 8}, {"_count", 1}}},
      {"histogram",
       "tundra_rpc_duration_seconds",
       {{"_sum{code=\"OK\",method=\"GetJob\"}", 0.5},
        {"_count{code=\"RESOURCE_EXHAUSTED\",method=\"GetJob\"}", 1}}},
      {"histogram", "tundra_db_commit_duration_seconds", {{"_sum", 0.125}, {"_count", 1}}},
  };
  ExpectMetrics(page, table);
}

TEST(MetricsTest, WhatIsNotKnownIsNotThere) {
  Metrics metrics("1");
  const std::string page = metrics.Render({});
  for (const char* name : {"tundra_cert_expiry", "tundra_quota", "tundra_auth_failures_total"}) {
    EXPECT_THAT(page, Not(HasSubstr(name)));
  }
  EXPECT_THAT(page, HasSubstr("\ntundra_leader 0\n"));
}

TEST(MetricsTest, ATenantWithoutAQueueOrALimitGoesBackToZero) {
  Metrics metrics("1");
  metrics.Render(SomeReadings());
  const std::map<std::string, double> samples = Samples(metrics.Render({}));
  EXPECT_EQ(samples.at("tundra_queue_devices{tenant=\"red\"}"), 0);
  EXPECT_EQ(samples.at("tundra_quota_used_ratio{resource=\"devices\",tenant=\"red\"}"), 0);
}

TEST(CappedLabelsTest, TheFirstOnesKeepTheirNames) {
  CappedLabels labels(2, "other");
  EXPECT_EQ(labels.Of("b"), "b");
  EXPECT_EQ(labels.Of("a"), "a");
  EXPECT_EQ(labels.Of("c"), "other");
  EXPECT_EQ(labels.Of("b"), "b");
  EXPECT_EQ(labels.Of("a"), "a");
}

TEST(MetricsTest, TenantsBeyondAHundredAreOneAndNothingOfThemIsLost) {
  Metrics metrics("1");
  GaugeReadings readings;
  for (int i = 0; i < 250; ++i) {
    const std::string tenant = absl::StrCat("tenant-", i);
    metrics.OnSteps(tenant, 1, 10, 1);
    readings.queue_devices[tenant] = 2;
    readings.quota_used_ratio[{tenant, "devices"}] = i / 1000.0;
  }
  const std::map<std::string, double> samples = Samples(metrics.Render(readings));
  EXPECT_EQ(samples.at("tundra_tokens_total{tenant=\"tenant-99\"}"), 10);
  EXPECT_FALSE(samples.contains("tundra_tokens_total{tenant=\"tenant-100\"}"));
  EXPECT_EQ(samples.at("tundra_tokens_total{tenant=\"other\"}"), 1500);
  EXPECT_EQ(samples.at("tundra_queue_devices{tenant=\"other\"}"), 300);
  EXPECT_EQ(samples.at("tundra_quota_used_ratio{resource=\"devices\",tenant=\"other\"}"), 0.249);
}

TEST(MetricsTest, CallsOfEveryMethodWithEveryCodeStayWithinTheBound) {
  Metrics metrics("1");
  for (int method = 0; method < 100; ++method) {
    for (int code = 0; code <= 16; ++code) {
      metrics.OnRpc(absl::StrCat("Method", method), code, absl::ZeroDuration());
    }
  }
  for (int i = 0; i < 1000; ++i) metrics.OnAuthFailure(absl::StrCat("reason-", i));
  const std::map<std::string, double> samples = Samples(metrics.Render({}));
  EXPECT_LT(samples.size(), 3600u);
  EXPECT_EQ(samples.at("tundra_rpc_duration_seconds_count{code=\"OTHER\",method=\"Method59\"}"),
            17);
  EXPECT_EQ(samples.at("tundra_rpc_duration_seconds_count{code=\"OTHER\",method=\"other\"}"),
            36 * 17);
  EXPECT_EQ(samples.at("tundra_auth_failures_total{reason=\"other\"}"), 980);
}

}  // namespace
}  // namespace tundra::coordinator
