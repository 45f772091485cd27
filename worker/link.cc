#include "worker/link.h"

#include <google/protobuf/message_lite.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "common/check.h"
#include "common/status.h"

namespace tundra::worker {
namespace {

absl::Status Gone() { return absl::UnavailableError("the process at the other end has gone"); }

// Moves the descriptors that came with `message` into `fds`.
void TakeFds(msghdr* message, std::vector<Fd>* fds) {
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      fds->emplace_back(fd);
    }
  }
}

}  // namespace

absl::StatusOr<std::pair<Fd, Fd>> Link::MakePair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  return std::make_pair(Fd(fds[0]), Fd(fds[1]));
}

absl::Status Link::SetSendTimeout(absl::Duration timeout) {
  const timeval limit = absl::ToTimeval(timeout);
  if (::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0) {
    return ErrnoStatus(errno, "setsockopt(SO_SNDTIMEO)");
  }
  return absl::OkStatus();
}

absl::Status Link::Send(const google::protobuf::MessageLite& message, const std::vector<int>& fds) {
  TUNDRA_CHECK(fds.size() <= kMaxFds);
  std::string frame(4, '\0');
  TUNDRA_CHECK(message.AppendToString(&frame));
  const auto size = static_cast<uint32_t>(frame.size() - 4);
  TUNDRA_CHECK(size <= kMaxMessage) << "a message of " << size << " bytes";
  for (int i = 0; i < 4; ++i) frame[static_cast<size_t>(i)] = static_cast<char>(size >> (8 * i));

  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  absl::MutexLock lock(&send_mu_);
  if (given_up_) return Gone();
  size_t sent = 0;
  while (sent < frame.size()) {
    iovec piece{frame.data() + sent, frame.size() - sent};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (sent == 0 && !fds.empty()) {
      header.msg_control = control;
      header.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
    }
    const ssize_t n = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      // Half a frame may be out: nothing after it would be understood.
      given_up_ = true;
      ::shutdown(socket_.get(), SHUT_RDWR);
      return absl::DeadlineExceededError("the process at the other end takes no messages");
    }
    if (n < 0) return (errno == EPIPE || errno == ECONNRESET) ? Gone() : ErrnoStatus(errno, "send");
    sent += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status Link::ReadBytes(char* data, size_t size, std::vector<Fd>* fds) {
  size_t got = 0;
  while (got < size) {
    alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
    iovec piece{data + got, size - got};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    const ssize_t n = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == ECONNRESET ? Gone() : ErrnoStatus(errno, "receive");
    if (n == 0) return Gone();
    TakeFds(&header, fds);
    if ((header.msg_flags & MSG_CTRUNC) != 0) {
      return absl::ResourceExhaustedError(
          "descriptors of a message were lost: this process has too many open files");
    }
    got += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status Link::Receive(google::protobuf::MessageLite* message, std::vector<Fd>* fds,
                           absl::Duration timeout) {
  fds->clear();
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    pollfd wait{socket_.get(), POLLIN, 0};
    const int64_t left =
        timeout == absl::InfiniteDuration()
            ? -1
            : std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
    const int ready = ::poll(&wait, 1, static_cast<int>(std::min<int64_t>(left, 1 << 30)));
    if (ready > 0) break;
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
    if (ready == 0 && absl::Now() >= deadline) {
      return absl::DeadlineExceededError("no message in time");
    }
  }
  unsigned char length[4];
  RETURN_IF_ERROR(ReadBytes(reinterpret_cast<char*>(length), 4, fds));
  uint32_t size = 0;
  for (int i = 0; i < 4; ++i) size |= static_cast<uint32_t>(length[i]) << (8 * i);
  if (size > kMaxMessage) return absl::DataLossError("a message over the limit of its size");
  std::string bytes(size, '\0');
  RETURN_IF_ERROR(ReadBytes(bytes.data(), size, fds));
  if (!message->ParseFromString(bytes)) return absl::DataLossError("bytes that make no message");
  return absl::OkStatus();
}

}  // namespace tundra::worker
