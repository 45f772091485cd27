// The TCP star of the NCCL collective: connections between rank 0 and every other
// rank, and the messages on them. For the NCCL collective only.
//
// Who connects has to show the secret of rank 0's address, so strangers and ranks
// of an older epoch are turned away. All sockets are non-blocking; one thread
// drives them, except where it says otherwise.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/files.h"
#include "worker/collective/nccl_api.h"

namespace tundra::internal {

using NcclDeadline = std::chrono::steady_clock::time_point;

enum class StarType : uint32_t {
  kHello = 1,  // to rank 0: rank and secret
  kArrive,     // to rank 0: the sender has come to the call described
  kGo,         // from rank 0: all ranks have come to it
  kFail,       // the group has failed at rank `root`: status code in `kind`, reason in the payload
  kBye,        // rank `root` closes, having finished all its calls
};

// As it goes over the wire, in the byte order of little-endian machines (all that
// CUDA runs on).
struct StarHeader {
  uint32_t magic = 0x4C434E54;  // "TNCL"
  StarType type = StarType::kHello;
  int32_t channel = 0;
  int32_t kind = 0;  // CollectiveKind
  int32_t root = 0;
  int32_t on_host = 0;
  uint64_t number = 0;         // of the call on its channel
  uint64_t bytes = 0;          // each rank's payload in the call
  uint64_t payload_bytes = 0;  // that follow this header
};
static_assert(sizeof(StarHeader) == 48);

struct StarMessage {
  int from = 0;  // rank
  StarHeader header;
  std::vector<std::byte> payload;
};

using StarSecret = std::array<char, 16>;

// Rank 0's address, and what it holds.
struct NcclAddress {
  int size = 0;
  StarSecret secret{};
  std::vector<NcclUniqueId> ids;  // one a channel
  int port = 0;
  std::string host;

  std::string Encode() const;
  // Errors: kInvalidArgument for anything not written by Encode.
  static absl::StatusOr<NcclAddress> Decode(const std::string& bytes, size_t ids);
};

// Listens on a free port of host. *number: the host's address as a number, so that peers, whose
// names may lead elsewhere, come to this very address. Errors: kUnavailable.
absl::StatusOr<Fd> ListenOn(const std::string& host, std::string* number, int* port);

class NcclStar {
 public:
  // Rank 0: waits until all other ranks have come, then tells them so. Others:
  // connects, and waits for that.
  // Errors: kDeadlineExceeded, kUnavailable.
  static absl::StatusOr<std::unique_ptr<NcclStar>> Accept(Fd listener, int size,
                                                          const StarSecret& secret,
                                                          NcclDeadline deadline);
  static absl::StatusOr<std::unique_ptr<NcclStar>> Join(const NcclAddress& address, int rank,
                                                        NcclDeadline deadline);

  // Puts a message into the queue to that rank (rank 0 for all but rank 0).
  void Send(int to, StarHeader header, const void* payload, size_t payload_bytes);
  void SendToAll(const StarHeader& header, const void* payload, size_t payload_bytes);

  // Writes what can be written and reads what is there, after waiting for either,
  // or for Wake, for at most `wait`. Messages come in the order of each sender.
  // False with *lost and *why when a rank's connection is gone; messages that came
  // before are in *messages still.
  bool Poll(std::chrono::nanoseconds wait, std::vector<StarMessage>* messages, int* lost,
            std::string* why);

  // Whether the kernel has taken all that was sent.
  bool flushed() const;
  // Writes what is left in the queues, for at most `limit`.
  void Flush(std::chrono::nanoseconds limit);

  // From any thread: ends a wait in Poll, or makes the next one return at once.
  void Wake();
  // From any thread, idempotent: the peers see the end of the stream after what
  // was written.
  void Shutdown();

 private:
  struct Link {
    int rank = 0;
    Fd socket;
    std::deque<std::vector<std::byte>> out;
    size_t out_done = 0;  // bytes of out.front() that are written
    std::vector<std::byte> in;
  };

  NcclStar();
  static void Write(Link& link);
  static bool Read(Link& link, std::vector<StarMessage>* messages, std::string* why);

  std::vector<Link> links_;
  Fd wake_;
};

}  // namespace tundra::internal
