#include "coordinator/http/probe_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/status.h"

namespace tundra::coordinator {
namespace {

constexpr char kText[] = "text/plain; version=0.0.4; charset=utf-8";

class ProbeServerImpl : public ProbeServer {
 public:
  ~ProbeServerImpl() override { Stop(); }

  absl::Status Start(const std::string& address, ProbeHandlers handlers) {
    std::pair<std::string, int> parts;
    ASSIGN_OR_RETURN(parts, SplitAddress(address));
    const auto& [host, port] = parts;
    // A connection that says nothing holds a thread until the read times out.
    server_.new_task_queue = [] { return new httplib::ThreadPool(8); };
    server_.set_keep_alive_max_count(1);
    server_.set_read_timeout(1);
    // The default sets SO_REUSEPORT, which would hide that the port is taken.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server_.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("ok\n", kText);
    });
    server_.Get("/readyz",
                [ready = handlers.ready](const httplib::Request&, httplib::Response& response) {
                  const bool is_ready = ready();
                  response.status = is_ready ? 200 : 503;
                  response.set_content(is_ready ? "ok\n" : "not ready\n", kText);
                });
    server_.Get("/metrics",
                [metrics = handlers.metrics](const httplib::Request&, httplib::Response& response) {
                  response.set_content(metrics(), kText);
                });
    if (port == 0) {
      port_ = server_.bind_to_any_port(host.c_str());
    } else {
      port_ = server_.bind_to_port(host.c_str(), port) ? port : -1;
    }
    if (port_ < 0) {
      return absl::AlreadyExistsError(absl::StrCat(
          "cannot listen on ", address,
          ": the port is taken or the address is not this machine's; choose another --http"));
    }
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      ended_ = true;
    });
    // stop() before the loop runs would be lost.
    while (!server_.is_running() && !ended_) std::this_thread::yield();
    if (ended_) return absl::InternalError(absl::StrCat("cannot serve on ", address));
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void Stop() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  httplib::Server server_;
  std::thread thread_;
  int port_ = 0;
  std::atomic<bool> ended_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProbeServer>> StartProbeServer(const std::string& address,
                                                              ProbeHandlers handlers) {
  auto server = std::make_unique<ProbeServerImpl>();
  RETURN_IF_ERROR(server->Start(address, std::move(handlers)));
  return server;
}

}  // namespace tundra::coordinator
