#include "worker/metrics_server.h"

#include <httplib.h>

#include <atomic>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra::worker {

class MetricsServer::Impl {
 public:
  explicit Impl(WorkerProbes probes) : probes_(std::move(probes)) {
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
      const bool connected = probes_.connected();
      response.status = connected ? 200 : 503;
      response.set_content(connected ? "ok\n" : "no session with the coordinator\n", "text/plain");
    });
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(probes_.metrics(), "text/plain; version=0.0.4");
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
  const WorkerProbes probes_;
  httplib::Server server_;
  std::thread thread_;
  std::atomic<bool> ended_{false};
  int port_ = 0;
};

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricsServer::~MetricsServer() { impl_->Stop(); }
int MetricsServer::port() const { return impl_->port(); }

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& address,
                                                                    WorkerProbes probes) {
  auto impl = std::make_unique<Impl>(std::move(probes));
  RETURN_IF_ERROR(impl->Bind(address));
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(impl)));
}

}  // namespace tundra::worker
