#include "worker/rank_loop.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/logging.h"
#include "common/status.h"

namespace tundra::worker {
namespace {

constexpr int64_t kMaxPayload = int64_t{2} << 30;
// A prompt may come with an adapter; a collective takes less than that from the host at once.
constexpr size_t kPayloadPiece = size_t{16} << 20;

std::span<std::byte> Bytes(void* data, size_t size) {
  return {static_cast<std::byte*>(data), size};
}

}  // namespace

absl::Status RankLoop::Run() {
  ReportState();
  return base_->rank() == 0 ? Lead() : Follow();
}

absl::Status RankLoop::Follow() {
  while (true) {
    Header header;
    RETURN_IF_ERROR(base_->world()->Broadcast(Bytes(&header, sizeof(header)), 0, OnHost()));
    if (header.payload_bytes < 0 || header.payload_bytes > kMaxPayload) {
      return absl::InternalError("a damaged header from rank 0");
    }
    std::string payload(static_cast<size_t>(header.payload_bytes), '\0');
    RETURN_IF_ERROR(Share(payload));
    if (header.action == Action::kQuit) return absl::OkStatus();
    RETURN_IF_ERROR(Execute(header.action, payload));
  }
}

CallOptions RankLoop::OnHost() const { return {.timeout = base_->timeout(), .on_host = true}; }

absl::Status RankLoop::Share(std::string& payload) {
  for (size_t at = 0; at < payload.size(); at += kPayloadPiece) {
    const size_t bytes = std::min(kPayloadPiece, payload.size() - at);
    RETURN_IF_ERROR(base_->world()->Broadcast(Bytes(payload.data() + at, bytes), 0, OnHost()));
  }
  return absl::OkStatus();
}

absl::Status RankLoop::Issue(Action action, const std::string& payload) {
  Header header{action, 0, static_cast<int64_t>(payload.size())};
  RETURN_IF_ERROR(base_->world()->Broadcast(Bytes(&header, sizeof(header)), 0, OnHost()));
  std::string copy = payload;
  RETURN_IF_ERROR(Share(copy));
  return Execute(action, payload);
}

absl::Status RankLoop::Execute(Action action, const std::string& payload) {
  // Another kind of work is told at once, since it may take long; one step of many is not.
  if (action != last_action_) last_heartbeat_ = absl::InfinitePast();
  last_action_ = action;
  switch (action) {
    case Action::kIdle:
      Heartbeat("waiting for work");
      return absl::OkStatus();
    case Action::kPoll:
      Heartbeat("preparing a job");
      return Poll(payload);
    case Action::kBegin:
      Heartbeat("starting a job");
      return Begin();
    case Action::kStep:
      Heartbeat(absl::StrCat("computing step ", job_->trainer()->step() + 1));
      return Step();
    case Action::kEvaluate: {
      Heartbeat("computing the validation loss");
      auto evaluation = job_->trainer()->Evaluate();
      if (!evaluation.ok()) return Classify(evaluation.status());
      outcome_.evaluation = *evaluation;
      return absl::OkStatus();
    }
    case Action::kSamples:
      Heartbeat("answering the samples");
      return Samples();
    case Action::kEnd:
      job_.reset();
      training_ = false;
      RETURN_IF_ERROR(base_->VerifyShard());
      ReportState();
      return absl::OkStatus();
    case Action::kGenerate:
      Heartbeat("answering a prompt");
      return GenerateText(payload);
    case Action::kQuit:
      return absl::OkStatus();
  }
  return absl::InternalError("an action this rank does not know");
}

absl::Status RankLoop::Step() {
  const double before = base_->world()->stats().reduce_seconds;
  auto step = job_->trainer()->RunStep();
  if (absl::IsDataLoss(step.status()) && base_->rank() == 0) {
    FromRank message;
    message.mutable_figures()->set_diverged(true);
    link_->Send(message).IgnoreError();
  }
  if (!step.ok()) return Classify(step.status());
  TellFigures(*step, base_->world()->stats().reduce_seconds - before);
  outcome_.step = *step;
  return absl::OkStatus();
}

void RankLoop::TellFigures(const StepMetrics& step, double collective_seconds) {
  FromRank message;
  StepFigures& figures = *message.mutable_figures()->mutable_step();
  // The trainer's time of computing has the waiting in it.
  figures.set_forward_backward_seconds(
      std::max(0.0, step.compute_seconds - step.weights_wait_seconds));
  figures.set_weights_wait_seconds(step.weights_wait_seconds);
  figures.set_allreduce_seconds(step.reduce_seconds);
  figures.set_update_seconds(step.update_seconds);
  if (base_->setup().size() > 1) figures.set_collective_seconds(collective_seconds);
  if (base_->network_gather()) {
    figures.set_gather_wait_seconds(step.weights_wait_seconds);
    const uint64_t bytes = base_->weights()->stats().gather_bytes;
    figures.set_gather_bytes(static_cast<int64_t>(bytes - told_gather_bytes_));
    told_gather_bytes_ = bytes;
  }
  link_->Send(message).IgnoreError();
}

absl::StatusOr<int> RankLoop::Agree(int flag) {
  std::array<float, 1> values{static_cast<float>(flag)};
  RETURN_IF_ERROR(base_->world()->AllReduceMax(std::span<float>(values), OnHost()));
  return static_cast<int>(values[0]);
}

absl::Status RankLoop::Classify(const absl::Status& status) {
  // "Diverged" is decided from reduced figures, so every rank returns it together.
  if (absl::IsDataLoss(status) && base_->world()->status().ok()) {
    outcome_.job_error = status;
    return absl::OkStatus();
  }
  return status;
}

absl::Status RankLoop::Poll(const std::string& payload) {
  JobName name;
  if (!name.ParseFromString(payload)) return absl::InternalError("a damaged payload from rank 0");
  if (job_ == nullptr || !job_->Is(name.job_id(), name.attempt())) {
    if (auto start = inbox_->TakeStart()) {
      job_ = std::make_unique<RankJob>(*std::move(start), base_, link_);
    }
  }
  int flag = 1;
  if (job_ != nullptr && job_->Is(name.job_id(), name.attempt()) && job_->prepared()) {
    flag = job_->status().ok() ? 0 : 2;
  }
  ASSIGN_OR_RETURN(outcome_.not_ready, Agree(flag));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> RankLoop::AgreeOnBudget() {
  // What ranks share is divided; a fifth stays free for what the plan does not count. The least
  // of all, since ranks that gather together must recompute alike.
  const double available = static_cast<double>(base_->device()->available_bytes());
  std::array<double, 1> values{-0.8 * available / std::max(1, base_->setup().memory_sharers())};
  RETURN_IF_ERROR(base_->world()->AllReduceMax(std::span<double>(values), OnHost()));
  return static_cast<uint64_t>(std::max(1.0, -values[0]));
}

absl::Status RankLoop::Begin() {
  ASSIGN_OR_RETURN(const uint64_t budget, AgreeOnBudget());
  const absl::Status built = job_->BuildTrainer(budget, [this] { Heartbeat(doing_); });
  if (!built.ok()) LogError("job {}: {}", job_->assignment().job_id(), built.ToString());
  ASSIGN_OR_RETURN(const int failed, Agree(built.ok() ? 0 : 1));
  outcome_.begun = failed == 0;
  outcome_.job_error = built;
  if (failed != 0 && built.ok()) {
    outcome_.job_error = absl::InternalError("another rank could not start the job; see its log");
  }
  return absl::OkStatus();
}

bool RankLoop::KeepGoing(bool wanted) {
  if (base_->setup().size() == 1) return wanted;
  if (!base_->network_gather()) {
    // The others are in Follow: an idle header keeps them from timing out.
    return Issue(Action::kIdle).ok() && wanted;
  }
  int32_t go_on = wanted ? 1 : 0;
  const absl::Status status = base_->world()->Broadcast(Bytes(&go_on, sizeof(go_on)), 0, OnHost());
  Heartbeat("making text");
  return status.ok() && go_on == 1;
}

absl::StatusOr<std::string> RankLoop::Answer(const std::string& prompt,
                                             const AdapterView& adapter) {
  std::string answer;
  Prompt request;
  request.text = prompt;
  request.max_tokens = job_->spec().eval().sample_max_tokens();
  if (request.max_tokens < 1) request.max_tokens = 64;
  const auto reason = generator_.Run(request, adapter, [&](const std::string& text, int) {
    answer += text;
    return KeepGoing(true);
  });
  RETURN_IF_ERROR(base_->world()->status());
  RETURN_IF_ERROR(reason.status());
  return answer;
}

absl::Status RankLoop::Samples() {
  outcome_.samples.clear();
  if (base_->rank() != 0 && !base_->network_gather()) return absl::OkStatus();
  const AdapterView adapter = job_->trainer()->DeviceAdapter();
  for (const std::string& prompt : job_->spec().eval().samples()) {
    tundra::v1::Sample sample;
    sample.set_prompt(prompt);
    for (const bool trained : {false, true}) {
      auto answer = Answer(prompt, trained ? adapter : AdapterView{});
      RETURN_IF_ERROR(base_->world()->status());
      // A prompt that cannot be answered is told as such; the job is not at fault.
      std::string text =
          answer.ok() ? *answer : absl::StrCat("(no answer: ", answer.status().message(), ")");
      (trained ? *sample.mutable_after() : *sample.mutable_before()) = std::move(text);
    }
    outcome_.samples.push_back(std::move(sample));
  }
  return absl::OkStatus();
}

absl::Status RankLoop::GenerateText(const std::string& payload) {
  const bool leads = base_->rank() == 0;
  if (!leads && !base_->network_gather()) return absl::OkStatus();
  GroupGenerate task;
  if (!task.ParseFromString(payload)) return absl::InternalError("a damaged payload from rank 0");
  FromRank message;
  tundra::v1::GenerationChunk& chunk = *message.mutable_generation();
  chunk.set_task_id(task.task().task_id());
  const auto reason = generator_.RunTask(task, [&](const std::string& text, int tokens) {
    if (leads) {
      chunk.set_text(text);
      chunk.set_tokens(tokens);
      link_->Send(message).IgnoreError();
    }
    return KeepGoing(!leads || !inbox_->IsCancelled(task.task().task_id()));
  });
  RETURN_IF_ERROR(base_->world()->status());
  if (!leads) return absl::OkStatus();
  chunk.clear_text();
  if (reason.ok()) {
    chunk.set_finish_reason(*reason);
  } else {
    chunk.set_error_code(static_cast<int32_t>(reason.status().code()));
    chunk.set_error_message(std::string(reason.status().message()));
  }
  return link_->Send(message);
}

void RankLoop::Heartbeat(const std::string& doing) {
  const absl::Time now = absl::Now();
  doing_ = doing;
  if (now - last_heartbeat_ < absl::Milliseconds(500)) return;
  last_heartbeat_ = now;
  FromRank message;
  message.mutable_state()->set_heartbeat(true);
  message.mutable_state()->set_doing(doing);
  link_->Send(message).IgnoreError();
}

void RankLoop::ReportState() {
  FromRank message;
  *message.mutable_state()->mutable_report() = base_->Report();
  message.mutable_state()->mutable_report()->set_phase(tundra::v1::READY);
  message.mutable_state()->set_doing("waiting for work");
  link_->Send(message).IgnoreError();
}

}  // namespace tundra::worker
