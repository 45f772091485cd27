#include "worker/rank_process.h"

#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "common/status.h"

extern char** environ;

namespace tundra::worker {
namespace {

// Waits for the process; a sentence on how it ended.
std::string Reap(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return absl::StrCat("cannot be waited for: ", std::strerror(errno));
  }
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return absl::StrCat("killed by signal ", signal, " (", strsignal(signal), ")");
  }
  return absl::StrCat("ended with status ", WEXITSTATUS(status));
}

// The environment with `added` in place of variables of the same name.
std::vector<std::string> MergeEnvironment(const std::vector<std::string>& added) {
  const auto name = [](const std::string& entry) { return entry.substr(0, entry.find('=') + 1); };
  std::vector<std::string> merged = added;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    bool replaced = false;
    for (const std::string& a : added) replaced |= name(a) == name(*entry);
    if (!replaced) merged.emplace_back(*entry);
  }
  return merged;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankProcess>> RankProcess::Start(RankOptions options) {
  ASSIGN_OR_RETURN(auto ends, Link::MakePair());
  auto& [ours, theirs] = ends;

  std::vector<std::string> environment = MergeEnvironment(options.environment);
  std::vector<char*> envp;
  for (std::string& entry : environment) envp.push_back(entry.data());
  envp.push_back(nullptr);
  std::string program = options.program;
  std::string command = "rank";
  char* argv[] = {program.data(), command.data(), nullptr};

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), kRankFd);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, argv, envp.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, "starting a rank process");

  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) {
    // For example out of descriptors. Nothing but a pidfd can end it safely later.
    const absl::Status failed = ErrnoStatus(errno, "pidfd_open of a rank process");
    ::kill(pid, SIGKILL);
    Reap(pid);
    return failed;
  }
  return std::unique_ptr<RankProcess>(
      new RankProcess(pid, std::move(pidfd), std::move(ours), std::move(options)));
}

RankProcess::RankProcess(pid_t pid, Fd pidfd, Fd socket, RankOptions options)
    : pid_(pid), pidfd_(std::move(pidfd)), link_(std::move(socket)), options_(std::move(options)) {
  link_.SetSendTimeout(options_.send_timeout).IgnoreError();
  reader_ = std::thread([this] { Read(); });
}

RankProcess::~RankProcess() {
  Kill();
  reader_.join();
}

void RankProcess::Kill() {
  // Through the pidfd, since the number may be another process's once reaped.
  ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

void RankProcess::Read() {
  absl::Status status;
  while (true) {
    FromRank message;
    std::vector<Fd> fds;
    status = link_.Receive(&message, &fds);
    if (!status.ok()) break;
    options_.on_message(std::move(message), std::move(fds));
  }
  // A rank that has closed its end has nothing more to say.
  Kill();
  std::string how = Reap(pid_);
  if (!absl::IsUnavailable(status)) how = absl::StrCat(how, " after ", status.message());
  options_.on_exit(std::move(how));
}

}  // namespace tundra::worker
