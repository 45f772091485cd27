// The worker's metrics page: each figure moves with what it counts, and nothing else is there.
#include "worker/worker_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/metrics_test_util.h"

namespace tundra::worker {
namespace {

using ::testing::Contains;
using testing::ExpectMetrics;
using ::testing::HasSubstr;
using testing::MetricRow;
using ::testing::Not;
using testing::Samples;

// Everything happens once.
void CountEverything(WorkerMetrics& metrics) {
  tundra::v1::StepMetrics step;
  step.set_step(3);
  step.set_tokens(500);
  step.set_allreduce_bytes(1000);
  step.set_redone_allreduce_bytes(10);
  step.set_non_finite(true);
  metrics.OnLedStep(step);
  RankFigures figures;
  figures.mutable_step()->set_forward_backward_seconds(2);
  figures.mutable_step()->set_weights_wait_seconds(0.5);
  figures.mutable_step()->set_allreduce_seconds(0.25);
  figures.mutable_step()->set_update_seconds(0.125);
  figures.mutable_step()->set_collective_seconds(0.2);
  figures.mutable_step()->set_gather_wait_seconds(0.4);
  figures.mutable_step()->set_gather_bytes(77);
  metrics.OnFigures(figures);
  RankFigures stage;
  stage.mutable_checkpoint()->set_stage("write");
  stage.mutable_checkpoint()->set_seconds(1.5);
  metrics.OnFigures(stage);
  stage.mutable_checkpoint()->set_failed(true);
  metrics.OnFigures(stage);
  RankFigures last;
  last.set_diverged(true);
  metrics.OnFigures(last);
  metrics.OnCheckpoint("upload", absl::Seconds(4), /*failed=*/false);
  metrics.OnCollectiveAbort("peer_lost");
  metrics.OnPreemption(absl::Seconds(3));
  metrics.SetCertExpiry(absl::FromUnixSeconds(1'800'000'000));
}

WorkerReadings SomeReadings() {
  WorkerReadings readings;
  readings.connected = true;
  readings.ranks_ready = 2;
  readings.ranks_lost = 1;
  readings.resident_shard_bytes = 100;
  readings.gathered_buffer_bytes = 20;
  readings.prepared_bytes = 3;
  readings.device_total_bytes = 4000;
  readings.volume_size_bytes = 5000;
  readings.volume_available_bytes = 600;
  return readings;
}

TEST(WorkerMetricsTest, EachNameHasItsTypeItsLabelsAndTheValueThatWasCounted) {
  WorkerMetrics metrics;
  CountEverything(metrics);
  const std::string page = metrics.Render(SomeReadings());
  const std::vector<MetricRow> table = {
      {"gauge", "tundra_worker_connected", {{"", 1}}},
      {"gauge", "tundra_worker_ranks", {{"{state=\"ready\"}", 2}, {"{state=\"lost\"}", 1}}},
      {"gauge", "tundra_base_resident_bytes", {{"", 100}}},
      {"gauge",
       "tundra_device_memory_bytes",
       {{"{kind=\"base_slices\"}", 100},
        {"{kind=\"gathered_units\"}", 20},
        {"{kind=\"prepared_weights\"}", 3},
        {"{kind=\"total\"}", 4000}}},
      {"gauge", "tundra_volume_size_bytes", {{"", 5000}}},
      {"gauge", "tundra_volume_available_bytes", {{"", 600}}},
      {"gauge", "tundra_cert_expiry_timestamp_seconds", {{"", 1.8e9}}},
      {"gauge", "tundra_build_info", {}},
      {"counter", "tundra_steps_total", {{"", 1}}},
      {"counter", "tundra_tokens_total", {{"", 500}}},
      {"counter", "tundra_nonfinite_steps_total", {{"", 2}}},
      {"counter", "tundra_allreduce_bytes_total", {{"", 1000}}},
      {"counter", "tundra_redone_allreduce_bytes_total", {{"", 10}}},
      {"counter", "tundra_gather_bytes_total", {{"", 77}}},
      {"counter",
       "tundra_collective_aborts_total",
       {{"{reason=\"peer_lost\"}", 1}, {"{reason=\"timeout\"}", 0}}},
      {"counter",
       "tundra_checkpoint_failures_total",
       {{"{stage=\"write\"}", 1}, {"{stage=\"upload\"}", 0}}},
      {"histogram",
       "tundra_step_duration_seconds",
       {{"_sum{phase=\"forward_backward\"}", 2},
        {"_sum{phase=\"weights_wait\"}", 0.5},
        {"_sum{phase=\"allreduce\"}", 0.25},
        {"_sum{phase=\"update\"}", 0.125}}},
      {"histogram", "tundra_allreduce_duration_seconds", {{"_sum", 0.2}, {"_count", 1}}},
      {"histogram", "tundra_gather_wait_seconds", {{"_sum", 0.4}, {"_count", 1}}},
      {"histogram",
       "tundra_checkpoint_duration_seconds",
       {{"_sum{stage=\"write\"}", 1.5},
        {"_count{stage=\"write\"}", 1},
        {"_sum{stage=\"upload\"}", 4},
        {"_count{stage=\"snapshot\"}", 0}}},
      {"histogram", "tundra_preemption_duration_seconds", {{"_sum", 3}, {"_count", 1}}},
  };
  ExpectMetrics(page, table);
}

TEST(WorkerMetricsTest, AStepAloneHasNoAllReduceAndAStepWithTheWholeBaseNoGather) {
  WorkerMetrics metrics;
  RankFigures figures;
  figures.mutable_step()->set_allreduce_seconds(1);
  metrics.OnFigures(figures);
  const std::map<std::string, double> samples = Samples(metrics.Render({}));
  EXPECT_EQ(samples.at("tundra_allreduce_duration_seconds_count"), 0);
  EXPECT_EQ(samples.at("tundra_gather_wait_seconds_count"), 0);
  EXPECT_EQ(samples.at("tundra_step_duration_seconds_count{phase=\"allreduce\"}"), 1);
}

TEST(WorkerMetricsTest, WhatIsNotKnownIsNotThere) {
  WorkerMetrics metrics;
  EXPECT_THAT(metrics.Render({}), Not(HasSubstr("tundra_cert_expiry")));
}

TEST(WorkerMetricsTest, HasFewSeries) {
  WorkerMetrics metrics;
  CountEverything(metrics);
  EXPECT_LT(Samples(metrics.Render(SomeReadings())).size(), 400u);
}

}  // namespace
}  // namespace tundra::worker
