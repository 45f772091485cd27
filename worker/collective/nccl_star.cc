#include "worker/collective/nccl_star.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/collective/collective_nccl.h"

namespace tundra::internal {
namespace {

using std::chrono::steady_clock;

constexpr char kAddressMagic[] = "TNCA1";
constexpr size_t kMagicBytes = sizeof(kAddressMagic) - 1;
constexpr size_t kHelloBytes = sizeof(StarHeader) + sizeof(StarSecret);

std::string ErrnoText() { return std::strerror(errno); }

void PutU32(std::string& out, size_t value) {
  const auto word = static_cast<uint32_t>(value);
  out.append(reinterpret_cast<const char*>(&word), sizeof(word));
}

// Takes from the front of what is left of an address; false when there is too little.
class Reader {
 public:
  explicit Reader(const std::string& bytes) : at_(bytes.data()), left_(bytes.size()) {}
  bool Take(void* to, size_t n) {
    if (n > left_) return false;
    std::memcpy(to, at_, n);
    at_ += n;
    left_ -= n;
    return true;
  }
  bool TakeU32(uint32_t* value) { return Take(value, sizeof(*value)); }
  size_t left() const { return left_; }

 private:
  const char* at_;
  size_t left_;
};

// Small messages at once, and a machine that has gone silent noticed in half a minute.
void TuneSocket(int fd) {
  const int on = 1, idle = 10, interval = 5, probes = 4, unanswered_ms = 30'000;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof(unanswered_ms));
}

// Milliseconds for poll(): 0 when the deadline has passed, at most a second.
int PollMs(NcclDeadline deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1000));
}

struct FreeAddrInfo {
  void operator()(addrinfo* info) const { ::freeaddrinfo(info); }
};
using AddrInfo = std::unique_ptr<addrinfo, FreeAddrInfo>;

absl::StatusOr<AddrInfo> Resolve(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  // "[::1]", as an address with a port is written, is the host ::1.
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string name = bracketed ? host.substr(1, host.size() - 2) : host;
  const int rc = ::getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (rc != 0) {
    return absl::UnavailableError(
        absl::StrCat("nccl: no address for host \"", host, "\": ", ::gai_strerror(rc)));
  }
  return AddrInfo(found);
}

// Errors: kUnavailable, kDeadlineExceeded.
absl::StatusOr<Fd> ConnectTo(const std::string& host, int port, NcclDeadline deadline) {
  ASSIGN_OR_RETURN(const AddrInfo info, Resolve(host, port));
  const auto fail = [&](const std::string& why) {
    return absl::UnavailableError(
        absl::StrCat("nccl: can't connect to rank 0 at ", host, ":", port, ": ", why,
                     "; where ranks are on several machines, each worker needs --collective-host "
                     "with an address of its own that the others reach"));
  };
  Fd fd(::socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail(ErrnoText());
  if (::connect(fd.get(), info->ai_addr, info->ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return fail(ErrnoText());
    pollfd wait{.fd = fd.get(), .events = POLLOUT, .revents = 0};
    while (::poll(&wait, 1, PollMs(deadline)) <= 0) {
      if (steady_clock::now() >= deadline) {
        return absl::DeadlineExceededError(absl::StrCat("nccl: rank 0 at ", host, ":", port,
                                                        " took no connection before the deadline"));
      }
    }
    int error = 0;
    socklen_t size = sizeof(error);
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return fail(std::strerror(error));
  }
  TuneSocket(fd.get());
  return fd;
}

// A connection that has not said who it is.
struct Stranger {
  Fd socket;
  std::array<char, kHelloBytes> hello;
  size_t got = 0;
};

enum class Greeting { kWaiting, kRefused, kKnown };

// Reads of the hello what is there.
Greeting ReadHello(Stranger& stranger, int size, const StarSecret& secret, int* rank) {
  const ssize_t n = ::recv(stranger.socket.get(), stranger.hello.data() + stranger.got,
                           kHelloBytes - stranger.got, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? Greeting::kWaiting : Greeting::kRefused;
  if (n == 0) return Greeting::kRefused;
  stranger.got += static_cast<size_t>(n);
  if (stranger.got < kHelloBytes) return Greeting::kWaiting;
  StarHeader header;
  std::memcpy(&header, stranger.hello.data(), sizeof(header));
  const bool known =
      header.magic == StarHeader{}.magic && header.type == StarType::kHello &&
      header.payload_bytes == sizeof(StarSecret) && header.root >= 1 && header.root < size &&
      std::memcmp(stranger.hello.data() + sizeof(header), secret.data(), secret.size()) == 0;
  *rank = header.root;
  return known ? Greeting::kKnown : Greeting::kRefused;
}

// The sockets of ranks 1 to size − 1, in that order. Whoever does not know the secret
// is dropped, and of those that say nothing no more than a bounded number are kept.
absl::StatusOr<std::vector<Fd>> AcceptAll(const Fd& listener, int size, const StarSecret& secret,
                                          NcclDeadline deadline) {
  std::vector<Fd> known(static_cast<size_t>(size));
  std::deque<Stranger> strangers;
  const size_t most = static_cast<size_t>(size) + 64;
  int missing = size - 1;
  while (missing > 0) {
    if (steady_clock::now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("nccl: connect: ", size - missing, " of ",
                                                      size, " ranks came before the deadline"));
    }
    std::vector<pollfd> fds{{.fd = listener.get(), .events = POLLIN, .revents = 0}};
    for (const Stranger& stranger : strangers) {
      fds.push_back({.fd = stranger.socket.get(), .events = POLLIN, .revents = 0});
    }
    ::poll(fds.data(), fds.size(), PollMs(deadline));
    for (size_t i = strangers.size(); i-- > 0;) {
      if (fds[i + 1].revents == 0) continue;
      int rank = 0;
      const Greeting greeting = ReadHello(strangers[i], size, secret, &rank);
      if (greeting == Greeting::kWaiting) continue;
      if (greeting == Greeting::kKnown && !known[static_cast<size_t>(rank)].valid()) {
        known[static_cast<size_t>(rank)] = std::move(strangers[i].socket);
        --missing;
      }
      strangers.erase(strangers.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (fds[0].revents == 0) continue;
    Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) continue;
    TuneSocket(socket.get());
    if (strangers.size() >= most) strangers.pop_front();
    strangers.push_back({.socket = std::move(socket), .hello = {}, .got = 0});
  }
  known.erase(known.begin());
  return known;
}

}  // namespace

std::string NcclAddress::Encode() const {
  std::string out(kAddressMagic, kMagicBytes);
  PutU32(out, static_cast<size_t>(size));
  out.append(secret.data(), secret.size());
  PutU32(out, ids.size());
  for (const NcclUniqueId& id : ids) out.append(id.bytes, sizeof(id.bytes));
  PutU32(out, static_cast<size_t>(port));
  PutU32(out, host.size());
  return out + host;
}

absl::StatusOr<NcclAddress> NcclAddress::Decode(const std::string& bytes, size_t ids) {
  Reader reader(bytes);
  std::string magic(kMagicBytes, '\0');
  NcclAddress address;
  uint32_t size = 0, count = 0, port = 0, host = 0;
  bool good = reader.Take(magic.data(), magic.size()) && magic == kAddressMagic &&
              reader.TakeU32(&size) && size >= 1 && size <= 1u << 20 &&
              reader.Take(address.secret.data(), address.secret.size()) && reader.TakeU32(&count) &&
              count == ids;
  address.ids.resize(ids);
  for (NcclUniqueId& id : address.ids) good = good && reader.Take(id.bytes, sizeof(id.bytes));
  good = good && reader.TakeU32(&port) && port <= 65535 && reader.TakeU32(&host) &&
         host == reader.left();
  if (!good) return absl::InvalidArgumentError("nccl: connect: not an address of a rank 0");
  address.host.resize(host);
  reader.Take(address.host.data(), host);
  address.size = static_cast<int>(size);
  address.port = static_cast<int>(port);
  return address;
}

absl::StatusOr<Fd> ListenOn(const std::string& host, std::string* number, int* port) {
  ASSIGN_OR_RETURN(const AddrInfo info, Resolve(host, 0));
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  Fd fd(::socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid() || ::bind(fd.get(), info->ai_addr, info->ai_addrlen) != 0 ||
      ::listen(fd.get(), SOMAXCONN) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return absl::UnavailableError(absl::StrCat("nccl: can't listen on ", host, ": ", ErrnoText(),
                                               "; name an address that this machine has"));
  }
  char name[NI_MAXHOST];
  const int rc = ::getnameinfo(reinterpret_cast<sockaddr*>(&bound), size, name, sizeof(name),
                               nullptr, 0, NI_NUMERICHOST);
  *number = rc == 0 ? name : host;
  *port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                            : reinterpret_cast<sockaddr_in&>(bound).sin_port);
  return fd;
}

NcclStar::NcclStar() : wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  TUNDRA_CHECK(wake_.valid()) << "eventfd: " << ErrnoText();
}

absl::StatusOr<std::unique_ptr<NcclStar>> NcclStar::Accept(Fd listener, int size,
                                                           const StarSecret& secret,
                                                           NcclDeadline deadline) {
  ASSIGN_OR_RETURN(std::vector<Fd> sockets, AcceptAll(listener, size, secret, deadline));
  std::unique_ptr<NcclStar> star(new NcclStar());
  for (size_t i = 0; i < sockets.size(); ++i) {
    Link& link = star->links_.emplace_back();
    link.rank = static_cast<int>(i) + 1;
    link.socket = std::move(sockets[i]);
  }
  star->SendToAll({.type = StarType::kGo}, nullptr, 0);
  return star;
}

absl::StatusOr<std::unique_ptr<NcclStar>> NcclStar::Join(const NcclAddress& address, int rank,
                                                         NcclDeadline deadline) {
  ASSIGN_OR_RETURN(Fd socket, ConnectTo(address.host, address.port, deadline));
  std::unique_ptr<NcclStar> star(new NcclStar());
  Link& link = star->links_.emplace_back();
  link.socket = std::move(socket);
  star->Send(0, {.type = StarType::kHello, .root = rank}, address.secret.data(),
             address.secret.size());
  std::vector<StarMessage> messages;
  while (messages.empty()) {
    if (steady_clock::now() >= deadline) {
      return absl::DeadlineExceededError(
          "nccl: connect: not all ranks came to rank 0 before the deadline");
    }
    int lost = 0;
    std::string why;
    const auto wait = std::chrono::milliseconds(PollMs(deadline));
    if (!star->Poll(wait, &messages, &lost, &why) && messages.empty()) {
      return absl::UnavailableError(absl::StrCat("nccl: connect: ", why));
    }
  }
  // Nothing follows before this rank has come to a call.
  if (messages[0].header.type == StarType::kGo) return star;
  return absl::UnavailableError("nccl: connect: rank 0 has left the group");
}

void NcclStar::Send(int to, StarHeader header, const void* payload, size_t payload_bytes) {
  header.payload_bytes = payload_bytes;
  for (Link& link : links_) {
    if (link.rank != to) continue;
    std::vector<std::byte> bytes(sizeof(header) + payload_bytes);
    std::memcpy(bytes.data(), &header, sizeof(header));
    if (payload_bytes > 0) std::memcpy(bytes.data() + sizeof(header), payload, payload_bytes);
    link.out.push_back(std::move(bytes));
    Write(link);
    return;
  }
}

void NcclStar::SendToAll(const StarHeader& header, const void* payload, size_t payload_bytes) {
  for (const Link& link : links_) Send(link.rank, header, payload, payload_bytes);
}

// When the connection is gone, so is what was to be written: a rank that has closed
// wants no more, and of one that has died reading tells.
void NcclStar::Write(Link& link) {
  while (!link.out.empty()) {
    const std::vector<std::byte>& front = link.out.front();
    const ssize_t n = ::send(link.socket.get(), front.data() + link.out_done,
                             front.size() - link.out_done, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return;
      link.out.clear();
      link.out_done = 0;
      return;
    }
    link.out_done += static_cast<size_t>(n);
    if (link.out_done < front.size()) continue;
    link.out.pop_front();
    link.out_done = 0;
  }
}

// False when the connection is gone or carries what no rank sends.
bool NcclStar::Read(Link& link, std::vector<StarMessage>* messages, std::string* why) {
  std::array<std::byte, 64 << 10> chunk;
  bool open = true;
  // A bound, so that one sender can't keep this thread from its other work.
  for (int i = 0; i < 64 && open; ++i) {
    const ssize_t n = ::recv(link.socket.get(), chunk.data(), chunk.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) {
      *why = absl::StrCat("rank ", link.rank, " is gone: ",
                          n == 0 ? std::string("its connection was closed") : ErrnoText());
      open = false;
      break;
    }
    link.in.insert(link.in.end(), chunk.begin(), chunk.begin() + n);
  }
  size_t at = 0;
  while (link.in.size() - at >= sizeof(StarHeader)) {
    StarMessage message;
    message.from = link.rank;
    std::memcpy(&message.header, link.in.data() + at, sizeof(StarHeader));
    if (message.header.magic != StarHeader{}.magic ||
        message.header.payload_bytes > kNcclMaxHostBytes) {
      *why = absl::StrCat("rank ", link.rank, " sent what is no message of this collective");
      return false;
    }
    const size_t total = sizeof(StarHeader) + message.header.payload_bytes;
    if (link.in.size() - at < total) break;
    const auto begin = link.in.begin() + static_cast<std::ptrdiff_t>(at);
    message.payload.assign(begin + sizeof(StarHeader), begin + static_cast<std::ptrdiff_t>(total));
    messages->push_back(std::move(message));
    at += total;
  }
  link.in.erase(link.in.begin(), link.in.begin() + static_cast<std::ptrdiff_t>(at));
  return open;
}

bool NcclStar::Poll(std::chrono::nanoseconds wait, std::vector<StarMessage>* messages, int* lost,
                    std::string* why) {
  std::vector<pollfd> fds{{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
  for (const Link& link : links_) {
    const short events = static_cast<short>(link.out.empty() ? POLLIN : POLLIN | POLLOUT);
    fds.push_back({.fd = link.socket.get(), .events = events, .revents = 0});
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait);
  const timespec timeout{.tv_sec = seconds.count(), .tv_nsec = (wait - seconds).count()};
  if (::ppoll(fds.data(), fds.size(), &timeout, nullptr) <= 0) return true;
  if (fds[0].revents != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof(count));
  }
  bool open = true;
  for (size_t i = 0; i < links_.size(); ++i) {
    if ((fds[i + 1].revents & POLLOUT) != 0) Write(links_[i]);
    if ((fds[i + 1].revents & ~POLLOUT) == 0) continue;
    std::string reason;
    if (Read(links_[i], messages, &reason) || !open) continue;
    open = false;
    *lost = links_[i].rank;
    *why = reason;
  }
  return open;
}

bool NcclStar::flushed() const {
  return std::all_of(links_.begin(), links_.end(),
                     [](const Link& link) { return link.out.empty(); });
}

void NcclStar::Flush(std::chrono::nanoseconds limit) {
  const NcclDeadline deadline = steady_clock::now() + limit;
  while (true) {
    std::vector<pollfd> fds;
    for (Link& link : links_) {
      Write(link);
      if (link.out.empty()) continue;
      fds.push_back({.fd = link.socket.get(), .events = POLLOUT, .revents = 0});
    }
    if (fds.empty() || steady_clock::now() >= deadline) return;
    ::poll(fds.data(), fds.size(), PollMs(deadline));
  }
}

void NcclStar::Wake() {
  const uint64_t one = 1;
  // Full means that it is awake already.
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof(one));
}

void NcclStar::Shutdown() {
  for (const Link& link : links_) ::shutdown(link.socket.get(), SHUT_RDWR);
}

}  // namespace tundra::internal
