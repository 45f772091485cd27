// tundra-worker: the supervisor of a node and, started again by it as
// `tundra-worker rank`, each of its rank processes.
#include <signal.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/address.h"
#include "common/files.h"
#include "common/flag_range.h"
#include "common/logging.h"
#include "common/rpc.h"
#include "common/status.h"
#include "common/version.h"
#include "worker/device/device.h"
#include "worker/devices.h"
#include "worker/metrics_server.h"
#include "worker/rank.h"
#include "worker/supervisor.h"
#include "worker/worker_flags.h"

namespace tundra::worker {
namespace {

constexpr int kExitUsage = 2;

void AddFlags(CLI::App& app, WorkerFlags* flags) {
  app.set_config("--config", "", "Read flags from this file (TOML or INI: name = value)");
  app.allow_config_extras(CLI::config_extras_mode::error);
  // Not a setting: in a file that was printed, it would print and end.
  app.add_flag_callback(
         "--print-config",
         [&app] {
           std::cout << app.config_to_str(/*default_also=*/true, /*write_description=*/true);
           throw CLI::Success();
         },
         "Print a commented configuration file with the defaults, and end")
      ->configurable(false);
  app.add_option("--coordinator", flags->coordinator, "Address of the coordinator, HOST:PORT")
      ->capture_default_str();
  app.add_option("--name", flags->name, "Name for people (default: the host's name)");
  app.add_option("--data-dir", flags->data_dir,
                 "Folder of this worker's own: its id, fetched data, checkpoints "
                 "(default: worker in $TUNDRA_HOME or ~/.local/share/tundra)");
  app.add_option("--base-dir", flags->base_dirs,
                 "Folder that holds bases, one folder each (repeatable)")
      ->required();
  app.add_option("--devices", flags->devices,
                 "cpu:N (N CPU ranks), cuda:0,2 (these GPUs), cuda (every GPU), or all "
                 "(every GPU if there are any, else one CPU rank)")
      ->capture_default_str();
  app.add_option("--threads", flags->threads, "CPU threads over all ranks (0: every core)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option("--cpu-max-isa", flags->cpu_max_isa,
                 "Newest instruction set to use, so that machines that differ give equal bytes: "
                 "sse41, avx2, avx512, avx512_bf16 or amx");
  app.add_option("--gather", flags->gather,
                 "auto: ranks of one host map each other's shards, unless they have NCCL; network: "
                 "always gather")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "network"}));
  app.add_option(
         "--collective", flags->collective,
         "nccl: ranks on GPUs of their own; gloo: any ranks; auto: nccl where it can be. The "
         "same on all workers of a group")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "gloo", "nccl"}));
  app.add_option("--collective-host", flags->collective_host,
                 "Address of this host on which ranks meet")
      ->capture_default_str();
  app.add_option("--collective-timeout", flags->collective_timeout_s,
                 "Longest wait inside a collective, in seconds")
      ->capture_default_str()
      ->check(FiniteRange(0.1, 86400.0));
  app.add_option("--hang-timeout", flags->hang_timeout_s,
                 "A rank without a sign of life for so many seconds is killed")
      ->capture_default_str()
      ->check(FiniteRange(1.0, 86400.0));
  app.add_option("--drain-timeout", flags->drain_timeout_s,
                 "Longest time for saving jobs after SIGTERM, in seconds")
      ->capture_default_str()
      ->check(FiniteRange(0.0, 86400.0));
  app.add_option("--http", flags->http, "Address of /metrics and /healthz (port 0: any free one)")
      ->capture_default_str();
  app.add_option("--ports-file", flags->ports_file, "Write the ports in use to this file, as JSON");
  app.add_option("--log-level", flags->log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_flag("--log-json", flags->log_json, "Log in JSON lines");
  app.add_option("--tls-ca", flags->tls_ca,
                 "Encrypt, and trust a coordinator whose certificate chains to this PEM file");
  app.add_flag("--tls", flags->tls, "Encrypt, and trust the system's certificate roots");
  app.add_option("--tls-cert", flags->tls_cert,
                 "This worker's certificate, PEM, by which the coordinator knows it; read again "
                 "when it changes");
  app.add_option("--tls-key", flags->tls_key, "Its private key, PEM");
  app.add_option(
      "--token-file", flags->token_file,
      "File with the coordinator's --worker-token-file secret, instead of a certificate");
  app.add_flag("--insecure", flags->insecure,
               "Accept a coordinator beyond loopback without encryption");
}

absl::Status RunSupervisor(const WorkerFlags& flags, const sigset_t& signals) {
  for (const std::string& address : {flags.http, flags.collective_host + ":0"}) {
    RETURN_IF_ERROR(CheckAddress(address));
  }
  if (const absl::Status own = CheckOwnHost(flags.collective_host); !own.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--collective-host ", own.message(), ": give one at which the other workers reach it"));
  }
  if (IsLoopback(flags.collective_host) && !IsLoopbackAddress(flags.coordinator)) {
    LogWarning(
        "--collective-host {} is reached from this machine alone, and the coordinator is on "
        "another address: groups over several machines will fail; give this machine's address",
        flags.collective_host);
  }
  ClientSecurity security;
  security.tls = flags.tls || !flags.tls_ca.empty();
  security.files = {.cert = flags.tls_cert, .key = flags.tls_key, .ca = flags.tls_ca};
  security.token_file = flags.token_file;
  security.insecure = flags.insecure;
  ASSIGN_OR_RETURN(const std::shared_ptr<ChannelSource> channels,
                   ChannelSource::Open(flags.coordinator, security));
  ASSIGN_OR_RETURN(const DeviceChoice choice, ParseDevices(flags.devices));
  ASSIGN_OR_RETURN(const std::vector<FoundDevice> devices,
                   FindDevices(choice, flags.threads, flags.cpu_max_isa));
  const int threads = ThreadsPerRank(flags.threads, static_cast<int>(devices.size()));
  const std::string data_dir =
      flags.data_dir.empty() ? DefaultDataDir() + "/worker" : flags.data_dir;
  ASSIGN_OR_RETURN(const std::string worker_id, OpenWorkerDir(data_dir));
  ASSIGN_OR_RETURN(BaseCatalog catalog,
                   BaseCatalog::Scan(flags.base_dirs, data_dir + "/base_hashes"));

  SupervisorOptions options;
  options.channels = channels;
  options.display_name = flags.name;
  if (options.display_name.empty()) {
    char host[256] = {};
    if (::gethostname(host, sizeof(host) - 1) == 0) options.display_name = host;
  }
  options.data_dir = data_dir;
  for (const FoundDevice& device : devices) {
    options.devices.push_back(device.info);
    options.device_ordinals.push_back(device.ordinal);
  }
  options.threads_per_rank = threads;
  options.collective_host = flags.collective_host;
  options.collective_timeout = absl::Seconds(flags.collective_timeout_s);
  options.hang_timeout = absl::Seconds(flags.hang_timeout_s);
  options.drain_timeout = absl::Seconds(flags.drain_timeout_s);
  options.network_gather = flags.gather == "network";
  ASSIGN_OR_RETURN(options.collective, ChooseCollective(flags.collective, devices));
  ::setenv("TUNDRA_LOG_LEVEL", flags.log_level.c_str(), 1);
  if (!flags.cpu_max_isa.empty()) ::setenv("TUNDRA_CPU_MAX_ISA", flags.cpu_max_isa.c_str(), 1);

  Supervisor supervisor(std::move(options), std::move(catalog), worker_id);
  ASSIGN_OR_RETURN(
      const auto metrics,
      MetricsServer::Start(flags.http, {.connected = [&] { return supervisor.status().connected; },
                                        .metrics =
                                            [&] {
                                              const absl::Time expiry = channels->CertExpiry();
                                              if (expiry != absl::InfiniteFuture()) {
                                                supervisor.metrics().SetCertExpiry(expiry);
                                              }
                                              return supervisor.RenderMetrics();
                                            }}));
  if (!flags.ports_file.empty()) {
    const nlohmann::json ports = {{"http", metrics->port()}, {"worker_id", worker_id}};
    RETURN_IF_ERROR(WriteFileAtomically(flags.ports_file, ports.dump() + "\n"));
  }
  LogInfo("{}: {} x {}, {} threads each, coordinator {}, metrics on port {}", worker_id,
          devices.size(), devices[0].info.name(), threads, flags.coordinator, metrics->port());

  std::thread watcher([&] {
    while (true) {
      const int signal = ::sigwaitinfo(&signals, nullptr);
      if (signal == SIGUSR1) return;
      if (signal == SIGTERM || signal == SIGINT) supervisor.Stop();
    }
  });
  supervisor.Run();
  ::pthread_kill(watcher.native_handle(), SIGUSR1);
  watcher.join();
  LogInfo("stopped");
  return absl::OkStatus();
}

}  // namespace

int Main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  // Rows of data sets and checkpoints are nobody else's.
  ::umask(077);
  if (argc == 2 && std::string_view(argv[1]) == "rank") return RankMain();

  CLI::App app{
      "tundra-worker trains adapters on this machine's devices for a coordinator.\n"
      "It starts one rank process per device, and survives the loss of each."};
  app.set_version_flag("--version", ProgramVersion());
  WorkerFlags flags;
  AddFlags(app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ConfigError& error) {
    std::string_view key = error.what();
    // Of the parser's words the key alone is kept; that of a section ends in ".++".
    constexpr std::string_view kBefore = "INI was not able to parse ";
    if (key.starts_with(kBefore)) key.remove_prefix(kBefore.size());
    key = key.substr(0, key.find(':'));
    if (key.ends_with(".++")) key.remove_suffix(3);
    std::fprintf(stderr,
                 "tundra-worker: --config: %s is not a setting; "
                 "`tundra-worker --print-config` shows those that there are\n",
                 std::string(key).c_str());
    return kExitUsage;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  // Blocked here so that every thread inherits it: one thread waits for them.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  RouteProtobufLog();
  absl::Status status =
      InitLogging({.program = "tundra-worker", .level = flags.log_level, .json = flags.log_json});
  if (status.ok()) status = RunSupervisor(flags, signals);
  if (status.ok()) return 0;
  std::fprintf(stderr, "tundra-worker: %s\n", std::string(status.message()).c_str());
  return kExitUsage;
}

}  // namespace tundra::worker

int main(int argc, char** argv) { return tundra::worker::Main(argc, argv); }
