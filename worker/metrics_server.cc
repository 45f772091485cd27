#include "worker/metrics_server.h"

#include <httplib.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <thread>

#include "absl/strings/numbers.h"
#include "common/status.h"
#include "worker/build_info.h"

namespace tundra::worker {

class MetricsServer::Impl {
 public:
  explicit Impl(std::function<SupervisorStatus()> status) : status_(std::move(status)) {
    server_.new_task_queue = [] { return new httplib::ThreadPool(8); };
    // A connection that says nothing holds a thread until the read times out.
    server_.set_keep_alive_max_count(1);
    server_.set_read_timeout(1);
    // The default sets SO_REUSEPORT, which would hide that the port is taken.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server_.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("ok\n", "text/plain");
    });
    server_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
      const bool connected = status_().connected;
      response.status = connected ? 200 : 503;
      response.set_content(connected ? "ok\n" : "no session with the coordinator\n", "text/plain");
    });
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(Render(status_()), "text/plain; version=0.0.4");
    });
  }

  absl::Status Bind(const std::string& address) {
    const size_t colon = address.rfind(':');
    const std::string host = address.substr(0, colon);
    int port = -1;
    if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
        port < 0 || port > 65'535) {
      return absl::InvalidArgumentError(absl::StrCat("--http ", address, ": use HOST:PORT"));
    }
    port_ =
        port == 0 ? server_.bind_to_any_port(host) : (server_.bind_to_port(host, port) ? port : -1);
    if (port_ <= 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", address,
                       ": the port is taken or the address is not of this host; "
                       "give --http another one"));
    }
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      ended_ = true;
    });
    return absl::OkStatus();
  }

  void Stop() {
    if (!thread_.joinable()) return;
    // stop() is ignored before the loop runs.
    while (!server_.is_running() && !ended_) std::this_thread::yield();
    server_.stop();
    thread_.join();
  }

  int port() const { return port_; }

 private:
  // Built anew at each scrape: counters are kept by the supervisor.
  static std::string Render(const SupervisorStatus& status) {
    prometheus::Registry registry;
    const auto gauge = [&](const char* name, const char* help, double value) {
      prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({}).Set(value);
    };
    const auto counter = [&](const char* name, const char* help, int64_t value) {
      prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({}).Increment(
          static_cast<double>(value));
    };
    prometheus::BuildGauge()
        .Name("tundra_build_info")
        .Help("1, with the program's version")
        .Register(registry)
        .Add({{"version", BuildVersion()}})
        .Set(1);
    gauge("tundra_worker_connected", "1 while the session with the coordinator is open",
          status.connected ? 1 : 0);
    auto& ranks = prometheus::BuildGauge()
                      .Name("tundra_worker_ranks")
                      .Help("Rank processes of this worker")
                      .Register(registry);
    ranks.Add({{"state", "ready"}}).Set(status.ranks_ready);
    ranks.Add({{"state", "lost"}}).Set(status.ranks_lost);
    gauge("tundra_base_resident_bytes", "Bytes of base shards that ranks keep",
          static_cast<double>(status.resident_shard_bytes));
    counter("tundra_steps_total", "Optimizer steps led by this worker", status.steps_total);
    counter("tundra_tokens_total", "Tokens trained on in steps led by this worker",
            status.tokens_total);
    counter("tundra_allreduce_bytes_total",
            "Bytes that rank 0 gave to the all-reduce of gradients, redone steps left out",
            status.allreduce_bytes_total);
    counter("tundra_redone_allreduce_bytes_total",
            "Bytes that rank 0 gave to the all-reduce in steps that were redone",
            status.redone_allreduce_bytes_total);
    counter("tundra_nonfinite_steps_total", "Steps skipped for gradients that were not finite",
            status.nonfinite_steps_total);
    return prometheus::TextSerializer().Serialize(registry.Collect());
  }

  const std::function<SupervisorStatus()> status_;
  httplib::Server server_;
  std::thread thread_;
  std::atomic<bool> ended_{false};
  int port_ = 0;
};

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricsServer::~MetricsServer() { impl_->Stop(); }
int MetricsServer::port() const { return impl_->port(); }

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, std::function<SupervisorStatus()> status) {
  auto impl = std::make_unique<Impl>(std::move(status));
  RETURN_IF_ERROR(impl->Bind(address));
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(impl)));
}

}  // namespace tundra::worker
