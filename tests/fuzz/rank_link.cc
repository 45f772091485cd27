// What a rank and its supervisor read from each other's end of their link.
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/target.h"
#include "worker/link.h"
#include "worker/rank_control.pb.h"

namespace {

using namespace tundra;

template <typename Message>
void ReadAll(std::string_view bytes) {
  auto pair = worker::Link::MakePair();
  EXPECT_FUZZ(pair.ok());
  Fd sender = std::move(pair->first);
  worker::Link link(std::move(pair->second));
  // What the socket has room for; the rest is as if the sender had died.
  (void)::send(sender.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  sender.Reset();
  Message message;
  std::vector<Fd> fds;
  while (link.Receive(&message, &fds).ok()) EXPECT_FUZZ(fds.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ReadAll<worker::ToRank>(fuzz::View(data, size));
  ReadAll<worker::FromRank>(fuzz::View(data, size));
  return 0;
}
