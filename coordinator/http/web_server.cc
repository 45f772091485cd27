#include "coordinator/http/web_server.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/address.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/http/json_api.h"
#include "coordinator/http/page_files.h"
#include "coordinator/http/web_threads.h"

namespace tundra::coordinator {
namespace {

using httplib::Request;
using httplib::Response;

constexpr char kJson[] = "application/json";
constexpr size_t kMostPath = 256;
constexpr size_t kRequestsPerConnection = 1000;
constexpr absl::Duration kStopGrace = absl::Seconds(1);

const httplib::Headers& SafetyHeaders() {
  static const httplib::Headers* const headers = new httplib::Headers{
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
       "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
       "require-trusted-types-for 'script'"},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
  };
  return *headers;
}

void Send(Response& response, const JsonAnswer& answer) {
  response.status = answer.status;
  response.set_header("Cache-Control", "no-store");
  if (!answer.etag.empty()) response.set_header("ETag", answer.etag);
  if (answer.status != 304) response.set_content(answer.body, kJson);
}

void Refuse(Response& response, int http_status, grpc::StatusCode code,
            const std::string& message) {
  JsonAnswer answer = JsonError(grpc::Status(code, message));
  answer.status = http_status;
  Send(response, answer);
}

void NotFound(Response& response) {
  Refuse(response, 404, grpc::StatusCode::NOT_FOUND,
         "nothing is here; the page is at /, the API at /tundra.v1.SERVICE/METHOD");
}

// The host of a Host header, without its port.
std::string HostOf(const std::string& header) {
  const auto parts = SplitAddress(header);
  if (parts.ok()) return parts->first;
  if (header.size() > 2 && header.front() == '[' && header.back() == ']') {
    return header.substr(1, header.size() - 2);
  }
  return header;
}

bool IsJson(const std::string& content_type) {
  const std::vector<absl::string_view> parts = absl::StrSplit(content_type, ';');
  return absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(parts[0]), kJson);
}

// Bytes of the body; more than there can be where the headers leave a doubt, so that what follows
// is never taken for another request.
size_t LengthOf(const Request& request) {
  const size_t told = request.get_header_value_count("Content-Length");
  if (told == 0 && !request.has_header("Transfer-Encoding")) return 0;
  uint64_t length = 0;
  if (told != 1 || request.has_header("Transfer-Encoding") ||
      !absl::SimpleAtoi(request.get_header_value("Content-Length"), &length)) {
    return SIZE_MAX;
  }
  return static_cast<size_t>(length);
}

WebCaller CallerOf(const Request& request) {
  WebCaller caller;
  // Two of them are none: which one counts must not depend on who looks. "-" is no token.
  const bool one = request.get_header_value_count("Authorization") <= 1;
  caller.authorization = one ? request.get_header_value("Authorization") : "-";
  const bool v6 = absl::StrContains(request.remote_addr, ":");
  caller.peer = absl::StrCat(v6 ? "ipv6:[" : "ipv4:", request.remote_addr, v6 ? "]:" : ":",
                             request.remote_port);
  return caller;
}

// "jobs/ID/adapter" and the file's name of "/v1/jobs/ID/adapter/files/NAME".
bool SplitDownload(const std::string& path, std::string& adapter, std::string& filename) {
  constexpr std::string_view kStart = "/v1/";
  constexpr std::string_view kFiles = "/files/";
  const size_t files = path.rfind(kFiles);
  if (!absl::StartsWith(path, "/v1/jobs/") || files == std::string::npos) return false;
  adapter = path.substr(kStart.size(), files - kStart.size());
  filename = path.substr(files + kFiles.size());
  return !filename.empty();
}

// cpp-httplib's server on connections with bounds.
class BoundedServer : public httplib::Server {
 public:
  explicit BoundedServer(const WebOptions& options) : options_(options), threads_(options.threads) {
    // The library deletes what it is given.
    new_task_queue = [this] { return new ThreadsHandle(&threads_); };
  }

  // Ends the accept loop and idle connections, and after a moment the others too.
  void End() {
    ending_ = true;
    threads_.Stop();
    stop();
    absl::MutexLock lock(&mu_);
    const auto none = [this] {
      mu_.AssertHeld();
      return open_.empty();
    };
    mu_.AwaitWithTimeout(absl::Condition(&none), kStopGrace);
    for (const socket_t socket : open_) ::shutdown(socket, SHUT_RDWR);
  }
  bool IsEnding() const { return ending_; }

 private:
  std::unique_ptr<WebConnection> NewConnection(socket_t socket) {
    const auto gives_way = [this] { return threads_.AreWanted(); };
    if (!options_.tls) {
      return std::make_unique<WebConnection>(socket, options_.limits, gives_way);
    }
    return NewTlsConnection(socket, options_.limits, gives_way, options_.tls());
  }

  bool process_and_close_socket(socket_t socket) override {
    {
      absl::MutexLock lock(&mu_);
      open_.insert(socket);
    }
    const bool served = Serve(socket);
    // Closed under the lock, so that End() never meets a socket that is another's by then.
    absl::MutexLock lock(&mu_);
    open_.erase(socket);
    ::close(socket);
    return served;
  }

  bool Serve(socket_t socket) {
    const std::unique_ptr<WebConnection> connection = NewConnection(socket);
    bool served = connection->Open();
    for (size_t n = 1; served && !ending_ && connection->AwaitRequest(); ++n) {
      bool closed = false;
      served = process_request(*connection, n == kRequestsPerConnection, closed,
                               [&](Request& request) { Prepare(request, *connection); });
      if (closed || n == kRequestsPerConnection || !connection->ReadWhole()) break;
    }
    connection->FinishWriting();
    return served;
  }

  // After the headers, before the body.
  static void Prepare(Request& request, WebConnection& connection) {
    connection.ExpectBody(LengthOf(request));
    // Many overlapping ranges would make a large answer of a small file.
    request.ranges.clear();
    // Brotli at the library's level takes a second for what gzip does in milliseconds.
    const bool gzip = absl::StrContains(request.get_header_value("Accept-Encoding"), "gzip");
    request.headers.erase("Accept-Encoding");
    if (gzip) request.set_header("Accept-Encoding", "gzip");
  }

  const WebOptions& options_;
  WebThreads threads_;
  std::atomic<bool> ending_{false};
  absl::Mutex mu_;
  std::set<socket_t> open_ ABSL_GUARDED_BY(mu_);
};

class WebServerImpl : public WebServer {
 public:
  explicit WebServerImpl(WebOptions options)
      : options_(std::move(options)),
        server_(options_),
        json_(options_.api, [this] { return server_.IsEnding(); }) {
    for (const PageFile& file : PageFiles()) {
      page_[std::string(file.path)] = &file;
      // Browsers ask for it by this name where no page tells them another.
      if (file.path.ends_with("/icon.svg")) page_["/favicon.ico"] = &file;
    }
  }
  ~WebServerImpl() override { Stop(); }

  absl::Status Start() {
    std::pair<std::string, int> parts;
    ASSIGN_OR_RETURN(parts, SplitAddress(options_.address));
    const auto& [host, port] = parts;
    loopback_ = IsLoopback(host);
    Configure();
    if (port == 0) {
      port_ = server_.bind_to_any_port(host);
    } else {
      port_ = server_.bind_to_port(host, port) ? port : -1;
    }
    if (port_ < 0) {
      return absl::AlreadyExistsError(absl::StrCat(
          "cannot listen on ", options_.address,
          ": the port is taken or the address is not this machine's; choose another --web"));
    }
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      ended_ = true;
    });
    // stop() before the loop runs would be lost.
    while (!server_.is_running() && !ended_) std::this_thread::yield();
    if (ended_) return absl::InternalError(absl::StrCat("cannot serve on ", options_.address));
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void Stop() override {
    if (!thread_.joinable()) return;
    server_.End();
    thread_.join();
  }

 private:
  void Configure() {
    // The default sets SO_REUSEPORT, which would hide that the port is taken.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server_.set_tcp_nodelay(true);
    // What the Keep-Alive header tells.
    server_.set_keep_alive_max_count(kRequestsPerConnection);
    server_.set_keep_alive_timeout(absl::ToInt64Seconds(options_.limits.idle));
    server_.set_payload_max_length(options_.limits.body_bytes);
    server_.set_default_headers(SafetyHeaders());
    server_.set_pre_routing_handler([this](const Request& request, Response& response) {
      return Route(request, response) ? httplib::Server::HandlerResponse::Handled
                                      : httplib::Server::HandlerResponse::Unhandled;
    });
    server_.Post("/.*", [this](const Request& request, Response& response) {
      Send(response, json_.Call({.path = request.path,
                                 .body = request.body,
                                 .caller = CallerOf(request),
                                 .if_none_match = request.get_header_value("If-None-Match"),
                                 .timeout_ms = request.get_header_value("Connect-Timeout-Ms")}));
    });
    // What the library itself refuses: malformed requests, and a body that breaks off.
    server_.set_error_handler([](const Request&, Response& response) {
      if (!response.body.empty() || response.status == 304) return;
      Refuse(response, response.status, grpc::StatusCode::INVALID_ARGUMENT,
             "the request cannot be read");
    });
    server_.set_exception_handler([](const Request&, Response& response, std::exception_ptr) {
      Refuse(response, 500, grpc::StatusCode::INTERNAL, "a fault of the web server");
    });
  }

  // Answers all but calls, which have a body to read first: false for these alone.
  bool Route(const Request& request, Response& response) {
    if (loopback_ && !IsLoopback(HostOf(request.get_header_value("Host")))) {
      Refuse(response, 421, grpc::StatusCode::PERMISSION_DENIED,
             "this address serves its own machine alone: call it localhost, or have the proxy "
             "set the Host header to localhost");
      return true;
    }
    if (request.path.size() > kMostPath) {
      NotFound(response);
      return true;
    }
    if (JsonApi::IsMethod(request.path)) return RefuseCall(request, response);
    if (request.method != "GET" && request.method != "HEAD") {
      if (page_.contains(request.path)) {
        response.set_header("Allow", "GET, HEAD");
        Refuse(response, 405, grpc::StatusCode::UNIMPLEMENTED, "use GET");
      } else {
        NotFound(response);
      }
      return true;
    }
    std::string adapter;
    std::string filename;
    if (const auto file = page_.find(request.path); file != page_.end()) {
      SendPage(request, *file->second, response);
    } else if (SplitDownload(request.path, adapter, filename)) {
      SendFile(request, adapter, filename, response);
    } else {
      NotFound(response);
    }
    return true;
  }

  // Refuses a call whose headers are wrong, before its body is read.
  static bool RefuseCall(const Request& request, Response& response) {
    const size_t length = LengthOf(request);
    if (request.method != "POST") {
      response.set_header("Allow", "POST");
      Refuse(response, 405, grpc::StatusCode::UNIMPLEMENTED, "use POST");
    } else if (!IsJson(request.get_header_value("Content-Type"))) {
      // A form of another site cannot send this type.
      Refuse(response, 415, grpc::StatusCode::INVALID_ARGUMENT,
             "the content type must be application/json");
    } else if (const std::string encoding = request.get_header_value("Content-Encoding");
               !encoding.empty() && encoding != "identity") {
      Refuse(response, 415, grpc::StatusCode::INVALID_ARGUMENT, "the body must not be compressed");
    } else if (length == SIZE_MAX || !request.has_header("Content-Length")) {
      Refuse(response, 411, grpc::StatusCode::INVALID_ARGUMENT,
             "the length of the body must be told by one Content-Length");
    } else if (length > ConnectionLimits().body_bytes) {
      Refuse(response, 413, grpc::StatusCode::RESOURCE_EXHAUSTED, "the body is larger than 4 MiB");
    } else if (const std::string version = request.get_header_value("Connect-Protocol-Version");
               !version.empty() && version != "1") {
      Refuse(response, 400, grpc::StatusCode::INVALID_ARGUMENT,
             "Connect-Protocol-Version must be 1");
    } else {
      return false;
    }
    return true;
  }

  static void SendPage(const Request& request, const PageFile& file, Response& response) {
    const std::string etag = absl::StrCat("\"", Sha256Hex(file.bytes).substr(0, 32), "\"");
    response.set_header("ETag", etag);
    response.set_header("Cache-Control",
                        absl::StartsWith(request.path, "/assets/")
                            ? "public, max-age=31536000, immutable"  // the hash is in the name
                            : "no-cache");
    if (NamesTag(request.get_header_value("If-None-Match"), etag)) {
      response.status = 304;
      return;
    }
    response.status = 200;
    response.set_content(file.bytes.data(), file.bytes.size(), std::string(file.content_type));
  }

  void SendFile(const Request& request, const std::string& adapter, const std::string& filename,
                Response& response) {
    auto opened = json_.Download(adapter, filename, CallerOf(request));
    if (!opened.ok()) {
      return Send(response,
                  JsonError(grpc::Status(static_cast<grpc::StatusCode>(opened.status().code()),
                                         std::string(opened.status().message()))));
    }
    response.status = 200;
    response.set_header("Cache-Control", "no-store");
    // Never shown in place, whatever the bytes are.
    response.set_header("Content-Disposition", "attachment");
    const std::shared_ptr<FileDownload> file = *std::move(opened);
    response.set_chunked_content_provider("application/octet-stream",
                                          [file](size_t, httplib::DataSink& sink) {
                                            const absl::StatusOr<std::string> bytes = file->Next();
                                            // Without the last chunk, the client sees that the file
                                            // is not whole.
                                            if (!bytes.ok()) return false;
                                            if (bytes->empty()) {
                                              sink.done();
                                              return true;
                                            }
                                            return sink.write(bytes->data(), bytes->size());
                                          });
  }

  const WebOptions options_;
  BoundedServer server_;
  JsonApi json_;
  std::map<std::string, const PageFile*> page_;
  bool loopback_ = false;
  std::thread thread_;
  int port_ = 0;
  std::atomic<bool> ended_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<WebServer>> StartWebServer(WebOptions options) {
  auto server = std::make_unique<WebServerImpl>(std::move(options));
  RETURN_IF_ERROR(server->Start());
  return server;
}

}  // namespace tundra::coordinator
