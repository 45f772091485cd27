// tundra local up | down: a coordinator and workers on this machine.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/commands.h"
#include "client/output.h"
#include "client/process.h"
#include "client/rpc_calls.h"
#include "common/files.h"
#include "common/secret.h"
#include "common/status.h"

extern char** environ;

namespace tundra::client {
namespace {

// Longer than a worker's drain.
constexpr absl::Duration kStopTimeout = absl::Seconds(45);
constexpr absl::Duration kStartTimeout = absl::Seconds(60);

struct LocalFlags {
  int workers = 1;
  std::string devices = "cpu:2";
  int threads = 0;
  std::string data_dir;
  std::vector<std::string> base_dirs;
  int port = 7700;
  int http_port = 7701;
  int web_port = 7702;
  bool detach = false;
};

struct Child {
  std::string name;
  pid_t pid = -1;
  std::string log;
  // Of the process, so that its number is never taken for another's.
  std::string start_time;
};

std::string Tail(const std::string& path, size_t lines) {
  const auto bytes = ReadFile(path, 64 << 20);
  if (!bytes.ok()) return "";
  std::vector<std::string> all = absl::StrSplit(*bytes, '\n', absl::SkipEmpty());
  std::string text;
  for (size_t i = all.size() > lines ? all.size() - lines : 0; i < all.size(); ++i) {
    text += "  " + all[i] + "\n";
  }
  return text;
}

absl::StatusOr<std::string> ProgramPath(const std::string& name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string beside = (self.parent_path() / name).string();
  if (FileExists(beside)) return beside;
  for (const absl::string_view dir : absl::StrSplit(std::getenv("PATH") ?: "", ':')) {
    const std::string path = absl::StrCat(dir, "/", name);
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return absl::NotFoundError(
      absl::StrCat(name, " is neither beside tundra nor on PATH; build or install it"));
}

// Starts a program with its output in `log`, in a session of its own: a Ctrl-C at
// the terminal is for `tundra`, which then stops them in order.
absl::StatusOr<Child> Start(const std::string& name, const std::string& program,
                            std::vector<std::string> arguments, const std::string& log) {
  ASSIGN_OR_RETURN(std::string path, ProgramPath(program));
  arguments.insert(arguments.begin(), path);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // The signals that Up() blocks are not the children's to inherit.
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  Child child{name, -1, log, ""};
  const int error =
      ::posix_spawn(&child.pid, path.c_str(), &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, path);
  child.start_time = StartTime(child.pid);
  return child;
}

// Why a child that should run has ended; OK while it runs.
absl::Status StillRuns(const Child& child) {
  int status = 0;
  if (::waitpid(child.pid, &status, WNOHANG) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(child.name, " has ended; the end of ", child.log, ":\n", Tail(child.log, 8)));
}

// What `tundra local up` ends on, blocked while it runs.
sigset_t EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

// Waits for so long, or until a signal comes: kCancelled.
absl::Status Pause(absl::Duration duration) {
  const sigset_t signals = EndSignals();
  const timespec wait = absl::ToTimespec(duration);
  if (::sigtimedwait(&signals, nullptr, &wait) > 0) return absl::CancelledError("interrupted");
  return absl::OkStatus();
}

absl::StatusOr<nlohmann::json> WaitForPorts(const Child& child, const std::string& path) {
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (absl::Now() < deadline) {
    RETURN_IF_ERROR(StillRuns(child));
    if (const auto bytes = ReadFile(path, 1 << 16); bytes.ok()) {
      auto json = nlohmann::json::parse(*bytes, nullptr, /*allow_exceptions=*/false);
      if (json.is_object()) return json;
    }
    RETURN_IF_ERROR(Pause(absl::Milliseconds(20)));
  }
  return absl::DeadlineExceededError(
      absl::StrCat(child.name, " did not start in time; see ", child.log));
}

// Sends SIGTERM to all, waits, and kills what is left.
void StopProcesses(const std::vector<std::pair<pid_t, std::string>>& processes, bool reap) {
  const auto alive = [&](const auto& process) {
    if (reap) ::waitpid(process.first, nullptr, WNOHANG);
    return !process.second.empty() && StartTime(process.first) == process.second;
  };
  for (const auto& process : processes) {
    if (alive(process)) ::kill(process.first, SIGTERM);
  }
  const absl::Time deadline = absl::Now() + kStopTimeout;
  while (absl::Now() < deadline && std::any_of(processes.begin(), processes.end(), alive)) {
    absl::SleepFor(absl::Milliseconds(50));
  }
  for (const auto& process : processes) {
    if (alive(process)) ::kill(process.first, SIGKILL);
  }
}

class LocalService {
 public:
  explicit LocalService(LocalFlags flags) : flags_(std::move(flags)) {}

  absl::Status Start() {
    RETURN_IF_ERROR(MakeDirs(flags_.data_dir + "/logs"));
    RETURN_IF_ERROR(MakeSecret(AdminToken()));
    RETURN_IF_ERROR(MakeSecret(WorkerToken()));
    const std::string ports = flags_.data_dir + "/coordinator-ports.json";
    ::unlink(ports.c_str());
    ASSIGN_OR_RETURN(Child coordinator,
                     client::Start("the coordinator", "tundra-coordinator",
                                   {"--listen", absl::StrCat("127.0.0.1:", flags_.port), "--http",
                                    absl::StrCat("127.0.0.1:", flags_.http_port), "--web",
                                    absl::StrCat("127.0.0.1:", flags_.web_port), "--data-dir",
                                    flags_.data_dir + "/coordinator", "--ports-file", ports,
                                    "--bootstrap-token-file", AdminToken(), "--worker-token-file",
                                    WorkerToken()},
                                   flags_.data_dir + "/logs/coordinator.log"));
    children_.push_back(coordinator);
    RETURN_IF_ERROR(WriteState());
    ASSIGN_OR_RETURN(const nlohmann::json json, WaitForPorts(coordinator, ports));
    for (const char* const port : {"grpc", "http", "web"}) {
      if (json.contains(port) && json[port].is_number_integer()) continue;
      return absl::InternalError(absl::StrCat(ports, ": does not name the ports"));
    }
    address_ = absl::StrCat("127.0.0.1:", json["grpc"].get<int>());
    http_ = absl::StrCat("http://127.0.0.1:", json["http"].get<int>());
    web_ = absl::StrCat("http://127.0.0.1:", json["web"].get<int>());
    for (int i = 1; i <= flags_.workers; ++i) RETURN_IF_ERROR(StartWorker(i));
    RETURN_IF_ERROR(WaitForWorkers());
    complete_ = true;
    return WriteState();
  }

  void Stop() {
    // Workers first: they hand their jobs' state to the coordinator.
    std::vector<std::pair<pid_t, std::string>> workers;
    for (size_t i = 1; i < children_.size(); ++i) {
      workers.emplace_back(children_[i].pid, children_[i].start_time);
    }
    StopProcesses(workers, /*reap=*/true);
    if (!children_.empty()) {
      StopProcesses({{children_[0].pid, children_[0].start_time}}, /*reap=*/true);
    }
    ::unlink(LocalStatePath(flags_.data_dir).c_str());
  }

  // Until a signal comes (OK) or a child ends.
  absl::Status WaitForSignal() {
    while (true) {
      if (!Pause(absl::Milliseconds(200)).ok()) return absl::OkStatus();
      for (const Child& child : children_) RETURN_IF_ERROR(StillRuns(child));
    }
  }

  const std::string& address() const { return address_; }
  const std::string& http() const { return http_; }
  const std::string& web() const { return web_; }

 private:
  absl::Status StartWorker(int number) {
    const std::string name = absl::StrCat("worker-", number);
    std::vector<std::string> arguments = {"--coordinator", address_,
                                          "--name",        name,
                                          "--data-dir",    flags_.data_dir + "/" + name,
                                          "--devices",     flags_.devices,
                                          "--threads",     std::to_string(flags_.threads),
                                          "--token-file",  WorkerToken()};
    for (const std::string& dir : flags_.base_dirs) {
      arguments.push_back("--base-dir");
      arguments.push_back(dir);
    }
    ASSIGN_OR_RETURN(Child worker, client::Start(name, "tundra-worker", std::move(arguments),
                                                 flags_.data_dir + "/logs/" + name + ".log"));
    children_.push_back(std::move(worker));
    return WriteState();
  }

  // Every worker has shown its bases (hashing a large one takes a while).
  absl::Status WaitForWorkers() {
    AddressFlags address;
    address.address = address_;
    address.token_file = AdminToken();
    ASSIGN_OR_RETURN(const Service service, Service::Open(address));
    const absl::Time deadline = absl::Now() + absl::Minutes(30);
    bool told = false;
    const absl::Time start = absl::Now();
    while (absl::Now() < deadline) {
      for (const Child& child : children_) RETURN_IF_ERROR(StillRuns(child));
      grpc::ClientContext context;
      Prepare(&context);
      tundra::v1::ListBasesResponse response;
      const grpc::Status status = service.bases()->ListBases(&context, {}, &response);
      if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
        return absl::UnauthenticatedError(
            absl::StrCat(AdminToken(),
                         " holds a token that the service of this folder does not know; put the "
                         "right one there, or see \"A lost admin token\" in docs/security.md"));
      }
      if (!status.ok() && status.error_code() != grpc::StatusCode::UNAVAILABLE &&
          status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) {
        return service.Explain(status);
      }
      for (const auto& base : response.bases()) {
        if (base.worker_count() >= flags_.workers) return absl::OkStatus();
      }
      if (!told && absl::Now() - start > absl::Seconds(3)) {
        std::fprintf(stderr, "waiting for the workers to read their bases …\n");
        told = true;
      }
      if (absl::Now() - start > absl::Seconds(20) && response.bases_size() == 0 && NoBases()) {
        std::fprintf(stderr, "no base was found; see %s\n", children_.back().log.c_str());
        return absl::OkStatus();
      }
      RETURN_IF_ERROR(Pause(absl::Milliseconds(50)));
    }
    return absl::DeadlineExceededError("the workers did not show up; see their logs");
  }

  bool NoBases() const {
    std::error_code error;
    for (const std::string& dir : flags_.base_dirs) {
      for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
        if (FileExists(entry.path().string() + "/config.json")) return false;
      }
      if (FileExists(dir + "/config.json")) return false;
    }
    return true;
  }

  // After every start, so that `local down` finds what runs even when this process
  // is killed half way.
  absl::Status WriteState() const {
    nlohmann::json processes = nlohmann::json::array();
    for (const Child& child : children_) {
      processes.push_back(
          {{"name", child.name}, {"pid", child.pid}, {"start_time", child.start_time}});
    }
    const nlohmann::json state = {{"address", address_},        {"http", http_},
                                  {"token_file", AdminToken()}, {"web", web_},
                                  {"complete", complete_},      {"processes", processes}};
    return WriteFileAtomically(LocalStatePath(flags_.data_dir), state.dump(2) + "\n");
  }

  // Secrets of this service alone, made once: an admin's for whoever may read the data folder,
  // and the workers'.
  std::string AdminToken() const { return flags_.data_dir + "/admin.token"; }
  std::string WorkerToken() const { return flags_.data_dir + "/worker.token"; }
  static absl::Status MakeSecret(const std::string& path) {
    if (FileExists(path)) return absl::OkStatus();
    return WriteFileAtomically(path, NewSecret() + "\n");
  }

  const LocalFlags flags_;
  std::vector<Child> children_;
  std::string address_;
  std::string http_;
  std::string web_;
  bool complete_ = false;
};

// What local.json says of a service that was started.
struct LocalState {
  std::string address;
  std::vector<std::pair<pid_t, std::string>> running;  // the coordinator first
  std::vector<std::string> ended;                      // names of those that run no more
  bool coordinator_ended = false;
  bool complete = false;  // all had come up
};

LocalState ReadLocalState(const std::string& data_dir) {
  LocalState local;
  const auto bytes = ReadFile(LocalStatePath(data_dir), 1 << 20);
  if (!bytes.ok()) return local;
  const auto state = nlohmann::json::parse(*bytes, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object()) return local;
  const auto text = [](const nlohmann::json& object, const char* key) {
    const auto it = object.find(key);
    return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  local.address = text(state, "address");
  const auto complete = state.find("complete");
  local.complete = complete != state.end() && complete->is_boolean() && complete->get<bool>();
  const auto processes = state.find("processes");
  if (processes == state.end() || !processes->is_array()) return local;
  for (const auto& process : *processes) {
    if (!process.is_object()) continue;
    const auto number = process.find("pid");
    if (number == process.end() || !number->is_number_integer()) continue;
    const pid_t pid = number->get<pid_t>();
    const std::string start = text(process, "start_time");
    if (pid > 0 && !start.empty() && StartTime(pid) == start) {
      local.running.emplace_back(pid, start);
    } else {
      local.coordinator_ended |= &process == &processes->front();
      local.ended.push_back(text(process, "name"));
    }
  }
  return local;
}

// Workers first: they hand in what they have to the coordinator.
void StopAll(const LocalState& local) {
  if (local.running.empty()) return;
  StopProcesses({local.running.begin() + 1, local.running.end()}, /*reap=*/false);
  StopProcesses({local.running[0]}, /*reap=*/false);
}

// OK when no service of the folder runs. What is left of one that can do nothing, because its
// coordinator ended or its start was cut off, is stopped.
absl::Status EndBrokenService(const std::string& data_dir) {
  const LocalState local = ReadLocalState(data_dir);
  if (local.running.empty()) return absl::OkStatus();
  const std::string ended = absl::StrJoin(local.ended, " and ");
  if (local.complete && !local.coordinator_ended) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a service of ", data_dir, " runs already, at ", local.address,
        ended.empty() ? "" : absl::StrCat(", though ", ended, " ended (see ", data_dir, "/logs)"),
        "; stop it with `tundra local down`, or give another --data-dir and --port"));
  }
  std::fprintf(stderr,
               "of the service that was started before, %s (see %s/logs); stopping the rest "
               "and starting anew …\n",
               ended.empty() ? "the start was cut off" : absl::StrCat(ended, " ended").c_str(),
               data_dir.c_str());
  StopAll(local);
  return absl::OkStatus();
}

absl::Status FillDefaults(LocalFlags& flags) {
  if (flags.data_dir.empty()) flags.data_dir = DefaultDataDir();
  RETURN_IF_ERROR(MakeDirs(flags.data_dir));
  flags.data_dir = std::filesystem::weakly_canonical(flags.data_dir).string();
  if (flags.base_dirs.empty()) {
    flags.base_dirs.push_back(flags.data_dir + "/bases");
    RETURN_IF_ERROR(MakeDirs(flags.base_dirs[0]));
  }
  for (std::string& dir : flags.base_dirs) {
    if (!FileExists(dir)) {
      return absl::NotFoundError(absl::StrCat("--base-dir ", dir, " does not exist"));
    }
    dir = std::filesystem::weakly_canonical(dir).string();
  }
  return absl::OkStatus();
}

// Held while `local up` starts or runs a service: two of one folder would stop and
// overwrite each other's.
absl::StatusOr<Fd> LockLocal(const std::string& data_dir) {
  const std::string path = data_dir + "/local.lock";
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "another `tundra local up` works on ", data_dir,
        "; stop it (Ctrl-C, or `tundra local down`), or give another --data-dir and --port"));
  }
  return fd;
}

int Up(const CommonFlags& common, LocalFlags flags) {
  if (const absl::Status status = FillDefaults(flags); !status.ok()) return Fail(status);
  const auto lock = LockLocal(flags.data_dir);
  if (!lock.ok()) return Fail(lock.status());
  const sigset_t signals = EndSignals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  if (const absl::Status status = EndBrokenService(flags.data_dir); !status.ok()) {
    return Fail(status);
  }
  LocalService service(flags);
  const absl::Status started = service.Start();
  if (!started.ok()) {
    service.Stop();
    return Fail(started);
  }
  if (common.json()) {
    const nlohmann::json json = {{"address", service.address()},
                                 {"http", service.http()},
                                 {"web", service.web()},
                                 {"data_dir", flags.data_dir},
                                 {"token_file", flags.data_dir + "/admin.token"}};
    std::printf("%s\n", json.dump().c_str());
  } else {
    std::printf(
        "the service runs at %s with %d worker%s (%s)\n"
        "  web page %s\n  metrics  %s/metrics\n  data     %s\n  logs     %s/logs\n  token    "
        "%s/admin.token%s\n",
        service.address().c_str(), flags.workers, flags.workers == 1 ? "" : "s",
        flags.devices.c_str(), service.web().c_str(), service.http().c_str(),
        flags.data_dir.c_str(), flags.data_dir.c_str(), flags.data_dir.c_str(),
        flags.data_dir == DefaultDataDir()
            ? " (this machine's tundra finds it)"
            : " (name it with --token-file, and the address with --address)");
    std::printf(flags.detach ? "  stop it  tundra local down%s%s\n" : "  stop it  Ctrl-C%s%s\n",
                flags.detach && flags.data_dir != DefaultDataDir() ? " --data-dir " : "",
                flags.detach && flags.data_dir != DefaultDataDir() ? flags.data_dir.c_str() : "");
  }
  std::fflush(stdout);
  if (flags.detach) return kOk;
  const absl::Status ended = service.WaitForSignal();
  std::fprintf(stderr, "stopping …\n");
  service.Stop();
  return ended.ok() ? kOk : Fail(ended);
}

int Down(const CommonFlags& common, const std::string& data_dir_flag) {
  const std::string data_dir = data_dir_flag.empty() ? DefaultDataDir() : data_dir_flag;
  const LocalState local = ReadLocalState(data_dir);
  if (local.running.empty()) {
    ::unlink(LocalStatePath(data_dir).c_str());
    if (!common.json()) std::printf("no service of %s runs\n", data_dir.c_str());
    return kOk;
  }
  StopAll(local);
  ::unlink(LocalStatePath(data_dir).c_str());
  std::printf(common.json() ? "{}\n" : "stopped\n");
  return kOk;
}

}  // namespace

void AddLocal(CLI::App& app, CommonFlags& common, Run* run) {
  CLI::App* local = app.add_subcommand("local", "Run the whole service on this machine");
  local->require_subcommand(1);
  auto flags = std::make_shared<LocalFlags>();
  const std::string data_help = "Folder for everything (default: " + DefaultDataDir() + ")";

  CLI::App* up = local->add_subcommand("up", "Start a coordinator and workers");
  up->add_option("--workers", flags->workers, "How many workers")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  up->add_option("--devices", flags->devices, "Devices of each worker: cpu:N for N CPU ranks")
      ->capture_default_str();
  up->add_option("--threads", flags->threads, "CPU threads of each worker (0: every core)")
      ->check(CLI::Range(0, 1024));
  up->add_option("--data-dir", flags->data_dir, data_help);
  up->add_option("--base-dir", flags->base_dirs,
                 "Folder that holds bases (default: bases in the data folder; repeatable)");
  up->add_option("--port", flags->port, "Port of the API on loopback (0: any free one)")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  up->add_option("--http-port", flags->http_port, "Port of metrics and probes (0: any free one)")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  up->add_option("--web-port", flags->web_port, "Port of the web page (0: any free one)")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  up->add_flag("--detach,-d", flags->detach, "Leave it running and return");
  up->add_option("-o,--output", common.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  up->callback([=, &common] { *run = [=, &common] { return Up(common, *flags); }; });

  CLI::App* down = local->add_subcommand("down", "Stop what `local up --detach` started");
  down->add_option("--data-dir", flags->data_dir, data_help);
  down->add_option("-o,--output", common.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  down->callback([=, &common] { *run = [=, &common] { return Down(common, flags->data_dir); }; });
}

}  // namespace tundra::client
