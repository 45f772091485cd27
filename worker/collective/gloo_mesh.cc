// Facts of Debian's Gloo (0.0~git20220518) that shape this file:
// - Each pair listens on a port of its own from its creation on. Which side of a
//   pair connects follows from comparing the two addresses.
// - Pair::connect blocks. With a timeout it waits five times as long, fixed when
//   the pair is made; without one for ever, until the pair is closed from another
//   thread. So pairs have none, and a watchdog closes them at the deadline.
// - It writes with writev, so a peer's death raises SIGPIPE, which is ignored here
//   unless the program handles it.
#include "worker/collective/gloo_mesh.h"

#include <gloo/common/error.h>
#include <gloo/transport/tcp/device.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra::internal {
namespace {

constexpr char kMagic[] = {'T', 'G', 'L', 'O'};

void IgnoreSigpipe() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    if (sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
      action.sa_handler = SIG_IGN;
      sigaction(SIGPIPE, &action, nullptr);
    }
  });
}

void PutU32(std::string& out, size_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

// Reads from the front of `in`; false when it is too short.
bool TakeU32(std::string_view& in, uint32_t& value) {
  if (in.size() < 4) return false;
  value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= uint32_t{static_cast<unsigned char>(in[i])} << (8 * i);
  }
  in.remove_prefix(4);
  return true;
}

// Calls `late` once, from its own thread, unless it is destroyed within `timeout`.
class Watchdog {
 public:
  Watchdog(absl::Duration timeout, std::function<void()> late)
      : thread_([this,
                 deadline = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(timeout),
                 late = std::move(late)] {
          std::unique_lock<std::mutex> lock(mu_);
          if (!done_changed_.wait_until(lock, deadline, [this] { return done_; })) {
            fired_ = true;
            lock.unlock();
            late();
          }
        }) {}
  ~Watchdog() { Stop(); }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Returns whether it was late.
  bool Stop() {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      done_ = true;
    }
    done_changed_.notify_all();
    if (thread_.joinable()) thread_.join();
    return fired_;
  }

 private:
  std::mutex mu_;
  std::condition_variable done_changed_;
  bool done_ = false;
  bool fired_ = false;
  std::thread thread_;  // last: it uses the others
};

absl::Status CheckOptions(const GlooOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("gloo: rank ", options.rank, " is not one of ", options.size));
  }
  if (options.chunk_bytes < 8 || options.chunk_bytes % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("gloo: chunk_bytes is ", options.chunk_bytes,
                                                   "; it must be a multiple of 8 above 0"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GlooMesh>> GlooMesh::Listen(const GlooOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  IgnoreSigpipe();
  std::unique_ptr<GlooMesh> mesh(new GlooMesh(options));
  mesh->address_.assign(kMagic, sizeof(kMagic));
  PutU32(mesh->address_, static_cast<size_t>(options.rank));
  PutU32(mesh->address_, static_cast<size_t>(options.size));
  if (options.size == 1) return mesh;  // nobody to listen to
  try {
    gloo::transport::tcp::attr attr;
    attr.hostname = options.interface.empty() ? options.hostname : "";
    attr.iface = options.interface;
    const auto device = gloo::transport::tcp::CreateDevice(attr);
    for (int c = 0; c < kChannels; ++c) {
      auto context = device->createContext(options.rank, options.size);
      context->setTimeout(gloo::kNoTimeout);
      for (int peer = 0; peer < options.size; ++peer) {
        std::vector<char> bytes;
        if (peer != options.rank) bytes = context->createPair(peer)->address().bytes();
        PutU32(mesh->address_, bytes.size());
        mesh->address_.append(bytes.data(), bytes.size());
      }
      mesh->contexts_.push_back(std::move(context));
    }
  } catch (const std::exception& e) {
    return absl::UnavailableError(absl::StrCat(
        "gloo: can't listen on ",
        options.interface.empty() ? options.hostname : "interface " + options.interface, ": ",
        e.what(), "; name an interface or address that this machine has"));
  }
  return mesh;
}

absl::StatusOr<std::vector<std::vector<char>>> ParseGlooAddress(const std::string& address,
                                                                int from, int to, int size) {
  const auto bad = [&](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat("gloo: address of rank ", from, ": ", why));
  };
  std::string_view in = address;
  if (in.substr(0, sizeof(kMagic)) != std::string_view(kMagic, sizeof(kMagic))) {
    return bad("not a Gloo address");
  }
  in.remove_prefix(sizeof(kMagic));
  uint32_t its_rank = 0, its_size = 0;
  if (!TakeU32(in, its_rank) || !TakeU32(in, its_size)) return bad("cut short");
  if (its_rank != static_cast<uint32_t>(from)) return bad("belongs to another rank");
  if (its_size != static_cast<uint32_t>(size)) return bad("made for another number of ranks");
  std::vector<std::vector<char>> result;
  for (int c = 0; c < kChannels && size > 1; ++c) {
    for (int r = 0; r < size; ++r) {
      uint32_t length = 0;
      if (!TakeU32(in, length) || length > in.size()) return bad("cut short");
      if (length > gloo::transport::Address::kMaxByteSize || (length == 0) != (r == from)) {
        return bad("malformed");
      }
      if (r == to) result.emplace_back(in.begin(), in.begin() + length);
      in.remove_prefix(length);
    }
  }
  if (!in.empty()) return bad("too long");
  return result;
}

absl::Status GlooMesh::Connect(const std::vector<std::string>& addresses, absl::Duration timeout) {
  if (addresses.size() != static_cast<size_t>(options_.size)) {
    return absl::InvalidArgumentError(
        absl::StrCat("gloo: ", addresses.size(), " addresses for ", options_.size, " ranks"));
  }
  std::vector<std::vector<std::vector<char>>> at(addresses.size());  // [rank][channel]
  for (int r = 0; r < options_.size; ++r) {
    const std::string& address = addresses[static_cast<size_t>(r)];
    ASSIGN_OR_RETURN(at[static_cast<size_t>(r)],
                     ParseGlooAddress(address, r, options_.rank, options_.size));
    if (r == options_.rank && address != address_) {
      return absl::InvalidArgumentError(
          absl::StrCat("gloo: the address of rank ", r, " is not the one it has given out"));
    }
  }
  Watchdog watchdog(timeout, [this] { Close(); });
  int peer = 0;
  absl::Status failure;
  try {
    for (int c = 0; c < static_cast<int>(contexts_.size()); ++c) {
      for (peer = 0; peer < options_.size; ++peer) {
        if (peer == options_.rank) continue;
        // Returns, or throws, without having connected when the watchdog closes
        // the pair before or meanwhile.
        channel(c).getPair(peer)->connect(at[static_cast<size_t>(peer)][static_cast<size_t>(c)]);
      }
    }
  } catch (const std::exception& e) {
    failure = absl::UnavailableError(
        absl::StrCat("gloo: connecting rank ", options_.rank, " to rank ", peer, ": ", e.what()));
  }
  if (watchdog.Stop()) {
    return absl::DeadlineExceededError(absl::StrCat("gloo: rank ", options_.rank,
                                                    " had no connection to rank ", peer, " within ",
                                                    absl::FormatDuration(timeout)));
  }
  if (!failure.ok()) Close();
  return failure;
}

void GlooMesh::Close() {
  for (const auto& context : contexts_) {
    for (int peer = 0; peer < options_.size; ++peer) {
      if (peer == options_.rank) continue;
      try {
        context->getPair(peer)->close();
      } catch (const std::exception&) {
        // Closed already, as far as anyone can tell.
      }
    }
  }
}

}  // namespace tundra::internal
