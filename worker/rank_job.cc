#include "worker/rank_job.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "common/files.h"
#include "common/interrupt.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra::worker {
namespace {

absl::StatusOr<ScheduleKind> ToSchedule(tundra::v1::LrScheduler scheduler, double warmup_ratio) {
  switch (scheduler) {
    case tundra::v1::CONSTANT:
      // Transformers' "constant" knows no warm-up; here every shape follows it.
      return warmup_ratio > 0 ? ScheduleKind::kConstantWithWarmup : ScheduleKind::kConstant;
    case tundra::v1::LINEAR:
      return ScheduleKind::kLinear;
    case tundra::v1::COSINE:
      return ScheduleKind::kCosine;
    default:
      return absl::InvalidArgumentError("training.lr_scheduler: unknown to this worker");
  }
}

LossOn ToLossOn(tundra::v1::LossOn loss_on) {
  switch (loss_on) {
    case tundra::v1::COMPLETION:
      return LossOn::kCompletion;
    case tundra::v1::ALL:
      return LossOn::kAll;
    default:
      return LossOn::kDefault;
  }
}

std::vector<RowView> ViewsOf(const std::vector<TokenizedRow>& rows) {
  std::vector<RowView> views;
  views.reserve(rows.size());
  for (const TokenizedRow& row : rows) {
    views.push_back({row.ids, row.trained, static_cast<int64_t>(views.size())});
  }
  return views;
}

tundra::v1::FailureCode CodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kFailedPrecondition:
      return tundra::v1::BAD_INPUT;
    case absl::StatusCode::kResourceExhausted:
      return tundra::v1::OUT_OF_MEMORY;
    case absl::StatusCode::kDataLoss:
      return tundra::v1::DIVERGED;
    default:
      return tundra::v1::INTERNAL;
  }
}

}  // namespace

absl::StatusOr<TrainSpec> ToTrainSpec(const tundra::v1::JobSpec& spec) {
  const auto& training = spec.training();
  TrainSpec train;
  train.lora.rank = spec.lora().rank();
  train.lora.alpha = spec.lora().alpha();
  train.lora.dropout = spec.lora().dropout();
  train.lora.use_rslora = spec.lora().use_rslora();
  train.lora.target_modules = {spec.lora().target_modules().begin(),
                               spec.lora().target_modules().end()};
  train.epochs = training.has_epochs() ? training.epochs() : 0;
  train.max_steps = training.has_max_steps() ? training.max_steps() : 0;
  train.batch_size = training.batch_size();
  train.micro_batch_tokens = training.micro_batch_tokens();
  train.max_seq_length = training.max_seq_length();
  train.packing = training.packing();
  train.learning_rate = training.learning_rate();
  ASSIGN_OR_RETURN(train.lr_scheduler,
                   ToSchedule(training.lr_scheduler(), training.warmup_ratio()));
  train.warmup_ratio = training.warmup_ratio();
  train.adamw.weight_decay = training.weight_decay();
  train.max_grad_norm = training.max_grad_norm();
  train.precision = training.precision() == tundra::v1::BF16 ? Precision::kBF16 : Precision::kF32;
  train.seed = static_cast<uint64_t>(training.seed());
  return train;
}

RankJob::RankJob(StartJob start, RankBase* base, Link* link)
    : start_(std::move(start)), base_(base), link_(link), preparing_([this] { Prepare(); }) {}

RankJob::~RankJob() {
  unwanted_ = true;
  preparing_.join();
  if (trainer_ != nullptr) {
    LogDebug("job {}: {} layers were launched as graphs", assignment().job_id(),
             trainer_->model()->graph_launches());
  }
}

void RankJob::Prepare() {
  const InterruptScope scope([this] { return unwanted_.load(); });
  const std::string& pinned = assignment().numerics_class();
  if (!pinned.empty() && pinned != base_->device()->numerics_class()) {
    status_ = absl::FailedPreconditionError(
        absl::StrCat("the job started on ", pinned, " and cannot go on with the same bytes on ",
                     base_->device()->numerics_class()));
  }
  if (status_.ok()) {
    status_ = ReadRows(start_.train_path(), assignment().train(), &train_rows_);
  }
  if (status_.ok() && has_validation()) {
    status_ = ReadRows(start_.validation_path(), assignment().validation(), &validation_rows_);
  }
  prepared_ = true;
}

absl::Status RankJob::ReadRows(const std::string& path, const tundra::v1::BlobRef& blob,
                               std::vector<TokenizedRow>* rows) const {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  DatasetOptions options;
  options.max_seq_length = spec().training().max_seq_length();
  options.truncate = spec().training().truncate();
  options.loss_on = ToLossOn(spec().training().loss_on());
  ASSIGN_OR_RETURN(*rows,
                   TokenizeDataset(file.bytes(), blob.display_name(), base_->text(), options));
  return absl::OkStatus();
}

absl::Status RankJob::BuildTrainer(uint64_t activation_budget_bytes,
                                   std::function<void()> progress) {
  RETURN_IF_ERROR(status_);
  ASSIGN_OR_RETURN(const TrainSpec spec, ToTrainSpec(start_.job().spec()));
  TrainerOptions options;
  options.config = base_->config();
  options.base_hash = base_->setup().base_hash();
  options.base_name = start_.job().spec().base();
  options.ops = base_->ops();
  options.weights = base_->weights();
  options.collective = base_->world();
  options.collective_timeout = base_->timeout();
  options.activation_budget_bytes = activation_budget_bytes;
  options.progress = std::move(progress);
  ASSIGN_OR_RETURN(trainer_,
                   Trainer::Create(options, spec, ViewsOf(train_rows_), ViewsOf(validation_rows_)));
  RETURN_IF_ERROR(Restore());
  writer_ = std::make_unique<CheckpointWriter>(
      trainer_->layout(),
      [this](int64_t step, std::string bytes) { return WriteCheckpoint(step, bytes); });
  return absl::OkStatus();
}

absl::Status RankJob::Restore() {
  if (start_.resume_path().empty()) return absl::OkStatus();
  const absl::Time start = absl::Now();
  const auto restore = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(start_.resume_path()));
    ASSIGN_OR_RETURN(JobState state, DecodeCheckpoint(bytes, start_.resume_path(),
                                                      trainer_->layout(), trainer_->identity()));
    LogInfo("job {}: goes on after step {}", assignment().job_id(), state.step);
    return trainer_->Restore(std::move(state));
  };
  const absl::Status status = restore();
  TellStage("restore", start, !status.ok());
  return status;
}

absl::Status RankJob::SaveCheckpoint() {
  const absl::Time start = absl::Now();
  ASSIGN_OR_RETURN(const JobState* state, trainer_->State());
  ASSIGN_OR_RETURN(AdapterFiles adapter, trainer_->Adapter());
  {
    absl::MutexLock lock(&mu_);
    waiting_[state->step] = {std::move(adapter), absl::Now()};
  }
  const int64_t dropped = writer_->dropped();
  writer_->Submit(*state);
  TellStage("snapshot", start, /*failed=*/false);
  if (writer_->dropped() > dropped) TellStage("queue", start, /*failed=*/true);
  return absl::OkStatus();
}

absl::Status RankJob::WriteCheckpoint(int64_t step, const std::string& bytes) {
  Waiting waiting;
  {
    absl::MutexLock lock(&mu_);
    waiting = std::move(waiting_[step]);
    // Also those of states that the writer gave up.
    waiting_.erase(waiting_.begin(), waiting_.upper_bound(step));
  }
  const AdapterFiles& adapter = waiting.adapter;
  FromRank message;
  message.set_job_id(assignment().job_id());
  message.set_attempt(assignment().attempt());
  CheckpointSaved& saved = *message.mutable_checkpoint();
  saved.set_dir(absl::StrCat(start_.checkpoint_dir(), "/", step));
  const auto write = [&]() -> absl::Status {
    RETURN_IF_ERROR(MakeDirs(saved.dir()));
    RETURN_IF_ERROR(WriteAdapter(saved.dir(), adapter));
    return WriteFileAtomically(saved.dir() + "/state.safetensors", bytes);
  };
  const absl::Status status = write();
  TellStage("write", waiting.since, !status.ok());
  if (!status.ok()) {
    std::error_code ignored;
    std::filesystem::remove_all(saved.dir(), ignored);
    absl::MutexLock lock(&mu_);
    if (write_status_.ok()) write_status_ = status;
    return status;
  }
  auto& report = *saved.mutable_report();
  report.set_step(step);
  report.set_sha256(Sha256Hex(bytes));
  report.set_size_bytes(static_cast<int64_t>(bytes.size()));
  report.set_final(step == trainer_->total_steps());
  for (const auto& [name, content] : {std::pair{"adapter_config.json", &adapter.config},
                                      std::pair{"adapter_model.safetensors", &adapter.model}}) {
    auto& file = *report.add_adapter_files();
    file.set_filename(name);
    file.set_sha256(Sha256Hex(*content));
    file.set_size_bytes(static_cast<int64_t>(content->size()));
  }
  return link_->Send(message);
}

absl::Status RankJob::FlushCheckpoints(absl::Duration timeout) {
  const absl::Status flushed = writer_->Flush(timeout);
  const absl::Status failed = CheckpointStatus();
  return failed.ok() ? flushed : failed;
}

absl::Status RankJob::CheckpointStatus() const {
  absl::MutexLock lock(&mu_);
  return write_status_;
}

void RankJob::TellStage(const char* stage, absl::Time start, bool failed) {
  FromRank message;
  CheckpointStage& told = *message.mutable_figures()->mutable_checkpoint();
  told.set_stage(stage);
  told.set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  told.set_failed(failed);
  link_->Send(message).IgnoreError();
}

void RankJob::Tell(tundra::v1::AttemptPhase phase, const absl::Status& failure,
                   const std::vector<tundra::v1::Sample>& samples) {
  FromRank message;
  message.set_job_id(assignment().job_id());
  message.set_attempt(assignment().attempt());
  auto& report = *message.mutable_job()->mutable_report();
  report.set_phase(phase);
  if (trainer_ != nullptr) {
    report.set_step(trainer_->step());
    report.set_total_steps(trainer_->total_steps());
  }
  if (!failure.ok()) {
    report.mutable_failure()->set_code(CodeOf(failure));
    report.mutable_failure()->set_message(std::string(failure.message()));
  }
  for (const auto& sample : samples) *report.add_samples() = sample;
  const absl::Status sent = link_->Send(message);
  if (!sent.ok()) LogWarning("job {}: {}", assignment().job_id(), sent.ToString());
}

void RankJob::TellMetrics(const tundra::v1::StepMetrics& metrics) {
  FromRank message;
  message.set_job_id(assignment().job_id());
  message.set_attempt(assignment().attempt());
  *message.mutable_metrics() = metrics;
  const absl::Status sent = link_->Send(message);
  if (!sent.ok()) LogWarning("job {}: {}", assignment().job_id(), sent.ToString());
}

}  // namespace tundra::worker
