#include "worker/worker_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "common/version.h"

namespace tundra::worker {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Bounds = prometheus::Histogram::BucketBoundaries;

// A step of a tiny model on a CPU takes milliseconds, of a large one a minute.
const Bounds& StepBounds() {
  static const auto* const bounds =
      new Bounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
  return *bounds;
}

// Between cards of one machine to a group that waits for its slowest rank.
const Bounds& NetworkBounds() {
  static const auto* const bounds =
      new Bounds{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                 0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};
  return *bounds;
}

// Files of a megabyte to some gigabytes, over disks and networks of all kinds.
const Bounds& CheckpointBounds() {
  static const auto* const bounds =
      new Bounds{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
  return *bounds;
}

// The promise is a step and a second.
const Bounds& PreemptionBounds() {
  static const auto* const bounds =
      new Bounds{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
  return *bounds;
}

}  // namespace

struct WorkerMetrics::Families {
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

  prometheus::Gauge& connected =
      Gauge("tundra_worker_connected", "1 while the session with the coordinator is open, else 0.");
  prometheus::Family<prometheus::Gauge>& ranks = BuildGauge()
                                                     .Name("tundra_worker_ranks")
                                                     .Help("Rank processes of this worker.")
                                                     .Register(registry);
  prometheus::Gauge& base_resident =
      Gauge("tundra_base_resident_bytes", "Bytes of base slices that ranks keep.");
  prometheus::Family<prometheus::Gauge>& device_memory =
      BuildGauge()
          .Name("tundra_device_memory_bytes")
          .Help("Bytes of device memory: of bases by what they are kept for, and in total.")
          .Register(registry);
  prometheus::Gauge& volume_size =
      Gauge("tundra_volume_size_bytes", "Bytes of the file system that holds the data folder.");
  prometheus::Gauge& volume_available =
      Gauge("tundra_volume_available_bytes", "Bytes of it that this process may still write.");
  prometheus::Family<prometheus::Gauge>& cert_expiry =
      BuildGauge()
          .Name("tundra_cert_expiry_timestamp_seconds")
          .Help("End of the certificate in use, in seconds since 1970.")
          .Register(registry);

  prometheus::Counter& steps = Counter(
      "tundra_steps_total", "Optimizer steps led by this worker, those done anew included.");
  prometheus::Counter& tokens =
      Counter("tundra_tokens_total", "Tokens of these steps, padding left out.");
  prometheus::Counter& nonfinite =
      Counter("tundra_nonfinite_steps_total", "Steps skipped for gradients that were not finite.");
  prometheus::Counter& allreduce =
      Counter("tundra_allreduce_bytes_total",
              "Bytes that rank 0 gave to the all-reduce of gradients, redone passes left out.");
  prometheus::Counter& redone_allreduce =
      Counter("tundra_redone_allreduce_bytes_total",
              "Bytes that rank 0 gave to the all-reduce in passes that were redone.");
  prometheus::Counter& gather =
      Counter("tundra_gather_bytes_total",
              "Bytes of base slices that this worker's ranks received from other ranks.");
  prometheus::Family<prometheus::Counter>& aborts =
      BuildCounter()
          .Name("tundra_collective_aborts_total")
          .Help("Ranks of this worker that left a group whose collective broke, by reason.")
          .Register(registry);
  prometheus::Family<prometheus::Counter>& checkpoint_failures =
      BuildCounter()
          .Name("tundra_checkpoint_failures_total")
          .Help("Checkpoints that were lost or refused, by stage.")
          .Register(registry);

  prometheus::Family<prometheus::Histogram>& step_phases =
      BuildHistogram()
          .Name("tundra_step_duration_seconds")
          .Help("Seconds of a step on one rank, by phase.")
          .Register(registry);
  prometheus::Histogram& allreduce_seconds = Histogram(
      "tundra_allreduce_duration_seconds",
      "Seconds of a step inside reductions, on one rank of a group of several.", NetworkBounds());
  prometheus::Histogram& gather_wait = Histogram(
      "tundra_gather_wait_seconds",
      "Seconds of a step spent waiting for slices from other ranks, on one rank.", NetworkBounds());
  prometheus::Family<prometheus::Histogram>& checkpoint_seconds =
      BuildHistogram()
          .Name("tundra_checkpoint_duration_seconds")
          .Help("Seconds of a checkpoint, by stage.")
          .Register(registry);
  prometheus::Histogram& preemption =
      Histogram("tundra_preemption_duration_seconds",
                "Seconds from the wish to pause a job that runs to its state being on disk.",
                PreemptionBounds());
};

WorkerMetrics::WorkerMetrics() : families_(std::make_unique<Families>()) {
  Families& f = *families_;
  BuildGauge()
      .Name("tundra_build_info")
      .Help("Always 1; the label tells the version.")
      .Register(f.registry)
      .Add({{"version", ProgramVersion()}})
      .Set(1);
  // From zero on, so that the first of each is seen as an increase.
  for (const char* reason :
       {"timeout", "peer_lost", "next_epoch", "disagreement", "connect", "hang", "other"}) {
    f.aborts.Add({{"reason", reason}});
  }
  for (const char* stage : {"queue", "write", "upload", "restore"}) {
    f.checkpoint_failures.Add({{"stage", stage}});
  }
  for (const char* stage : {"snapshot", "write", "upload", "restore"}) {
    f.checkpoint_seconds.Add({{"stage", stage}}, CheckpointBounds());
  }
  for (const char* phase : {"forward_backward", "weights_wait", "allreduce", "update"}) {
    f.step_phases.Add({{"phase", phase}}, StepBounds());
  }
}

WorkerMetrics::~WorkerMetrics() = default;

void WorkerMetrics::OnLedStep(const tundra::v1::StepMetrics& step) {
  Families& f = *families_;
  if (step.step() > 0) f.steps.Increment();
  f.tokens.Increment(static_cast<double>(step.tokens()));
  f.allreduce.Increment(static_cast<double>(step.allreduce_bytes()));
  f.redone_allreduce.Increment(static_cast<double>(step.redone_allreduce_bytes()));
  if (step.non_finite()) f.nonfinite.Increment();
}

void WorkerMetrics::OnFigures(const RankFigures& figures) {
  if (figures.has_checkpoint()) {
    const CheckpointStage& stage = figures.checkpoint();
    OnCheckpoint(stage.stage(), absl::Seconds(stage.seconds()), stage.failed());
  }
  if (figures.diverged()) families_->nonfinite.Increment();
  if (!figures.has_step()) return;
  const StepFigures& step = figures.step();
  const auto phase = [&](const char* name, double seconds) {
    families_->step_phases.Add({{"phase", name}}, StepBounds()).Observe(seconds);
  };
  phase("forward_backward", step.forward_backward_seconds());
  phase("weights_wait", step.weights_wait_seconds());
  phase("allreduce", step.allreduce_seconds());
  phase("update", step.update_seconds());
  if (step.has_collective_seconds()) {
    families_->allreduce_seconds.Observe(step.collective_seconds());
  }
  if (step.has_gather_wait_seconds()) families_->gather_wait.Observe(step.gather_wait_seconds());
  families_->gather.Increment(static_cast<double>(step.gather_bytes()));
}

void WorkerMetrics::OnCheckpoint(const std::string& stage, absl::Duration took, bool failed) {
  if (failed) {
    families_->checkpoint_failures.Add({{"stage", stage}}).Increment();
  } else {
    families_->checkpoint_seconds.Add({{"stage", stage}}, CheckpointBounds())
        .Observe(absl::ToDoubleSeconds(took));
  }
}

void WorkerMetrics::OnCollectiveAbort(const std::string& reason) {
  families_->aborts.Add({{"reason", reason}}).Increment();
}

void WorkerMetrics::OnPreemption(absl::Duration took) {
  families_->preemption.Observe(absl::ToDoubleSeconds(took));
}

void WorkerMetrics::SetCertExpiry(absl::Time expiry) {
  families_->cert_expiry.Add({}).Set(absl::ToDoubleSeconds(expiry - absl::UnixEpoch()));
}

std::string WorkerMetrics::Render(const WorkerReadings& readings) {
  Families& f = *families_;
  f.connected.Set(readings.connected ? 1 : 0);
  f.ranks.Add({{"state", "ready"}}).Set(readings.ranks_ready);
  f.ranks.Add({{"state", "lost"}}).Set(readings.ranks_lost);
  const auto memory = [&](const char* kind, int64_t bytes) {
    f.device_memory.Add({{"kind", kind}}).Set(static_cast<double>(bytes));
  };
  f.base_resident.Set(static_cast<double>(readings.resident_shard_bytes));
  memory("base_slices", readings.resident_shard_bytes);
  memory("gathered_units", readings.gathered_buffer_bytes);
  memory("prepared_weights", readings.prepared_bytes);
  memory("total", readings.device_total_bytes);
  f.volume_size.Set(readings.volume_size_bytes);
  f.volume_available.Set(readings.volume_available_bytes);
  return prometheus::TextSerializer().Serialize(f.registry.Collect());
}

}  // namespace tundra::worker
