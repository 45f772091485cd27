#include "coordinator/http/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/http/capped_labels.h"
#include "tundra/v1/job.pb.h"

namespace tundra::coordinator {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Bounds = prometheus::Histogram::BucketBoundaries;

constexpr size_t kTenants = 100;
constexpr size_t kMethods = 64;
constexpr size_t kCalls = 200;
constexpr size_t kReasons = 20;
constexpr size_t kResources = 8;

// Few, since there is a histogram for each method and code. Streams last as long as they like.
const Bounds& CallBounds() {
  static const auto* const bounds =
      new Bounds{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30};
  return *bounds;
}

// A disk that syncs in a tenth of a millisecond, to one that is all but dead.
const Bounds& CommitBounds() {
  static const auto* const bounds =
      new Bounds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10};
  return *bounds;
}

// The promise is ten seconds where the base is warm; a queue may make it an hour.
const Bounds& RecoveryBounds() {
  static const auto* const bounds =
      new Bounds{0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600};
  return *bounds;
}

const char* CodeName(int code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  return code >= 0 && code < 17 ? kNames[code] : "UNKNOWN";
}

}  // namespace

struct Metrics::Families {
  prometheus::Registry registry;

  prometheus::Gauge& Gauge(const char* name, const char* help) {
    return BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Counter& Counter(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Histogram& Histogram(const char* name, const char* help, const Bounds& bounds) {
    return BuildHistogram().Name(name).Help(help).Register(registry).Add({}, bounds);
  }
  prometheus::Family<prometheus::Gauge>& Gauges(const char* name, const char* help) {
    return BuildGauge().Name(name).Help(help).Register(registry);
  }
  prometheus::Family<prometheus::Counter>& Counters(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Register(registry);
  }

  // The caps, guarded by mu_.
  CappedLabels tenants{kTenants, "other"};
  CappedLabels methods{kMethods, "other"};
  CappedLabels calls{kCalls, ""};
  CappedLabels auth_reasons{kReasons, "other"};
  CappedLabels resources{kResources, "other"};
  // Gauges that were set once and have to be set back.
  std::map<std::string, double> queue_devices_shown;
  std::map<std::pair<std::string, std::string>, double> quota_shown;

  prometheus::Gauge& leader =
      Gauge("tundra_leader", "1 while this process holds the data folder and serves, else 0.");
  prometheus::Family<prometheus::Gauge>& jobs = Gauges("tundra_jobs", "Jobs by state.");
  prometheus::Family<prometheus::Gauge>& workers = Gauges("tundra_workers", "Workers by state.");
  prometheus::Family<prometheus::Gauge>& queue_devices = Gauges(
      "tundra_queue_devices", "Least number of devices that the queued jobs ask for, by tenant.");
  prometheus::Gauge& queue_oldest =
      Gauge("tundra_queue_oldest_seconds", "Age of the oldest queued job, in seconds.");
  prometheus::Gauge& checkpoint_age =
      Gauge("tundra_checkpoint_oldest_age_seconds",
            "Longest time since a running job's last checkpoint, or its start, in seconds.");
  prometheus::Gauge& stalled =
      Gauge("tundra_stalled_jobs", "Running jobs that have made no step for far too long.");
  prometheus::Family<prometheus::Gauge>& quota_used =
      Gauges("tundra_quota_used_ratio",
             "Used part of a tenant's limit: 1 is all, by tenant and resource.");
  prometheus::Family<prometheus::Gauge>& cert_expiry =
      Gauges("tundra_cert_expiry_timestamp_seconds",
             "End of the certificate in use, in seconds since 1970.");
  prometheus::Gauge& volume_size =
      Gauge("tundra_volume_size_bytes", "Bytes of the file system that holds the data folder.");
  prometheus::Gauge& volume_available =
      Gauge("tundra_volume_available_bytes", "Bytes of it that this process may still write.");

  prometheus::Counter& steps =
      Counter("tundra_steps_total", "Optimizer steps that became durable, each once.");
  prometheus::Counter& replayed =
      Counter("tundra_replayed_steps_total",
              "Steps done once more, since a loss came before a checkpoint.");
  prometheus::Family<prometheus::Counter>& tokens =
      Counters("tundra_tokens_total", "Tokens of durable steps, padding left out, by tenant.");
  prometheus::Family<prometheus::Counter>& device_seconds =
      Counters("tundra_device_seconds_total", "Seconds that jobs held devices, by tenant.");
  prometheus::Family<prometheus::Counter>& useful_device_seconds =
      Counters("tundra_useful_device_seconds_total",
               "Seconds that devices spent on steps that became durable, by tenant.");
  prometheus::Family<prometheus::Counter>& failures =
      Counters("tundra_job_failures_total", "Jobs that ended in FAILED, by failure code.");
  prometheus::Counter& fenced = Counter("tundra_fenced_writes_total",
                                        "Reports refused because their attempt was not current.");
  prometheus::Family<prometheus::Counter>& auth_failures =
      Counters("tundra_auth_failures_total", "Calls refused for their credentials, by reason.");

  prometheus::Family<prometheus::Histogram>& rpc =
      BuildHistogram()
          .Name("tundra_rpc_duration_seconds")
          .Help("Seconds from a call's arrival to its end, by method and code.")
          .Register(registry);
  prometheus::Histogram& commit =
      Histogram("tundra_db_commit_duration_seconds",
                "Seconds of a transaction of the store, commit included.", CommitBounds());
  prometheus::Histogram& recovery = Histogram(
      "tundra_recovery_duration_seconds",
      "Seconds from a noticed loss of a rank or worker to the job's next step.", RecoveryBounds());
};

Metrics::Metrics(const std::string& version) : families_(std::make_unique<Families>()) {
  Families& f = *families_;
  f.Gauges("tundra_build_info", "Always 1; the label tells the version.")
      .Add({{"version", version}})
      .Set(1);
  // From zero on, so that the first of each is seen as an increase.
  for (int code = 1; v1::FailureCode_IsValid(code); ++code) {
    f.failures.Add({{"reason", v1::FailureCode_Name(code)}});
  }
}

Metrics::~Metrics() = default;

void Metrics::OnRpc(std::string_view method, int code, absl::Duration took) {
  std::string called;
  std::string name = CodeName(code);
  {
    absl::MutexLock lock(&mu_);
    called = families_->methods.Of(std::string(method));
    if (families_->calls.Of(absl::StrCat(called, " ", name)).empty()) name = "OTHER";
  }
  families_->rpc.Add({{"method", called}, {"code", name}}, CallBounds())
      .Observe(absl::ToDoubleSeconds(took));
}

void Metrics::OnCommit(absl::Duration took) {
  families_->commit.Observe(absl::ToDoubleSeconds(took));
}

void Metrics::OnSteps(const std::string& tenant, int64_t steps, int64_t tokens,
                      double device_seconds) {
  families_->steps.Increment(static_cast<double>(steps));
  absl::MutexLock lock(&mu_);
  const prometheus::Labels label = {{"tenant", families_->tenants.Of(tenant)}};
  families_->tokens.Add(label).Increment(static_cast<double>(tokens));
  families_->useful_device_seconds.Add(label).Increment(device_seconds);
}

void Metrics::OnReplayedSteps(int64_t steps) {
  families_->replayed.Increment(static_cast<double>(steps));
}

void Metrics::OnDeviceSeconds(const std::string& tenant, double seconds) {
  absl::MutexLock lock(&mu_);
  families_->device_seconds.Add({{"tenant", families_->tenants.Of(tenant)}}).Increment(seconds);
}

void Metrics::OnRecovery(absl::Duration took) {
  families_->recovery.Observe(absl::ToDoubleSeconds(took));
}

void Metrics::OnFailure(const std::string& reason) {
  families_->failures.Add({{"reason", reason}}).Increment();
}

void Metrics::OnFencedWrite() { families_->fenced.Increment(); }

void Metrics::OnAuthFailure(std::string_view reason) {
  absl::MutexLock lock(&mu_);
  families_->auth_failures.Add({{"reason", families_->auth_reasons.Of(std::string(reason))}})
      .Increment();
}

void Metrics::SetCertExpiry(absl::Time expiry) {
  families_->cert_expiry.Add({}).Set(absl::ToDoubleSeconds(expiry - absl::UnixEpoch()));
}

// Tenants that share `other` are added in the queue; of their quotas the fullest is shown.
void Metrics::RenderTenants(const GaugeReadings& readings) {
  Families& f = *families_;
  for (auto& [tenant, devices] : f.queue_devices_shown) devices = 0;
  for (const auto& [tenant, devices] : readings.queue_devices) {
    f.queue_devices_shown[f.tenants.Of(tenant)] += devices;
  }
  for (const auto& [tenant, devices] : f.queue_devices_shown) {
    f.queue_devices.Add({{"tenant", tenant}}).Set(devices);
  }
  for (auto& [key, ratio] : f.quota_shown) ratio = 0;
  for (const auto& [key, ratio] : readings.quota_used_ratio) {
    double& shown = f.quota_shown[{f.tenants.Of(key.first), f.resources.Of(key.second)}];
    shown = std::max(shown, ratio);
  }
  for (const auto& [key, ratio] : f.quota_shown) {
    f.quota_used.Add({{"tenant", key.first}, {"resource", key.second}}).Set(ratio);
  }
}

std::string Metrics::Render(const GaugeReadings& readings) {
  Families& f = *families_;
  f.leader.Set(readings.leader ? 1 : 0);
  for (const auto& [state, count] : readings.jobs) f.jobs.Add({{"state", state}}).Set(count);
  for (const auto& [state, count] : readings.workers) f.workers.Add({{"state", state}}).Set(count);
  f.queue_oldest.Set(readings.queue_oldest_seconds);
  f.checkpoint_age.Set(readings.checkpoint_oldest_age_seconds);
  f.stalled.Set(readings.stalled_jobs);
  f.volume_size.Set(readings.volume_size_bytes);
  f.volume_available.Set(readings.volume_available_bytes);
  {
    absl::MutexLock lock(&mu_);
    RenderTenants(readings);
  }
  return prometheus::TextSerializer().Serialize(f.registry.Collect());
}

}  // namespace tundra::coordinator
