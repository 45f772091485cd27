#include "coordinator/workers/job_reports.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/blobs/garbage.h"
#include "coordinator/store/job_state.h"
#include "coordinator/workers/apply.h"

namespace tundra::coordinator {
namespace {

constexpr int kMaxMetricsPerReport = 1000;
// Weight of the newest step in the smoothed time of a step.
constexpr double kSmoothing = 0.1;

// Far more than a step can have or take. Sums of these overflow nothing, and times are in the range
// of their types in JSON.
constexpr int64_t kMostTokens = int64_t{1} << 40;
constexpr int64_t kMostBytes = int64_t{1} << 60;
constexpr double kMostStepSeconds = 1e8;
constexpr int64_t kMostUnixSeconds = 253'402'300'799;  // the year 9999

// Figures of a step that somebody may add up or show. Losses and norms may be anything.
bool AreInRange(const v1::StepMetrics& m) {
  const auto in = [](int64_t value, int64_t most) { return value >= 0 && value <= most; };
  return in(m.tokens(), kMostTokens) && in(m.target_tokens(), kMostTokens) && m.redone() >= 0 &&
         in(m.allreduce_bytes(), kMostBytes) && in(m.redone_allreduce_bytes(), kMostBytes) &&
         m.step_seconds() >= 0 && m.step_seconds() <= kMostStepSeconds &&
         in(m.time().seconds(), kMostUnixSeconds) && in(m.time().nanos(), 999'999'999);
}

// One report, inside its transaction.
class ReportApplier {
 public:
  // `delivered` says of a blob whether the reporting worker has sent it.
  ReportApplier(Txn& txn, BlobStore& blobs, std::function<bool(const BlobId&)> delivered,
                const v1::JobReport& report, JobDraft draft, const GroupRecord& group,
                JobReportResult& result)
      : txn_(txn),
        blobs_(blobs),
        delivered_(std::move(delivered)),
        report_(report),
        draft_(std::move(draft)),
        devices_(static_cast<double>(group.members.size())),
        result_(result) {
    result_.tenant = draft_.record().tenant.value;
    result_.resume_step = std::max<int64_t>(0, group.resume_step);
    result_.seen_step = draft_.record().attempt_start_step;
    result_.attempt_step = report.step();
    for (const v1::StepMetrics& m : report.metrics()) {
      result_.attempt_step = std::max(result_.attempt_step, m.step());
    }
  }

  absl::Status Run() {
    const v1::JobState before = draft_.state();
    RETURN_IF_ERROR(Metrics());
    RETURN_IF_ERROR(Checkpoints());
    Samples();
    RETURN_IF_ERROR(Phase());
    RETURN_IF_ERROR(Acknowledge());
    result_.state = draft_.state();
    result_.moved = draft_.state() != before;
    result_.changed |= result_.moved;
    if (!result_.changed) return absl::OkStatus();
    UpdateTimeLeft();
    return txn_.SaveJob(draft_);
  }

 private:
  absl::Status Metrics() {
    if (report_.metrics().empty()) return absl::OkStatus();
    std::vector<v1::StepMetrics> fresh;
    v1::Job& job = draft_.job();
    for (const v1::StepMetrics& m : report_.metrics()) {
      if (m.step() < 0 || m.step() > job.total_steps()) {
        return absl::InvalidArgumentError(
            absl::StrCat("metrics of step ", m.step(), " of ", job.total_steps()));
      }
      if (!AreInRange(m)) {
        return absl::InvalidArgumentError(
            absl::StrCat("metrics of step ", m.step(), " are out of range"));
      }
      fresh.push_back(m);
    }
    ASSIGN_OR_RETURN(const int stored, txn_.AppendMetrics(draft_, fresh));
    if (stored == 0) return absl::OkStatus();
    result_.changed = true;
    for (const v1::StepMetrics& m : fresh) TakeFigures(m);
    return absl::OkStatus();
  }

  void TakeFigures(const v1::StepMetrics& m) {
    v1::Job& job = draft_.job();
    if (m.step() == 0) {
      if (m.has_validation_loss()) job.set_initial_validation_loss(m.validation_loss());
    } else if (m.step() > job.step()) {
      job.set_step(m.step());
      if (m.has_train_loss()) job.set_train_loss(m.train_loss());
      double& seconds = draft_.record().step_seconds;
      seconds = seconds == 0 ? m.step_seconds()
                             : (1 - kSmoothing) * seconds + kSmoothing * m.step_seconds();
      ++result_.new_steps;
      result_.new_tokens += m.tokens();
      result_.new_device_seconds += devices_ * m.step_seconds();
    }
    if (m.has_validation_loss() && m.step() >= job.step()) {
      job.set_validation_loss(m.validation_loss());
    }
  }

  // Stores those whose blobs are all here, oldest first.
  absl::Status Checkpoints() {
    std::vector<const v1::CheckpointReport*> reports;
    for (const v1::CheckpointReport& c : report_.checkpoints()) reports.push_back(&c);
    std::sort(reports.begin(), reports.end(),
              [](const auto* a, const auto* b) { return a->step() < b->step(); });
    for (const v1::CheckpointReport* const c : reports) {
      if (c->step() < 0 || c->step() > draft_.job().total_steps()) {
        return absl::InvalidArgumentError(absl::StrCat("a checkpoint of step ", c->step()));
      }
      if (IsStored(*c)) continue;
      ASSIGN_OR_RETURN(const bool complete, RecordBlobs(*c));
      if (!complete) return absl::OkStatus();  // nor is any after it, in order
      RETURN_IF_ERROR(StoreCheckpoint(*c));
    }
    return absl::OkStatus();
  }

  // It came before, with all its files.
  bool IsStored(const v1::CheckpointReport& c) {
    const absl::StatusOr<CheckpointRecord> there = txn_.GetCheckpoint(draft_.record(), c.step());
    if (!there.ok() || there->checkpoint.sha256() != c.sha256() || there->final != c.final()) {
      return false;
    }
    const auto& files = there->checkpoint.adapter().files();
    return std::equal(files.begin(), files.end(), c.adapter_files().begin(),
                      c.adapter_files().end(),
                      [](const v1::AdapterFile& a, const v1::AdapterFile& b) {
                        return a.filename() == b.filename() && a.sha256() == b.sha256();
                      });
  }

  absl::StatusOr<bool> RecordBlobs(const v1::CheckpointReport& c) {
    std::vector<std::string> names = {c.sha256()};
    for (const v1::AdapterFile& file : c.adapter_files()) names.push_back(file.sha256());
    bool complete = true;
    for (const std::string& name : names) {
      // One that is here and that somebody else has sent is as one that is not.
      const absl::Status status = delivered_({name})
                                      ? RecordBlob(txn_, blobs_, {name}, draft_.now())
                                      : absl::NotFoundError("not sent by this worker");
      if (absl::IsNotFound(status)) {
        result_.missing_blobs.push_back(name);
        complete = false;
      } else {
        RETURN_IF_ERROR(status);
      }
    }
    return complete;
  }

  absl::Status StoreCheckpoint(const v1::CheckpointReport& c) {
    const JobRecord& record = draft_.record();
    const absl::StatusOr<CheckpointRecord> there = txn_.GetCheckpoint(record, c.step());
    if (there.ok() && there->checkpoint.sha256() == c.sha256() && there->final == c.final()) {
      return absl::OkStatus();
    }
    // One that `keep` has removed already comes again only in a late repetition.
    ASSIGN_OR_RETURN(const std::vector<CheckpointRecord> newer,
                     txn_.ListCheckpoints(record, INT64_MAX, Keep()));
    if (!c.final() && newer.size() == static_cast<size_t>(Keep()) &&
        newer.back().checkpoint.step() > c.step()) {
      return absl::OkStatus();
    }
    CheckpointRecord checkpoint;
    checkpoint.final = c.final();
    v1::Checkpoint& proto = checkpoint.checkpoint;
    proto.set_name(absl::StrCat("jobs/", record.id.value, "/checkpoints/", c.step()));
    proto.set_step(c.step());
    proto.set_attempt(report_.attempt());
    proto.set_sha256(c.sha256());
    proto.set_size_bytes(c.size_bytes());
    *proto.mutable_create_time() = ToProto(draft_.now());
    proto.mutable_adapter()->set_name(proto.name());
    proto.mutable_adapter()->set_step(c.step());
    *proto.mutable_adapter()->mutable_files() = c.adapter_files();
    RETURN_IF_ERROR(txn_.PutCheckpoint(record, checkpoint));
    result_.changed = true;
    if (c.step() > draft_.job().step()) draft_.job().set_step(c.step());
    return Prune();
  }

  int32_t Keep() { return std::max(1, draft_.job().spec().checkpoint().keep()); }

  absl::Status Prune() {
    ASSIGN_OR_RETURN(const std::vector<CheckpointRecord> all,
                     txn_.ListCheckpoints(draft_.record(), INT64_MAX, 10'000));
    for (size_t i = static_cast<size_t>(Keep()); i < all.size(); ++i) {
      if (all[i].final) continue;
      RETURN_IF_ERROR(txn_.DeleteCheckpoint(draft_.record(), all[i].checkpoint.step()));
    }
    return absl::OkStatus();
  }

  void Samples() {
    if (report_.samples().empty()) return;
    v1::Job& job = draft_.job();
    std::string stored, reported;
    for (const v1::Sample& s : job.samples()) stored += s.SerializeAsString();
    for (const v1::Sample& s : report_.samples()) reported += s.SerializeAsString();
    if (stored != reported) {
      *job.mutable_samples() = report_.samples();
      result_.changed = true;
    }
    result_.ack.set_samples(true);
  }

  absl::Status Phase() {
    const v1::JobState state = draft_.state();
    switch (report_.phase()) {
      case v1::TRAINING:
        if (state != v1::STARTING) return absl::OkStatus();
        return draft_.Move(v1::RUNNING, "Trains");
      case v1::FINISHED:
        return Finished();
      case v1::STOPPED:
        if (state != v1::STARTING && state != v1::RUNNING) return Leave("Stopped");
        if (report_.has_failure()) return PauseForSystem();
        RETURN_IF_ERROR(draft_.Move(v1::PREEMPTING, "Its worker stopped it", /*warning=*/true));
        return Leave("In the queue again");
      case v1::ATTEMPT_FAILED:
        return Failed();
      default:
        return absl::OkStatus();
    }
  }

  absl::Status Finished() {
    // Its last metrics come in reports of their own.
    if (report_.metrics_size() >= kMaxMetricsPerReport) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::vector<CheckpointRecord> latest,
                     txn_.ListCheckpoints(draft_.record(), INT64_MAX, 1));
    if (latest.empty() || !latest[0].final) return absl::OkStatus();
    const v1::JobState state = draft_.state();
    if (state != v1::STARTING && state != v1::RUNNING) return Leave("Stopped after its last step");
    if (state == v1::STARTING) RETURN_IF_ERROR(draft_.Move(v1::RUNNING, "Trains"));
    *draft_.job().mutable_adapter() = latest[0].checkpoint.adapter();
    draft_.job().mutable_adapter()->set_name(
        absl::StrCat("jobs/", draft_.record().id.value, "/adapter"));
    return End(v1::SUCCEEDED, absl::StrCat("Succeeded after ", draft_.job().step(), " steps"));
  }

  absl::Status Failed() {
    const v1::JobState state = draft_.state();
    v1::Failure failure = report_.failure();
    if (failure.code() == v1::FAILURE_CODE_UNSPECIFIED) failure.set_code(v1::INTERNAL);
    if (state != v1::STARTING && state != v1::RUNNING) {
      return Leave(absl::StrCat("Stopped at its last checkpoint: ", failure.message()),
                   /*warning=*/true);
    }
    *draft_.job().mutable_failure() = failure;
    result_.failed = failure.code();
    return End(v1::FAILED, absl::StrCat("Failed: ", failure.message()), /*warning=*/true);
  }

  // Its worker cannot go on for a reason that is not the job's (a full disk): the
  // job keeps what it has and waits for a person.
  absl::Status PauseForSystem() {
    const std::string reason = report_.failure().message();
    RETURN_IF_ERROR(draft_.Move(v1::PAUSING, "Its worker cannot go on: " + reason, true));
    RETURN_IF_ERROR(End(v1::PAUSED, "Paused; mend that, then resume it", /*warning=*/true));
    draft_.job().set_paused_by(v1::SYSTEM);
    // A wish to cancel that came first stays: the controller carries it out.
    if (draft_.job().desired_state() == v1::RUN) draft_.job().set_desired_state(v1::PAUSE);
    return absl::OkStatus();
  }

  // To where a job goes that was asked to stop.
  absl::Status Leave(const std::string& message, bool warning = false) {
    switch (draft_.state()) {
      case v1::PAUSING:
        RETURN_IF_ERROR(End(v1::PAUSED, message, warning));
        draft_.job().set_paused_by(v1::USER);
        return absl::OkStatus();
      case v1::PREEMPTING:
        return End(v1::QUEUED, message, warning);
      default:
        return End(v1::CANCELLED, message, warning);
    }
  }

  absl::Status End(v1::JobState state, const std::string& message, bool warning = false) {
    const GroupId group = draft_.record().group;
    RETURN_IF_ERROR(draft_.Move(state, message, warning));
    result_.ack.set_done(true);
    return FreeGroup(txn_, group, draft_.record().id);
  }

  // All of what is stored, not only of this report: the worker may have missed
  // an acknowledgement.
  absl::Status Acknowledge() {
    ASSIGN_OR_RETURN(const std::optional<int64_t> step, txn_.LastMetricsStep(draft_.record()));
    if (step.has_value()) result_.ack.set_metrics_step(*step);
    ASSIGN_OR_RETURN(const int64_t checkpoint, LatestCheckpointStep(txn_, draft_.record()));
    if (checkpoint >= 0) result_.ack.set_checkpoint_step(checkpoint);
    return absl::OkStatus();
  }

  void UpdateTimeLeft() {
    v1::Job& job = draft_.job();
    job.clear_time_left();
    if (job.state() != v1::RUNNING || draft_.record().step_seconds <= 0) return;
    const double seconds =
        draft_.record().step_seconds * static_cast<double>(job.total_steps() - job.step());
    *job.mutable_time_left() = ToProto(absl::Seconds(seconds));
  }

  Txn& txn_;
  BlobStore& blobs_;
  const std::function<bool(const BlobId&)> delivered_;
  const v1::JobReport& report_;
  JobDraft draft_;
  const double devices_;
  JobReportResult& result_;
};

// A report of a failure and nothing else.
bool CannotTakePart(const v1::JobReport& report) {
  return report.has_failure() &&
         (report.phase() == v1::ATTEMPT_FAILED || report.phase() == v1::STOPPED) &&
         report.metrics().empty() && report.checkpoints().empty() && report.samples().empty();
}

// The job's group if the report comes from the holder of rank 0 of the present attempt, or from
// another of its workers that cannot take part, which its leader has no way to know; else none.
absl::StatusOr<std::optional<GroupRecord>> PassFence(Txn& txn, const JobDraft& draft,
                                                     const WorkerId& worker,
                                                     const v1::JobReport& report) {
  if (!draft.Check({report.attempt(), report.epoch()}).ok()) return std::nullopt;
  absl::StatusOr<GroupRecord> group = FindGroup(txn, draft.record().group);
  if (absl::IsNotFound(group.status())) return std::nullopt;
  RETURN_IF_ERROR(group.status());
  if (group->members.empty()) return std::nullopt;
  if (group->members[0].worker == worker) return *std::move(group);
  const bool member = std::any_of(group->members.begin(), group->members.end(),
                                  [&](const auto& m) { return m.worker == worker; });
  if (!member || !CannotTakePart(report)) return std::nullopt;
  return *std::move(group);
}

}  // namespace

absl::StatusOr<JobReportResult> ApplyJobReport(Store& store, BlobStore& blobs,
                                               const DeliveredBlobs& delivered,
                                               const WorkerId& worker, const v1::JobReport& report,
                                               absl::Time now) {
  JobReportResult result;
  for (const v1::CheckpointReport& c : report.checkpoints()) {
    bool named = IsSha256Hex(c.sha256());
    for (const v1::AdapterFile& file : c.adapter_files()) named &= IsSha256Hex(file.sha256());
    if (!named) return absl::InvalidArgumentError("a checkpoint without SHA-256 names");
  }
  RETURN_IF_ERROR(store.Write([&](Txn& txn) -> absl::Status {
    result = {};
    result.ack.set_job_id(report.job_id());
    result.ack.set_attempt(report.attempt());
    absl::StatusOr<JobRecord> record = txn.GetJob({report.job_id()});
    if (!record.ok() && !absl::IsNotFound(record.status())) return record.status();
    if (record.ok()) {
      JobDraft draft(*std::move(record), now);
      ASSIGN_OR_RETURN(const std::optional<GroupRecord> group,
                       PassFence(txn, draft, worker, report));
      if (group.has_value()) {
        const auto sent = [&](const BlobId& blob) { return delivered.Has(worker, blob); };
        return ReportApplier(txn, blobs, sent, report, std::move(draft), *group, result).Run();
      }
      // A repetition of what ended this very attempt is no intrusion: its
      // acknowledgement was lost.
      result.fenced = draft.job().attempt() != report.attempt() || IsPlaced(draft.state());
    }
    result.ack.set_done(true);
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace tundra::coordinator
