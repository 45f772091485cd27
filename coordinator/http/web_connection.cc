#include "coordinator/http/web_connection.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "absl/time/clock.h"

namespace tundra::coordinator {
namespace {

constexpr size_t kBufferBytes = 16 << 10;
// How often an idle connection looks whether it is to end.
constexpr absl::Duration kIdleSlice = absl::Milliseconds(100);
// A connection is given this long for a request that is on its way already.
constexpr absl::Duration kLeastIdle = absl::Milliseconds(200);
// What is read of a request that was answered before its end.
constexpr absl::Duration kLinger = absl::Seconds(1);
constexpr size_t kLingerBytes = size_t{16} << 20;

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

void Describe(const sockaddr_storage& address, std::string& ip, int& port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    port = ntohs(v4.sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    port = ntohs(v6.sin6_port);
  }
  ip = text;
}

class TlsConnection : public WebConnection {
 public:
  TlsConnection(socket_t socket, const ConnectionLimits& limits, std::function<bool()> gives_way,
                std::shared_ptr<SSL_CTX> context)
      : WebConnection(socket, limits, std::move(gives_way)), context_(std::move(context)) {}
  ~TlsConnection() override { SSL_free(ssl_); }

  bool Open() override {
    ssl_ = SSL_new(context_.get());
    if (ssl_ == nullptr || SSL_set_fd(ssl_, socket_) != 1) return false;
    const absl::Time deadline = absl::Now() + limits_.request;
    for (;;) {
      const int done = SSL_accept(ssl_);
      if (done == 1) return opened_ = true;
      const Moved moved = Outcome(done);
      if (moved.wait_for == 0 || !Wait(moved.wait_for, deadline)) return false;
    }
  }

  void FinishWriting() override {
    if (opened_ && !failed_) SSL_shutdown(ssl_);
    ERR_clear_error();
    WebConnection::FinishWriting();
  }

 protected:
  Moved TryRead(char* ptr, size_t size) override {
    return Outcome(SSL_read(ssl_, ptr, Bounded(size)));
  }
  Moved TryWrite(const char* ptr, size_t size) override {
    return Outcome(SSL_write(ssl_, ptr, Bounded(size)));
  }

 private:
  static int Bounded(size_t size) { return static_cast<int>(std::min<size_t>(size, 1 << 20)); }

  Moved Outcome(int result) {
    if (result > 0) return {.bytes = result};
    const int error = SSL_get_error(ssl_, result);
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ) return {.bytes = -1, .wait_for = POLLIN};
    if (error == SSL_ERROR_WANT_WRITE) return {.bytes = -1, .wait_for = POLLOUT};
    if (error == SSL_ERROR_ZERO_RETURN) return {.bytes = 0};
    failed_ = true;
    return {};
  }

  const std::shared_ptr<SSL_CTX> context_;
  SSL* ssl_ = nullptr;
  bool opened_ = false;
  // After a fatal error nothing may be sent, not even a farewell.
  bool failed_ = false;
};

}  // namespace

WebConnection::WebConnection(socket_t socket, const ConnectionLimits& limits,
                             std::function<bool()> gives_way)
    : socket_(socket), limits_(limits), gives_way_(std::move(gives_way)) {
  fcntl(socket_, F_SETFL, fcntl(socket_, F_GETFL) | O_NONBLOCK);
}

bool WebConnection::Wait(short events, absl::Time deadline) const {
  for (;;) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    pollfd poll_for{.fd = socket_, .events = events, .revents = 0};
    // At least a millisecond, so that the last one is not spent asking.
    const int64_t ms = std::clamp<int64_t>(absl::ToInt64Milliseconds(left), 1, 3'600'000);
    const int ready = ::poll(&poll_for, 1, static_cast<int>(ms));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

WebConnection::Moved WebConnection::TryRead(char* ptr, size_t size) {
  const ssize_t got = ::recv(socket_, ptr, size, 0);
  if (got < 0 && WouldBlock()) return {.bytes = -1, .wait_for = POLLIN};
  return {.bytes = got};
}

WebConnection::Moved WebConnection::TryWrite(const char* ptr, size_t size) {
  const ssize_t put = ::send(socket_, ptr, size, MSG_NOSIGNAL);
  if (put < 0 && WouldBlock()) return {.bytes = -1, .wait_for = POLLOUT};
  return {.bytes = put};
}

bool WebConnection::Fill(absl::Time deadline) {
  buffer_.resize(kBufferBytes);
  at_ = 0;
  for (;;) {
    const Moved moved = TryRead(buffer_.data(), buffer_.size());
    buffer_.resize(moved.bytes > 0 ? static_cast<size_t>(moved.bytes) : 0);
    if (moved.bytes > 0) return true;
    if (moved.bytes == 0 || moved.wait_for == 0 || !Wait(moved.wait_for, deadline)) return false;
    buffer_.resize(kBufferBytes);
  }
}

bool WebConnection::AwaitRequest() {
  header_ended_ = false;
  ending_ = 0;
  header_read_ = body_read_ = expected_body_ = 0;
  const absl::Time start = absl::Now();
  const absl::Time idle_until = start + limits_.idle;
  const absl::Time stays_until = start + kLeastIdle;
  while (at_ >= buffer_.size()) {
    const absl::Time now = absl::Now();
    if (now >= idle_until || (now >= stays_until && gives_way_())) return false;
    buffer_.resize(kBufferBytes);
    at_ = 0;
    const Moved moved = TryRead(buffer_.data(), buffer_.size());
    buffer_.resize(moved.bytes > 0 ? static_cast<size_t>(moved.bytes) : 0);
    if (moved.bytes > 0) break;
    if (moved.bytes == 0 || moved.wait_for == 0) return false;
    Wait(moved.wait_for, std::min(idle_until, now + kIdleSlice));
  }
  deadline_ = absl::Now() + limits_.request;
  return true;
}

bool WebConnection::Count(const char* ptr, size_t size) {
  size_t i = 0;
  for (; i < size && !header_ended_; ++i) {
    if (++header_read_ > limits_.header_bytes) return false;
    // "\n\r\n": the end of the last line, and an empty one.
    if (ending_ == 1 && ptr[i] == '\r') {
      ending_ = 2;
    } else if (ptr[i] == '\n') {
      header_ended_ = ending_ == 2;
      ending_ = 1;
    } else {
      ending_ = 0;
    }
  }
  body_read_ += size - i;
  return body_read_ <= limits_.body_bytes;
}

ssize_t WebConnection::read(char* ptr, size_t size) {
  if (at_ >= buffer_.size() && !Fill(deadline_)) return -1;
  const size_t n = std::min(size, buffer_.size() - at_);
  std::copy_n(buffer_.data() + at_, n, ptr);
  at_ += n;
  return Count(ptr, n) ? static_cast<ssize_t>(n) : -1;
}

ssize_t WebConnection::write(const char* ptr, size_t size) {
  size_t sent = 0;
  while (sent < size) {
    const Moved moved = TryWrite(ptr + sent, size - sent);
    if (moved.bytes > 0) {
      sent += static_cast<size_t>(moved.bytes);
    } else if (moved.wait_for == 0 || !Wait(moved.wait_for, absl::Now() + limits_.write_stall)) {
      return -1;
    }
  }
  return static_cast<ssize_t>(size);
}

void WebConnection::FinishWriting() {
  ::shutdown(socket_, SHUT_WR);
  if (ReadWhole()) return;
  const absl::Time until = absl::Now() + kLinger;
  size_t dropped = 0;
  char bytes[kBufferBytes];
  while (dropped < kLingerBytes && Wait(POLLIN, until)) {
    const ssize_t got = ::recv(socket_, bytes, sizeof(bytes), 0);
    if (got == 0 || (got < 0 && !WouldBlock())) return;
    if (got > 0) dropped += static_cast<size_t>(got);
  }
}

void WebConnection::get_remote_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getpeername(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    Describe(address, ip, port);
  }
}

void WebConnection::get_local_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    Describe(address, ip, port);
  }
}

std::unique_ptr<WebConnection> NewTlsConnection(socket_t socket, const ConnectionLimits& limits,
                                                std::function<bool()> gives_way,
                                                std::shared_ptr<SSL_CTX> context) {
  return std::make_unique<TlsConnection>(socket, limits, std::move(gives_way), std::move(context));
}

}  // namespace tundra::coordinator
