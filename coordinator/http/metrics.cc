#include "coordinator/http/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace tundra::coordinator {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;

const prometheus::Histogram::BucketBoundaries& Seconds() {
  static const auto* const bounds = new prometheus::Histogram::BucketBoundaries{
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60};
  return *bounds;
}

const char* CodeName(int code) {
  static constexpr const char* kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT", "DEADLINE",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "EXHAUSTED",        "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",         "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && code < 17 ? kNames[code] : "UNKNOWN";
}

}  // namespace

struct Metrics::Families {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Histogram>& rpc =
      BuildHistogram()
          .Name("tundra_rpc_duration_seconds")
          .Help("Time from a call's arrival to its end.")
          .Register(registry);
  prometheus::Histogram& commit = BuildHistogram()
                                      .Name("tundra_db_commit_duration_seconds")
                                      .Help("Time of a transaction of the store, commit included.")
                                      .Register(registry)
                                      .Add({}, Seconds());
  prometheus::Counter& steps = BuildCounter()
                                   .Name("tundra_steps_total")
                                   .Help("Optimizer steps that became durable.")
                                   .Register(registry)
                                   .Add({});
  prometheus::Counter& tokens = BuildCounter()
                                    .Name("tundra_tokens_total")
                                    .Help("Tokens of these steps, padding left out.")
                                    .Register(registry)
                                    .Add({});
  prometheus::Family<prometheus::Counter>& failures =
      BuildCounter()
          .Name("tundra_job_failures_total")
          .Help("Jobs that ended in FAILED, by failure code.")
          .Register(registry);
  prometheus::Counter& fenced = BuildCounter()
                                    .Name("tundra_fenced_writes_total")
                                    .Help("Reports refused because their attempt was not current.")
                                    .Register(registry)
                                    .Add({});
  prometheus::Family<prometheus::Counter>& auth_failures =
      BuildCounter()
          .Name("tundra_auth_failures_total")
          .Help("Calls refused for their token or certificate, by reason.")
          .Register(registry);
  prometheus::Family<prometheus::Gauge>& jobs =
      BuildGauge().Name("tundra_jobs").Help("Jobs by state.").Register(registry);
  prometheus::Family<prometheus::Gauge>& workers =
      BuildGauge().Name("tundra_workers").Help("Workers by state.").Register(registry);
  prometheus::Gauge& queue_devices =
      BuildGauge()
          .Name("tundra_queue_devices")
          .Help("Least number of devices that the queued jobs ask for.")
          .Register(registry)
          .Add({});
  prometheus::Gauge& queue_oldest = BuildGauge()
                                        .Name("tundra_queue_oldest_seconds")
                                        .Help("Age of the oldest queued job.")
                                        .Register(registry)
                                        .Add({});
  prometheus::Gauge& checkpoint_age =
      BuildGauge()
          .Name("tundra_checkpoint_oldest_age_seconds")
          .Help("Longest time since a running job's last checkpoint, or its start.")
          .Register(registry)
          .Add({});
};

Metrics::Metrics(const std::string& version) : families_(std::make_unique<Families>()) {
  BuildGauge()
      .Name("tundra_build_info")
      .Help("Always 1; the label tells the version.")
      .Register(families_->registry)
      .Add({{"version", version}})
      .Set(1);
}

Metrics::~Metrics() = default;

void Metrics::OnRpc(std::string_view method, int code, absl::Duration took) {
  families_->rpc.Add({{"method", std::string(method)}, {"code", CodeName(code)}}, Seconds())
      .Observe(absl::ToDoubleSeconds(took));
}

void Metrics::OnCommit(absl::Duration took) {
  families_->commit.Observe(absl::ToDoubleSeconds(took));
}

void Metrics::OnSteps(int64_t steps, int64_t tokens) {
  families_->steps.Increment(static_cast<double>(steps));
  families_->tokens.Increment(static_cast<double>(tokens));
}

void Metrics::OnFailure(const std::string& reason) {
  families_->failures.Add({{"reason", reason}}).Increment();
}

void Metrics::OnAuthFailure(std::string_view reason) {
  families_->auth_failures.Add({{"reason", std::string(reason)}}).Increment();
}

void Metrics::OnFencedWrite() { families_->fenced.Increment(); }

std::string Metrics::Render(const GaugeReadings& readings) {
  for (const auto& [state, count] : readings.jobs) {
    families_->jobs.Add({{"state", state}}).Set(count);
  }
  for (const auto& [state, count] : readings.workers) {
    families_->workers.Add({{"state", state}}).Set(count);
  }
  families_->queue_devices.Set(readings.queue_devices);
  families_->queue_oldest.Set(readings.queue_oldest_seconds);
  families_->checkpoint_age.Set(readings.checkpoint_oldest_age_seconds);
  return prometheus::TextSerializer().Serialize(families_->registry.Collect());
}

}  // namespace tundra::coordinator
