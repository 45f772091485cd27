// How errors leave the service: all faults of a request in one answer, as a
// google.rpc.BadRequest in the status details and in words in the message.
#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace tundra::coordinator {

class Violations {
 public:
  void Add(std::string_view field, std::string_view description);
  // Adds it unless ok.
  void Require(bool ok, std::string_view field, std::string_view description) {
    if (!ok) Add(field, description);
  }
  bool empty() const { return list_.empty(); }
  // OK when there are none, else kInvalidArgument with a BadRequest payload that tells the first.
  absl::Status ToStatus() const;

 private:
  // More are only counted: a request of some megabytes can have millions.
  static constexpr size_t kMostKept = 256;

  std::vector<std::pair<std::string, std::string>> list_;
  size_t left_out_ = 0;
};

// With the payloads as `grpc-status-details-bin`.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace tundra::coordinator
