// Protobuf messages over a socket pair, with file descriptors attached.
//
// A frame is a 4-byte little-endian length and the message; descriptors travel
// with the frame's first byte (SCM_RIGHTS). Both ends run the same build, so
// there is no version in it.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/files.h"

namespace google::protobuf {
class MessageLite;
}

namespace tundra::worker {

// Send() may be called from any thread; Receive() from one at a time.
class Link {
 public:
  // Most bytes of one message.
  static constexpr uint32_t kMaxMessage = 64u << 20;
  // Most descriptors with one message.
  static constexpr size_t kMaxFds = 64;

  explicit Link(Fd socket) : socket_(std::move(socket)) {}

  // Two connected ends, both closed on exec.
  static absl::StatusOr<std::pair<Fd, Fd>> MakePair();

  int fd() const { return socket_.get(); }

  // Waits while the peer's buffer is full. Errors: kUnavailable when the peer
  // has gone.
  absl::Status Send(const google::protobuf::MessageLite& message, const std::vector<int>& fds = {});

  // Waits for the next message. Errors: kUnavailable when the peer has gone,
  // kDeadlineExceeded when nothing began within `timeout`, kDataLoss when the
  // bytes make no message.
  absl::Status Receive(google::protobuf::MessageLite* message, std::vector<Fd>* fds,
                       absl::Duration timeout = absl::InfiniteDuration());

 private:
  absl::Status ReadBytes(char* data, size_t size, std::vector<Fd>* fds);

  Fd socket_;
  absl::Mutex send_mu_;
};

}  // namespace tundra::worker
