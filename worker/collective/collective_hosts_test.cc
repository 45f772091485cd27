// Groups whose ranks are on two hosts: two network namespaces of this machine, joined by one
// cable. Skipped where the test may not make any.
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <barrier>
#include <cstdlib>

#include "absl/time/clock.h"
#include "common/files.h"
#include "worker/collective/collective_test_util.h"

namespace tundra::testing {
namespace {

constexpr int kRanks = 4;  // two on each host
constexpr absl::Duration kPatience = absl::Seconds(60);

bool Does(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

// Hosts 0 and 1 with the addresses 10.213.7.1 and 10.213.7.2.
class TwoHosts {
 public:
  TwoHosts() {
    made_ = Does("ip netns add " + name(0)) && Does("ip netns add " + name(1)) &&
            Does("ip -n " + name(0) + " link add cable type veth peer name cable netns " + name(1));
    for (const int host : {0, 1}) {
      made_ = made_ &&
              Does("ip -n " + name(host) + " address add " + address(host) + "/24 dev cable") &&
              Does("ip -n " + name(host) + " link set cable up") &&
              Does("ip -n " + name(host) + " link set lo up");
    }
  }
  ~TwoHosts() {
    for (const int host : {0, 1}) Does("ip netns del " + name(host));
  }

  bool made() const { return made_; }
  static std::string address(int host) { return absl::StrCat("10.213.7.", host + 1); }

  // Puts the calling thread, and what it will open, on a host.
  bool Enter(int host) const {
    const Fd space(::open(("/run/netns/" + name(host)).c_str(), O_RDONLY | O_CLOEXEC));
    return space.get() >= 0 && ::setns(space.get(), CLONE_NEWNET) == 0;
  }
  bool Cut() const { return Does("ip -n " + name(0) + " link set cable down"); }

 private:
  static std::string name(int host) { return absl::StrCat("tundra-", ::getpid(), "-", host); }
  bool made_ = false;
};

absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> NewBootstrap(Backend backend, int rank,
                                                                  int device,
                                                                  const std::string& host) {
  if (backend == Backend::kGloo) {
    GlooOptions options;
    options.hostname = host;
    options.rank = rank;
    options.size = kRanks;
    return NewGlooBootstrap(options);
  }
  NcclOptions options;
  options.api = &NcclStandIn();
  options.rank = rank;
  options.size = kRanks;
  options.device = device;
  options.hostname = host;
  return NewNcclBootstrap(options);
}

class AcrossHosts : public ::testing::TestWithParam<Backend> {};

TEST_P(AcrossHosts, RanksMeetWorkTogetherAndNoticeACutCable) {
  TwoHosts hosts;
  if (!hosts.made()) {
    GTEST_SKIP() << "no network namespaces can be made here: that needs root and iproute2's ip";
  }
  std::vector<int> devices;
  for (int r = 0; r < kRanks; ++r) devices.push_back(NewStandInDevice());
  std::vector<std::string> addresses(kRanks);
  std::barrier meet(kRanks);
  const auto live = [&](int rank) {
    const int host = rank / 2;
    ASSERT_TRUE(hosts.Enter(host));
    auto bootstrap =
        NewBootstrap(GetParam(), rank, devices[static_cast<size_t>(rank)], TwoHosts::address(host));
    TUNDRA_EXPECT_OK(bootstrap);
    if (bootstrap.ok()) addresses[static_cast<size_t>(rank)] = (*bootstrap)->local_address();
    meet.arrive_and_wait();
    TUNDRA_ASSERT_OK(bootstrap);
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto group, (*bootstrap)->Connect(addresses, kPatience));
    std::vector<int64_t> sums(100000, rank);
    TUNDRA_EXPECT_OK(group->AllReduceSum(sums));
    EXPECT_EQ(sums.front(), 6);
    EXPECT_EQ(sums.back(), 6);
    std::vector<std::byte> mine(5000, static_cast<std::byte>(rank)), all(kRanks * mine.size());
    TUNDRA_EXPECT_OK(group->AllGather(mine, all, {.channel = Channel::kGather}));
    for (int r = 0; r < kRanks; ++r) {
      EXPECT_EQ(all[static_cast<size_t>(r) * 5000 + 4999], static_cast<std::byte>(r));
    }
    int64_t word = rank;
    TUNDRA_EXPECT_OK(
        group->Broadcast(std::as_writable_bytes(std::span(&word, 1)), 3, {.on_host = true}));
    EXPECT_EQ(word, 3);
    TUNDRA_EXPECT_OK(group->Barrier());
    meet.arrive_and_wait();
    if (rank == 0) {
      EXPECT_TRUE(hosts.Cut());
    }
    meet.arrive_and_wait();
    const absl::Time start = absl::Now();
    const absl::Status cut = group->AllReduceSum(sums, {.timeout = absl::Seconds(1)});
    EXPECT_TRUE(absl::IsDeadlineExceeded(cut) || absl::IsUnavailable(cut)) << cut;
    EXPECT_LT(absl::Now() - start, kPatience);
    EXPECT_FALSE(group->status().ok());
    meet.arrive_and_wait();
  };
  std::vector<std::thread> ranks;
  for (int r = 0; r < kRanks; ++r) ranks.emplace_back(live, r);
  for (std::thread& rank : ranks) rank.join();
  for (const int device : devices) ReleaseStandIn(device);
}

INSTANTIATE_TEST_SUITE_P(Backends, AcrossHosts, ::testing::Values(Backend::kGloo, Backend::kNccl),
                         [](const auto& info) { return BackendName(info.param); });

}  // namespace
}  // namespace tundra::testing
