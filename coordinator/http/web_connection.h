// One connection of the web server as cpp-httplib sees it, with the bounds that the library
// itself does not have: a request must have come whole within a time and a size, an idle
// connection gives way to one that waits for a thread, and a peer that does not read is left.
// TLS is one kind of connection.
#pragma once

#include <httplib.h>

#include <functional>
#include <memory>

#include "absl/time/time.h"

namespace tundra::coordinator {

struct ConnectionLimits {
  // Between two requests.
  absl::Duration idle = absl::Seconds(10);
  // From the first byte of a request to its last; also for a TLS handshake.
  absl::Duration request = absl::Seconds(15);
  // For the peer to take more of an answer.
  absl::Duration write_stall = absl::Seconds(10);
  size_t header_bytes = size_t{32} << 10;
  size_t body_bytes = size_t{4} << 20;
};

// Not thread-safe: one thread serves a connection. Does not own the socket.
class WebConnection : public httplib::Stream {
 public:
  // `gives_way`: an idle connection is to end, since others wait or the server stops.
  WebConnection(socket_t socket, const ConnectionLimits& limits, std::function<bool()> gives_way);
  ~WebConnection() override = default;

  // TLS's handshake; nothing otherwise. False when it failed.
  virtual bool Open() { return true; }
  // Waits for the first byte of the next request. False when there will be none.
  bool AwaitRequest();
  // Tells the size of the body that the headers have announced.
  void ExpectBody(size_t bytes) { expected_body_ = bytes; }
  // The announced body was read to its end, so that what follows is a request.
  bool ReadWhole() const { return header_ended_ && body_read_ == expected_body_; }
  // Says that nothing more will be written, and reads what the peer still sends for a moment:
  // a close with unread bytes would destroy the answer on its way.
  virtual void FinishWriting();

  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* ptr, size_t size) override;
  ssize_t write(const char* ptr, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 protected:
  // One try: bytes moved, 0 at the end, or -1 with what to wait for (POLLIN, POLLOUT), 0 of an
  // error.
  struct Moved {
    ssize_t bytes = -1;
    short wait_for = 0;
  };
  virtual Moved TryRead(char* ptr, size_t size);
  virtual Moved TryWrite(const char* ptr, size_t size);

  // Waits for events on the socket until the deadline. False on time-out or error.
  bool Wait(short events, absl::Time deadline) const;

  const socket_t socket_;
  const ConnectionLimits limits_;

 private:
  // Reads something into buffer_. False at the end, on an error and after the deadline.
  bool Fill(absl::Time deadline);
  // Counts what is handed out; false when it is more than a request may have.
  bool Count(const char* ptr, size_t size);

  const std::function<bool()> gives_way_;
  std::string buffer_;
  size_t at_ = 0;
  absl::Time deadline_;
  bool header_ended_ = false;
  // Of "\n\r\n" seen last.
  int ending_ = 0;
  size_t header_read_ = 0;
  size_t body_read_ = 0;
  size_t expected_body_ = 0;
};

// A connection in TLS with the certificate of `context`.
std::unique_ptr<WebConnection> NewTlsConnection(socket_t socket, const ConnectionLimits& limits,
                                                std::function<bool()> gives_way,
                                                std::shared_ptr<SSL_CTX> context);

}  // namespace tundra::coordinator
