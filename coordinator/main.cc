// tundra-coordinator: reads its settings, runs the coordinator until SIGTERM or
// SIGINT. Exit codes: 0 stopped as asked, 1 a fault, 2 bad usage, settings or
// address.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/rpc.h"
#include "common/status.h"
#include "common/version.h"
#include "coordinator/config.h"
#include "coordinator/coordinator.h"

namespace tundra::coordinator {
namespace {

constexpr char kAbout[] =
    "tundra-coordinator takes fine-tuning jobs over gRPC, keeps them durably, and gives them to\n"
    "workers. All its state is in --data-dir: stop or kill it at any time and start it again.\n"
    "\n"
    "  openssl rand -hex 32 > admin.token           the first admin's token; keep it safe\n"
    "  tundra-coordinator --bootstrap-token-file admin.token   serve on 127.0.0.1:7700\n"
    "  tundra-coordinator --data-dir /var/lib/tundra --config /etc/tundra/coordinator.yaml\n"
    "  tundra-coordinator --print-config            all settings, with comments\n"
    "\n"
    "Then start workers (tundra-worker --coordinator HOST:7700) and submit jobs (tundra submit\n"
    "--token-file admin.token). On other machines both need TLS: see docs/security.md.\n";

struct Flags {
  Config config;
  std::string config_file;
  bool print_config = false;
};

void Declare(CLI::App& app, Flags& flags) {
  Config& c = flags.config;
  app.add_option("--config", flags.config_file, "YAML file with settings; flags win over it");
  app.add_flag("--print-config", flags.print_config, "print a commented settings file and exit");
  app.add_option("--listen", c.listen, "HOST:PORT of the API; port 0 takes any")
      ->capture_default_str();
  app.add_option("--http", c.http, "HOST:PORT of /metrics, /healthz and /readyz")
      ->capture_default_str();
  app.add_option("--web", c.web, "HOST:PORT of the web page and of the API as JSON")
      ->capture_default_str();
  app.add_option("--data-dir", c.data_dir,
                 "folder of database and blobs (default: $TUNDRA_HOME/coordinator or "
                 "~/.local/share/tundra/coordinator)");
  app.add_option("--tls-cert", c.tls_cert,
                 "the server's certificate chain, PEM; read again when it changes");
  app.add_option("--tls-key", c.tls_key, "its private key, PEM");
  app.add_option("--tls-client-ca", c.tls_client_ca,
                 "what workers' certificates must chain to, PEM");
  app.add_option("--bootstrap-token-file", c.bootstrap_token_file,
                 "file with the first admin's token; read while there is none");
  app.add_option("--worker-token-file", c.worker_token_file,
                 "file with a secret that lets workers in without a certificate (loopback only)");
  app.add_flag("--allow-anonymous", c.allow_anonymous,
               "everybody is an admin, without a token (loopback only)");
  app.add_flag("--insecure", c.insecure, "allow --listen beyond loopback without encryption");
  app.add_option("--ports-file", c.ports_file, "write the real ports there as JSON once it serves");
  app.add_option("--log-level", c.log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_flag("--log-json", c.log_json, "log JSON lines");
  app.add_option("--heartbeat-seconds", c.heartbeat_seconds, "how often workers report")
      ->capture_default_str();
  app.add_option("--lease-seconds", c.lease_seconds,
                 "a worker that does not report for this long is lost")
      ->capture_default_str();
  app.add_option("--blob-grace-seconds", c.blob_grace_seconds,
                 "how long unreferenced blobs are kept")
      ->capture_default_str();
}

int Fail(int code, const absl::Status& status) {
  std::cerr << "tundra-coordinator: " << status.message() << "\n";
  return code;
}

absl::Status WritePorts(const std::string& path, const Coordinator& coordinator) {
  if (path.empty()) return absl::OkStatus();
  const nlohmann::json ports = {{"grpc", coordinator.grpc_port()},
                                {"http", coordinator.http_port()},
                                {"web", coordinator.web_port()},
                                {"pid", static_cast<int64_t>(getpid())}};
  return WriteFileAtomically(path, ports.dump() + "\n");
}

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kNotFound:  // a file that a setting names
      return 2;
    default:
      return 1;
  }
}

int Serve(const Config& config) {
  // Blocked in all threads, so that sigwait below gets them.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  // Rows of data sets, samples and hashes of tokens are nobody else's.
  umask(077);
  // A file over a limit or a client that went is an error code, not an end.
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  // gRPC writes its own lines to standard error; what matters comes as a status.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);

  CoordinatorOptions options;
  options.data_dir = config.data_dir.empty() ? DefaultDataDir() + "/coordinator" : config.data_dir;
  options.listen = config.listen;
  options.http = config.http;
  options.tls = {.cert = config.tls_cert, .key = config.tls_key, .ca = config.tls_client_ca};
  options.auth.bootstrap_token_file = config.bootstrap_token_file;
  options.auth.worker_token_file = config.worker_token_file;
  options.auth.allow_anonymous = config.allow_anonymous;
  options.web = config.web;
  options.insecure = config.insecure;
  options.heartbeat_interval = absl::Seconds(config.heartbeat_seconds);
  options.lease = absl::Seconds(config.lease_seconds);
  options.blob_grace = absl::Seconds(config.blob_grace_seconds);
  options.validator = NewTextValidator();
  const std::string data_dir = options.data_dir;
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = StartCoordinator(std::move(options));
  if (!coordinator.ok()) return Fail(ExitCodeOf(coordinator.status()), coordinator.status());
  LogInfo(
      "serves gRPC on port {}, the web page on port {}, /metrics and /healthz on port {}, data in "
      "{}",
      (*coordinator)->grpc_port(), (*coordinator)->web_port(), (*coordinator)->http_port(),
      data_dir);
  const absl::Status ports = WritePorts(config.ports_file, **coordinator);
  if (!ports.ok()) return Fail(1, ports);

  int signal_number = 0;
  sigwait(&stop, &signal_number);
  LogInfo("stops on {}", signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
  // A second signal ends at once: nothing acknowledged can be lost.
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
  (*coordinator)->Stop();
  return 0;
}

// Connections and uploads hold files open; the usual soft limit of 1024 is for programs that use
// select().
void AllowManyFiles() {
  constexpr rlim_t kEnough = 65'536;
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= kEnough) return;
  files.rlim_cur = std::min(files.rlim_max, kEnough);
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) LogWarning("the limit of open files stays low");
}

int Main(int argc, char** argv) {
  Flags flags;
  // Flags are read twice: for --config first, then over what the file says.
  for (const bool final : {false, true}) {
    CLI::App app(kAbout, "tundra-coordinator");
    app.set_version_flag("--version", "tundra-coordinator " + ProgramVersion());
    Declare(app, flags);
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      const int code = app.exit(error);
      return code == 0 ? 0 : 2;
    }
    if (flags.print_config) {
      std::cout << SampleConfig();
      return 0;
    }
    if (final) break;
    Config config;
    if (!flags.config_file.empty()) {
      const absl::Status status = ReadConfigFile(flags.config_file, config);
      if (!status.ok()) return Fail(2, status);
    }
    flags.config = config;
  }
  absl::Status status = CheckConfig(flags.config);
  if (!status.ok()) return Fail(2, status);
  RouteProtobufLog();
  status = InitLogging({.program = "tundra-coordinator",
                        .level = flags.config.log_level,
                        .json = flags.config.log_json});
  if (!status.ok()) return Fail(2, status);
  AllowManyFiles();
  return Serve(flags.config);
}

}  // namespace
}  // namespace tundra::coordinator

int main(int argc, char** argv) { return tundra::coordinator::Main(argc, argv); }
