// Groups over the NCCL stand-in whose devices the test knows.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "worker/collective/collective_test_util.h"

namespace tundra::testing {

inline constexpr absl::Duration kPatience = absl::Seconds(60);
inline constexpr absl::Duration kSoon = absl::Seconds(20);

// Waits for what other threads are about to do.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

// A group whose devices the test knows, and what its on_wedged calls said.
class NcclTest : public ::testing::Test {
 protected:
  ~NcclTest() override {
    for (const int device : devices_) ReleaseStandIn(device);
  }

  // Ranks with devices of their own; nothing is connected yet.
  void Make(int size, absl::Duration grace = absl::Seconds(10),
            std::array<bool, kChannels> device_channels = {true, true}) {
    for (int r = 0; r < size; ++r) {
      devices_.push_back(NewStandInDevice());
      NcclOptions options;
      options.api = &NcclStandIn();
      options.rank = r;
      options.size = size;
      options.device = devices_.back();
      options.abort_grace = grace;
      options.device_channels = device_channels;
      options.on_wedged = [wedged = wedged_, r](const std::string& reason) {
        const std::lock_guard<std::mutex> lock(wedged->mu);
        wedged->reasons.push_back({r, reason});
      };
      TUNDRA_ASSERT_OK_AND_ASSIGN(auto bootstrap, NewNcclBootstrap(options));
      bootstraps_.push_back(std::move(bootstrap));
    }
    for (const auto& bootstrap : bootstraps_) addresses_.push_back(bootstrap->local_address());
    group_.resize(static_cast<size_t>(size));
    connected_.resize(static_cast<size_t>(size));
  }

  absl::Status Connect(int r, absl::Duration timeout) {
    auto collective = bootstraps_[static_cast<size_t>(r)]->Connect(addresses_, timeout);
    connected_[static_cast<size_t>(r)] = collective.status();
    if (collective.ok()) group_[static_cast<size_t>(r)] = *std::move(collective);
    return collective.status();
  }

  void ConnectAll(int size, absl::Duration grace = absl::Seconds(10)) {
    Make(size, grace);
    OnAllRanks(size, [&](int r) { TUNDRA_EXPECT_OK(Connect(r, kSoon)); });
    for (const auto& c : group_) ASSERT_NE(c, nullptr);
  }

  Collective& rank(int r) { return *group_[static_cast<size_t>(r)]; }
  int device(int r) const { return devices_[static_cast<size_t>(r)]; }
  int size() const { return static_cast<int>(devices_.size()); }

  // Every communicator that was made is aborted, and none destroyed.
  void ExpectAllAborted() {
    for (const int device : devices_) {
      EXPECT_TRUE(Eventually([&] {
        const NcclStandInCounts counts = StandInCounts(device);
        return counts.aborted == counts.made;
      })) << device;
      EXPECT_EQ(StandInCounts(device).destroyed, 0);
    }
  }

  struct Wedged {
    std::mutex mu;
    std::vector<std::pair<int, std::string>> reasons;
  };
  std::vector<std::pair<int, std::string>> wedged() {
    const std::lock_guard<std::mutex> lock(wedged_->mu);
    return wedged_->reasons;
  }

  std::vector<int> devices_;
  std::vector<std::unique_ptr<CollectiveBootstrap>> bootstraps_;
  std::vector<std::string> addresses_;
  std::vector<absl::Status> connected_;
  Group group_;
  // Shared with callbacks that may outlive the test.
  const std::shared_ptr<Wedged> wedged_ = std::make_shared<Wedged>();
};

}  // namespace tundra::testing
