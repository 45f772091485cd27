#include "worker/session.h"

#include <algorithm>

#include "common/logging.h"
#include "common/rpc.h"

namespace tundra::worker {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

}  // namespace

Session::Session(std::shared_ptr<ChannelSource> channels, SessionHandler handler)
    : channels_(std::move(channels)), handler_(std::move(handler)), thread_([this] { Run(); }) {}

Session::~Session() {
  {
    absl::MutexLock lock(&mu_);
    stopped_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  thread_.join();
}

void Session::SetReport(tundra::v1::WorkerReport report) {
  absl::MutexLock lock(&mu_);
  report_ = std::move(report);
  have_report_ = true;
  changed_ = true;
}

void Session::Run() {
  absl::Duration pause = kFirstPause;
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      const auto may_go = [this] {
        mu_.AssertReaderHeld();
        return have_report_ || stopped_;
      };
      mu_.Await(absl::Condition(&may_go));
      if (stopped_) return;
      broken_ = false;
      changed_ = true;  // A new stream starts with the whole report.
    }
    const absl::Time start = absl::Now();
    RunStream();
    if (absl::Now() - start > absl::Seconds(5)) pause = kFirstPause;
    AwaitNextTry(*channels_->Get(), pause, [this] { return Stopped(); });
    pause = std::min(2 * pause, kLongestPause);
  }
}

void Session::RunStream() {
  const std::shared_ptr<grpc::Channel> channel = channels_->Get();
  auto stub = tundra::v1::WorkerService::NewStub(channel);
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mu_);
    if (stopped_) return;
    context_ = &context;
  }
  auto stream = stub->Session(&context);
  std::thread reader([&] {
    tundra::v1::WorkerAssignment assignment;
    bool first = true;
    while (stream->Read(&assignment)) {
      if (first) {
        handler_.on_connection(true);
        absl::MutexLock lock(&mu_);
        last_end_ = absl::OkStatus();
      }
      first = false;
      if (assignment.has_heartbeat_interval()) {
        const auto& interval = assignment.heartbeat_interval();
        absl::MutexLock lock(&mu_);
        heartbeat_ =
            std::clamp(absl::Seconds(interval.seconds()) + absl::Nanoseconds(interval.nanos()),
                       absl::Milliseconds(50), absl::Seconds(30));
      }
      handler_.on_assignment(std::move(assignment));
      assignment.Clear();
    }
    absl::MutexLock lock(&mu_);
    broken_ = true;
  });

  while (true) {
    tundra::v1::WorkerReport report;
    {
      absl::MutexLock lock(&mu_);
      const auto wake = [this] {
        mu_.AssertReaderHeld();
        return changed_ || broken_ || stopped_;
      };
      mu_.AwaitWithTimeout(absl::Condition(&wake), heartbeat_);
      if (broken_ || stopped_) break;
      changed_ = false;
      report = report_;
    }
    if (!stream->Write(report)) break;
    // With a new certificate, a new session: the old one ends with the old certificate.
    if (channels_->Get() != channel) {
      stream->WritesDone();
      break;
    }
  }
  {
    // Else the coordinator has ended the call, and a cancellation would hide why.
    absl::MutexLock lock(&mu_);
    if (stopped_) context.TryCancel();
  }
  reader.join();
  const absl::Status status = FromGrpc(stream->Finish());
  handler_.on_connection(false);
  absl::MutexLock lock(&mu_);
  context_ = nullptr;
  if (stopped_ || status == last_end_) return;  // said once, not at each try
  last_end_ = status;
  // A certificate that is refused looks like a coordinator that hangs up.
  const bool refused =
      absl::IsUnavailable(status) && channels_->CertExpiry() < absl::InfiniteFuture();
  LogWarning("session with the coordinator ended: {}; tries again{}", status.ToString(),
             refused
                 ? " (if it stays so: does the coordinator's --tls-client-ca hold the authority "
                   "of this worker's certificate?)"
                 : "");
}

}  // namespace tundra::worker
