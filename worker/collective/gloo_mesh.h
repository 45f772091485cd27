// Gloo's connections of one rank: a full mesh of pairs for each channel, its
// address as bytes, and the way from addresses of all ranks to connected pairs.
// For collective_gloo.cc only.
#pragma once

#include <gloo/transport/context.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/collective/collective_gloo.h"

namespace tundra::internal {

class GlooMesh {
 public:
  // Listens: one socket a peer and channel.
  // Errors: kInvalidArgument, kUnavailable.
  static absl::StatusOr<std::unique_ptr<GlooMesh>> Listen(const GlooOptions& options);

  // "TGLO", this rank, the ranks, then for each channel and rank a length and the
  // bytes of the address at which this rank awaits that one (none for itself).
  // Numbers are 32 bits, little-endian.
  const std::string& address() const { return address_; }

  // Connects every pair of every channel; all ranks must do it at the same time.
  // Errors as CollectiveBootstrap::Connect. Call once.
  absl::Status Connect(const std::vector<std::string>& addresses, absl::Duration timeout);

  gloo::transport::Context& channel(int c) { return *contexts_[static_cast<size_t>(c)]; }

  // Resets every connection, so that peers notice at once and waiting connects
  // end. Thread-safe, idempotent.
  void Close();

 private:
  explicit GlooMesh(const GlooOptions& options) : options_(options) {}

  const GlooOptions options_;
  std::vector<std::shared_ptr<gloo::transport::Context>> contexts_;  // one a channel
  std::string address_;
};

// The addresses at which rank `from` awaits rank `to`, one a channel, out of
// from's address(). Errors: kInvalidArgument for anything not written by it for a
// group of this size.
absl::StatusOr<std::vector<std::vector<char>>> ParseGlooAddress(const std::string& address,
                                                                int from, int to, int size);

}  // namespace tundra::internal
