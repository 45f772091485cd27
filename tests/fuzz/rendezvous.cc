// How ranks find each other: the addresses that travel through the coordinator, and what comes on
// rank 0's port of the NCCL collective, from a rank that knows the secret and from one that does
// not.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

#include "tests/fuzz/target.h"
#include "worker/collective/collective_nccl.h"
#include "worker/collective/gloo_mesh.h"
#include "worker/collective/nccl_star.h"

namespace {

using namespace tundra;
using namespace tundra::internal;
using std::chrono::steady_clock;

void Addresses(const std::string& text) {
  const auto address = NcclAddress::Decode(text, 2);
  if (address.ok()) EXPECT_FUZZ(address->Encode() == text);
  for (const int size : {1, 2, 3}) {
    const auto parsed = ParseGlooAddress(text, 0, size - 1, size);
    if (parsed.ok()) EXPECT_FUZZ(parsed->size() == (size == 1 ? 0 : kChannels));
  }
}

Fd ConnectTo(int port) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_FUZZ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  return fd;
}

void SendAndEnd(const Fd& fd, std::string_view bytes) {
  (void)::send(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  ::shutdown(fd.get(), SHUT_WR);
}

// The bytes as a stranger's greeting, and as what rank 1 says once it was let in.
void Star(std::string_view bytes) {
  std::string host;
  int port = 0;
  auto listener = ListenOn("127.0.0.1", &host, &port);
  EXPECT_FUZZ(listener.ok());
  const StarSecret secret = {'s', 'e', 'c', 'r', 'e', 't'};
  const Fd stranger = ConnectTo(port);
  SendAndEnd(stranger, bytes);
  const Fd rank = ConnectTo(port);
  const StarHeader hello = {.type = StarType::kHello, .root = 1, .payload_bytes = secret.size()};
  std::string greeting(reinterpret_cast<const char*>(&hello), sizeof(hello));
  greeting.append(secret.data(), secret.size());
  SendAndEnd(rank, greeting.append(bytes));
  auto star = NcclStar::Accept(*std::move(listener), 2, secret,
                               steady_clock::now() + std::chrono::seconds(20));
  EXPECT_FUZZ(star.ok());
  std::vector<StarMessage> messages;
  int lost = 0;
  std::string why;
  while ((*star)->Poll(std::chrono::seconds(20), &messages, &lost, &why)) {
  }
  EXPECT_FUZZ(lost == 1 && !why.empty());
  for (const StarMessage& message : messages) {
    EXPECT_FUZZ(message.payload.size() == message.header.payload_bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Addresses(std::string(tundra::fuzz::View(data, size)));
  Star(tundra::fuzz::View(data, size));
  return 0;
}
