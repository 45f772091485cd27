#include "worker/rank.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>

#include "common/logging.h"
#include "common/status.h"
#include "worker/link.h"
#include "worker/rank_base.h"
#include "worker/rank_inbox.h"
#include "worker/rank_loop.h"
#include "worker/rank_process.h"

namespace tundra::worker {
namespace {

// Waiting for the slowest rank to read its shard; the supervisor's own watch on
// ranks ends it earlier where one is lost.
constexpr absl::Duration kPeersTimeout = absl::Hours(24);

void ReportPhase(Link& link, const RankBase* base, tundra::v1::RankPhase phase, int fd = -1) {
  FromRank message;
  auto& report = *message.mutable_state()->mutable_report();
  if (base != nullptr) {
    report = base->Report();
    report.set_rendezvous(base->rendezvous());
  }
  report.set_phase(phase);
  message.mutable_state()->set_doing(phase == tundra::v1::LOADING ? "loading the base"
                                                                  : "waiting for the other ranks");
  link.Send(message, fd >= 0 ? std::vector<int>{fd} : std::vector<int>{}).IgnoreError();
}

std::string AbortReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return "timeout";
    case absl::StatusCode::kUnavailable:
      return "peer_lost";
    case absl::StatusCode::kFailedPrecondition:
      return "disagreement";
    default:
      return "other";
  }
}

// *abort_reason: as in RankState, when it is the collective that broke.
absl::Status Serve(Link& link, RankInbox& inbox, std::string* abort_reason) {
  ASSIGN_OR_RETURN(auto setup, inbox.WaitForSetup(absl::Minutes(60)));
  const std::string name = absl::StrCat("rank ", setup.first.rank(), "/", setup.first.size(), " ",
                                        setup.first.group_id(), ":", setup.first.epoch());
  const char* level = std::getenv("TUNDRA_LOG_LEVEL");  // the supervisor's --log-level
  RETURN_IF_ERROR(InitLogging({.program = name, .level = level != nullptr ? level : "info"}));
  ReportPhase(link, nullptr, tundra::v1::LOADING);
  ASSIGN_OR_RETURN(const auto base, RankBase::Load(setup.first, std::move(setup.second)));
  ReportPhase(link, base.get(), tundra::v1::AWAITING_PEERS, base->loaded_fd());
  ASSIGN_OR_RETURN(auto peers, inbox.WaitForPeers(kPeersTimeout));
  const absl::Status connected = base->Connect(peers.first, std::move(peers.second));
  if (absl::IsDeadlineExceeded(connected) || absl::IsUnavailable(connected)) {
    *abort_reason = "connect";
  }
  RETURN_IF_ERROR(connected);
  RankLoop loop(base.get(), &inbox, &link);
  const absl::Status status = loop.Run();
  for (const Collective* collective : {base->world(), base->gather()}) {
    if (collective == nullptr || collective->status().ok()) continue;
    if (abort_reason->empty()) *abort_reason = AbortReasonOf(collective->status());
  }
  return status;
}

}  // namespace

int RankMain() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NAME, "tundra-rank");
  // Ends of a terminal's session are the supervisor's to handle.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);
  auto* link = new Link(Fd(kRankFd));
  auto* inbox = new RankInbox(link);
  std::string abort_reason;
  const absl::Status status = Serve(*link, *inbox, &abort_reason);
  if (!status.ok()) {
    LogError("{}", status.ToString());
    FromRank message;
    auto& report = *message.mutable_state()->mutable_report();
    report.set_phase(tundra::v1::LOST);
    report.set_error(std::string(status.message()));
    message.mutable_state()->set_abort_reason(abort_reason);
    if (absl::IsResourceExhausted(status)) report.set_failure_code(tundra::v1::OUT_OF_MEMORY);
    if (absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
        absl::IsNotFound(status)) {
      report.set_failure_code(tundra::v1::BAD_INPUT);
    }
    link->Send(message).IgnoreError();
  }
  std::fflush(nullptr);
  // Without destructors: a broken collective must not hold up the end.
  ::_exit(status.ok() ? 0 : 1);
}

}  // namespace tundra::worker
