// The API as JSON over HTTP: the Connect protocol's unary form. A request is
// `POST /tundra.v1.JobService/GetJob` with the request message as JSON; the answer is the
// response message, or {"code": "not_found", "message": …, "details": […]}. Every call goes to
// the coordinator's own gRPC server with the caller's `authorization`, so that who may do what
// is decided in one place.
// Source: https://connectrpc.com/docs/protocol
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace tundra::coordinator {

// Longest that a call may take.
inline constexpr absl::Duration kJsonCallTimeout = absl::Seconds(30);

// Who makes a call, as the HTTP request tells it.
struct WebCaller {
  // Of the request's headers; empty where there is none.
  std::string authorization = "";
  // "ipv4:ADDRESS:PORT", for the audit log.
  std::string peer = "";
};

struct JsonCall {
  // "/tundra.v1.JobService/ListJobs".
  std::string path;
  std::string body;
  WebCaller caller;
  // Of the request's headers; empty where there is none.
  std::string if_none_match;
  // Connect-Timeout-Ms.
  std::string timeout_ms;
};

struct JsonAnswer {
  // HTTP's. 304 where if_none_match names what would be sent.
  int status = 200;
  std::string body = "";
  // Of answers to methods that only read (Get…, List…).
  std::string etag = "";
};

// One file of an adapter as it arrives. Not thread-safe.
class FileDownload {
 public:
  virtual ~FileDownload() = default;
  // The next bytes; empty at the end of the file. Errors: those of DownloadFile.
  virtual absl::StatusOr<std::string> Next() = 0;
};

// Thread-safe.
class JsonApi {
 public:
  // `stops`: calls are to be given up, as the server stops.
  JsonApi(std::shared_ptr<grpc::Channel> channel, std::function<bool()> stops)
      : channel_(std::move(channel)), stops_(std::move(stops)) {}

  // Whether the path is one of a method of a service for clients. Workers' is not served.
  static bool IsMethod(std::string_view path);
  // Blocks until the method has answered, for kJsonCallTimeout at most; before that, while
  // kMostLarge calls with bodies of more than kLargeBody bytes are under way, if it is another.
  JsonAnswer Call(const JsonCall& call);
  // Opens "jobs/ID/adapter" or "jobs/ID/checkpoints/STEP", file `filename`; what has arrived
  // first is there already, so errors such as kNotFound come from here.
  absl::StatusOr<std::unique_ptr<FileDownload>> Download(const std::string& adapter,
                                                         const std::string& filename,
                                                         const WebCaller& caller);

  static constexpr size_t kLargeBody = size_t{256} << 10;
  static constexpr int kMostLarge = 4;

 private:
  JsonAnswer CallMethod(const JsonCall& call);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::function<bool()> stops_;
  // Calls with large bodies, which become several times as large when they are read.
  absl::Mutex mu_;
  int large_ ABSL_GUARDED_BY(mu_) = 0;
};

// An error in Connect's JSON, with the HTTP status that belongs to its code.
JsonAnswer JsonError(const grpc::Status& status);

// Whether If-None-Match names the tag, by the weak comparison.
bool NamesTag(std::string_view if_none_match, std::string_view etag);

}  // namespace tundra::coordinator
