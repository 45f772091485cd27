// A rank process as its supervisor sees it: started by spawning the worker
// program again with the rank's end of a socket pair as descriptor 3, spoken to
// over a Link, killed with SIGKILL (the last word on a hung collective) and
// reaped. Only rank processes touch devices and collectives.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/files.h"
#include "worker/link.h"
#include "worker/rank_control.pb.h"

namespace tundra::worker {

// The descriptor on which a rank finds its supervisor.
inline constexpr int kRankFd = 3;

struct RankOptions {
  // The worker program itself.
  std::string program = "/proc/self/exe";
  // Added to the environment, as NAME=VALUE.
  std::vector<std::string> environment;
  // Called from the reader thread for each message.
  std::function<void(FromRank message, std::vector<Fd> fds)> on_message;
  // Called once from the reader thread, after the process was reaped, with a
  // sentence such as "killed by signal 9 (Killed)".
  std::function<void(std::string how)> on_exit;
};

class RankProcess {
 public:
  static absl::StatusOr<std::unique_ptr<RankProcess>> Start(RankOptions options);

  // Kills the process if it still runs, and waits for it.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  pid_t pid() const { return pid_; }
  absl::Status Send(const ToRank& message, const std::vector<int>& fds = {}) {
    return link_.Send(message, fds);
  }
  void Kill();

 private:
  RankProcess(pid_t pid, Fd pidfd, Fd socket, RankOptions options);
  void Read();

  const pid_t pid_;
  Fd pidfd_;
  Link link_;
  RankOptions options_;
  std::thread reader_;
};

}  // namespace tundra::worker
