// The NCCL collective's own promises, over the stand-in: what happens when NCCL, CUDA
// or a peer fails or hangs at any point, who is told, that everything is aborted and
// nothing destroyed, in what order work is launched. What it shares with the other
// backends: collective_contract_test.cc, collective_faults_test.cc.
#include "worker/collective/collective_nccl.h"

#include <sys/socket.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <numeric>

#include "absl/time/clock.h"
#include "worker/collective/collective_internal.h"
#include "worker/collective/collective_nccl_fixture.h"
#include "worker/collective/nccl_star.h"

namespace tundra::testing {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Lt;

// --- faults in a call -------------------------------------------------------------

struct CallFault {
  NcclFault fault;
  // Whether the rank where it strikes knows at once, or at its deadline.
  bool at_once;
  bool wedges;
  const char* says;
};

class NcclCallFaults : public NcclTest, public ::testing::WithParamInterface<CallFault> {};

INSTANTIATE_TEST_SUITE_P(
    Faults, NcclCallFaults,
    ::testing::Values(CallFault{NcclFault::kLaunchFails, true, false, "unhandled cuda error"},
                      CallFault{NcclFault::kAsyncError, true, false, "remote process exited"},
                      CallFault{NcclFault::kDeviceError, true, false, "unspecified launch failure"},
                      CallFault{NcclFault::kEnqueueHangs, false, false, "did not finish within"},
                      CallFault{NcclFault::kKernelHangs, false, false, "did not finish within"},
                      CallFault{NcclFault::kLaunchHangs, false, true, "did not finish within"},
                      CallFault{NcclFault::kQueryHangs, false, true, "did not finish within"}),
    [](const auto& info) -> std::string {
      switch (info.param.fault) {
        case NcclFault::kLaunchFails:
          return "LaunchFails";
        case NcclFault::kAsyncError:
          return "AsyncError";
        case NcclFault::kDeviceError:
          return "DeviceError";
        case NcclFault::kEnqueueHangs:
          return "EnqueueHangs";
        case NcclFault::kKernelHangs:
          return "KernelHangs";
        case NcclFault::kLaunchHangs:
          return "LaunchHangs";
        case NcclFault::kQueryHangs:
          return "QueryHangs";
        default:
          return "Other";
      }
    });

// At rank 1 of 3 in its second collective, while its other channel waits.
TEST_P(NcclCallFaults, EndTheCallsOfAllRanksAndAbortEverything) {
  const CallFault param = GetParam();
  ConnectAll(3, param.wedges ? absl::Milliseconds(300) : kSoon);
  InjectNcclFault(device(1), param.fault, 1);
  const absl::Time start = absl::Now();
  const auto hit = [&](int r) {
    Collective& c = rank(r);
    std::vector<int64_t> values(1000, r + 1);
    TUNDRA_EXPECT_OK(c.AllReduceSum(values));
    EXPECT_EQ(values.back(), 6);
    const bool short_of_time = r == 1 && !param.at_once;
    const absl::Status status =
        c.AllReduceSum(values, {.timeout = short_of_time ? absl::Milliseconds(300) : kPatience});
    EXPECT_THAT(status,
                StatusIs(short_of_time ? absl::StatusCode::kDeadlineExceeded
                                       : absl::StatusCode::kUnavailable,
                         // A rank that is stuck can't tell why it leaves.
                         HasSubstr(param.wedges && r != 1 ? "rank 1 is gone" : param.says)));
    EXPECT_EQ(c.status(), status);
    EXPECT_EQ(c.Barrier(), status);
  };
  std::vector<std::thread> waiting;
  for (int r = 0; r < 2; ++r) {
    waiting.emplace_back([&, r] {
      EXPECT_THAT(rank(r).Barrier({.timeout = kPatience, .channel = Channel::kGather}),
                  AnyOf(StatusIs(absl::StatusCode::kUnavailable, _),
                        StatusIs(absl::StatusCode::kDeadlineExceeded, _)));
    });
  }
  OnAllRanks(3, hit);
  for (std::thread& thread : waiting) thread.join();
  EXPECT_LT(absl::Now() - start, kSoon);
  if (param.wedges) {
    EXPECT_TRUE(Eventually([&] { return wedged().size() == 1; }));
    ASSERT_EQ(wedged().size(), 1u);
    EXPECT_EQ(wedged()[0].first, 1);
    EXPECT_THAT(wedged()[0].second,
                AllOf(HasSubstr("NCCL or CUDA has not returned"), HasSubstr(param.says)));
    // Nobody aborts a communicator under a function that is still in it.
    EXPECT_EQ(StandInCounts(device(1)).aborted, 0);
    return;
  }
  ExpectAllAborted();
  EXPECT_THAT(wedged(), IsEmpty());
}

TEST_F(NcclTest, ErrorsBetweenCallsAreNoticed) {
  ConnectAll(2);
  InjectNcclFault(device(0), NcclFault::kAsyncError, 0);
  // Rank 0's gather fails; the compute channels, where nobody calls, end with it.
  OnAllRanks(2, [&](int r) {
    std::vector<std::byte> all(2);
    EXPECT_THAT(rank(r).AllGather(std::span(all).first(1), all, {.channel = Channel::kGather}),
                StatusIs(absl::StatusCode::kUnavailable, _));
    EXPECT_THAT(rank(r).Barrier(), StatusIs(absl::StatusCode::kUnavailable, _));
  });
  ExpectAllAborted();
}

// --- aborts that hang -------------------------------------------------------------

TEST_F(NcclTest, AnAbortThatNeverReturnsWedgesTheRankAndNoCallWaitsForIt) {
  ConnectAll(2, absl::Milliseconds(300));
  InjectNcclFault(device(1), NcclFault::kKernelHangs, 0);
  InjectNcclFault(device(1), NcclFault::kAbortHangs);
  const absl::Time start = absl::Now();
  OnAllRanks(2, [&](int r) {
    std::vector<int64_t> values(1000);
    EXPECT_THAT(
        rank(r).AllReduceSum(values, {.timeout = r == 1 ? absl::Milliseconds(200) : kPatience}),
        StatusIs(r == 1 ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kUnavailable, _));
  });
  EXPECT_LT(absl::Now() - start, kSoon);
  EXPECT_TRUE(Eventually([&] { return !wedged().empty(); }));
  ASSERT_EQ(wedged().size(), 1u);
  EXPECT_EQ(wedged()[0].first, 1);
  EXPECT_THAT(wedged()[0].second, HasSubstr("ncclCommAbort has not returned within 300ms"));
}

TEST_F(NcclTest, AnAbortThatNeverReturnsIsNoticedThoughNobodyCalls) {
  ConnectAll(2, absl::Milliseconds(300));
  InjectNcclFault(device(0), NcclFault::kAbortHangs);
  const absl::Time start = absl::Now();
  rank(0).Abort("the job was cancelled");
  EXPECT_LT(absl::Now() - start, kSoon);
  group_.clear();  // nor does anybody own the group any more
  EXPECT_TRUE(Eventually([&] { return !wedged().empty(); }));
  EXPECT_THAT(wedged()[0].second, HasSubstr("the job was cancelled"));
}

// --- peers that go ----------------------------------------------------------------

// Rank 1 as a process that is killed: it has taken part in everything so far, and
// then its connection is closed without a word.
TEST_F(NcclTest, ADeadPeerIsUnavailable) {
  Make(3);
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto address,
                              internal::NcclAddress::Decode(addresses_[0], kChannels));
  OnAllRanks(3, [&](int r) {
    if (r != 1) {
      TUNDRA_ASSERT_OK(Connect(r, kPatience));
      std::vector<int64_t> values(10);
      const absl::Time start = absl::Now();
      EXPECT_THAT(rank(r).AllReduceSum(values, {.timeout = kPatience}),
                  StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1 is gone")));
      EXPECT_LT(absl::Now() - start, kSoon);
      return;
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    TUNDRA_ASSERT_OK_AND_ASSIGN(auto star, internal::NcclStar::Join(address, 1, deadline));
    NcclStandIn().set_device(device(1));
    for (const NcclUniqueId& id : address.ids) {
      NcclComm comm = nullptr;
      NcclStandIn().init_rank(&comm, 3, id, 1);
      ASSERT_NE(comm, nullptr);
      NcclResult result = NcclResult::kInProgress;
      EXPECT_TRUE(Eventually([&] {
        NcclStandIn().get_async_error(comm, &result);
        return result == NcclResult::kSuccess;
      }));
    }
    star->Send(0,
               {.type = internal::StarType::kArrive,
                .kind = static_cast<int>(internal::CollectiveKind::kBarrier)},
               nullptr, 0);
    std::vector<internal::StarMessage> messages;
    int lost = 0;
    std::string why;
    while (messages.empty() && star->Poll(std::chrono::seconds(1), &messages, &lost, &why)) {
    }
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_EQ(messages[0].header.type, internal::StarType::kGo);
  });
  for (const int r : {0, 2}) {
    EXPECT_TRUE(Eventually([&] { return StandInCounts(device(r)).aborted == 2; }));
  }
}

TEST_F(NcclTest, NothingIsLaunchedForARankThatDoesNotCome) {
  ConnectAll(3);
  OnAllRanks(3, [&](int r) {
    if (r == 2) return;
    std::vector<int64_t> values(10);
    EXPECT_THAT(rank(r).AllReduceSum(values, {.timeout = absl::Milliseconds(300)}),
                AnyOf(StatusIs(absl::StatusCode::kUnavailable, _),
                      StatusIs(absl::StatusCode::kDeadlineExceeded, _)));
  });
  for (int r = 0; r < 3; ++r) EXPECT_THAT(StandInCounts(device(r)).launched, IsEmpty());
}

TEST_F(NcclTest, RanksThatDisagreeAreToldHowAndNothingIsLaunched) {
  const std::vector<std::function<absl::Status(Collective&, bool)>> calls = {
      [](Collective& c, bool odd) {
        std::vector<int64_t> values(odd ? 10 : 11);
        return c.AllReduceSum(values);
      },
      [](Collective& c, bool odd) {
        std::vector<int64_t> values(10);
        return c.AllReduceSum(values, {.on_host = odd});
      },
      [](Collective& c, bool odd) {
        std::vector<std::byte> bytes(10);
        return c.Broadcast(bytes, odd ? 1 : 0);
      },
      [](Collective& c, bool odd) {
        std::vector<std::byte> bytes(80);
        std::vector<int64_t> values(10);
        return odd ? c.Broadcast(bytes, 0) : c.AllReduceSum(values);
      },
  };
  for (const auto& call : calls) {
    devices_.clear();
    bootstraps_.clear();
    addresses_.clear();
    ConnectAll(3);
    OnAllRanks(3, [&](int r) {
      EXPECT_THAT(call(rank(r), r == 2),
                  StatusIs(absl::StatusCode::kFailedPrecondition,
                           AllOf(HasSubstr("ranks disagree"), HasSubstr("rank 2 calls"))));
    });
    for (int r = 0; r < 3; ++r) EXPECT_THAT(StandInCounts(device(r)).launched, IsEmpty());
  }
}

TEST_F(NcclTest, TwoThreadsOnOneChannelAreRefused) {
  ConnectAll(2);
  OnAllRanks(2, [&](int) {
    EXPECT_THAT(rank(0).Barrier({.timeout = kPatience}),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another thread")));
  });
}

// --- order and streams ------------------------------------------------------------

// Two communicators whose work is launched in different orders may block each other
// on a device. Here the ranks come to their channels in orders of their own.
TEST_F(NcclTest, AllRanksLaunchInOneOrder) {
  constexpr int kRounds = 40;
  ConnectAll(3);
  OnAllRanks(3, [&](int r) {
    const auto sums = [&] {
      for (int i = 0; i < kRounds; ++i) {
        std::vector<int64_t> values(100, i);
        TUNDRA_ASSERT_OK(rank(r).AllReduceSum(values));
        EXPECT_EQ(values.back(), 3 * i);
      }
    };
    const auto gathers = [&] {
      for (int i = 0; i < kRounds; ++i) {
        std::vector<std::byte> mine(50, static_cast<std::byte>(r)), all(150);
        TUNDRA_ASSERT_OK(rank(r).AllGather(mine, all, {.channel = Channel::kGather}));
        EXPECT_EQ(all.back(), std::byte{2});
      }
    };
    std::thread other(r == 0 ? std::function<void()>(sums) : gathers);
    r == 0 ? gathers() : sums();
    other.join();
  });
  const std::vector<int> order = StandInCounts(device(0)).launched;
  EXPECT_EQ(order.size(), 2u * kRounds);
  EXPECT_EQ(std::accumulate(order.begin(), order.end(), 0), kRounds);
  for (int r = 1; r < 3; ++r) EXPECT_EQ(StandInCounts(device(r)).launched, order);
}

TEST_F(NcclTest, ACallStartsAfterTheWorkOnItsStream) {
  ConnectAll(2);
  const CudaStream stream = NewBusyStandInStream(device(0));
  std::atomic<bool> finished{false};
  std::vector<float> maxima = {1, 2};
  OnAllRanks(2, [&](int r) {
    std::thread finisher;
    if (r == 0) {
      finisher = std::thread([&] {
        // That calls elsewhere go through shows that the pump runs meanwhile.
        for (int i = 0; i < 50; ++i) {
          TUNDRA_EXPECT_OK(rank(0).Barrier({.channel = Channel::kGather}));
        }
        EXPECT_THAT(StandInCounts(device(0)).launched, IsEmpty());
        finished = true;
        FinishStandInWork(stream);
      });
    } else {
      finisher = std::thread([&] {
        for (int i = 0; i < 50; ++i) {
          TUNDRA_EXPECT_OK(rank(1).Barrier({.channel = Channel::kGather}));
        }
      });
    }
    std::vector<int64_t> values(10, 1);
    TUNDRA_EXPECT_OK(rank(r).AllReduceSum(values, {.stream = r == 0 ? stream : nullptr}));
    EXPECT_TRUE(finished);
    finisher.join();
  });
}

TEST_F(NcclTest, WorkThatNeverEndsOnTheStreamEndsTheCallAtItsDeadline) {
  ConnectAll(1);
  const CudaStream stream = NewBusyStandInStream(device(0));
  std::vector<int64_t> values(10);
  EXPECT_THAT(rank(0).AllReduceSum(values, {.timeout = absl::Milliseconds(200), .stream = stream}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  ExpectAllAborted();
}

TEST_F(NcclTest, OneRankLaunchesToo) {
  ConnectAll(1);
  std::vector<int64_t> values = {3, 4};
  TUNDRA_EXPECT_OK(rank(0).AllReduceSum(values));
  EXPECT_EQ(values, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(StandInCounts(device(0)).launched.size(), 1u);
}

TEST_F(NcclTest, WhatLiesOnTheHostDoesNotTouchTheDevice) {
  ConnectAll(2);
  OnAllRanks(2, [&](int r) {
    const CallOptions on_host{.on_host = true};
    std::vector<int64_t> sums(5, r);
    TUNDRA_EXPECT_OK(rank(r).AllReduceSum(sums, on_host));
    EXPECT_EQ(sums.back(), 1);
    std::vector<std::byte> header(20, static_cast<std::byte>(r));
    TUNDRA_EXPECT_OK(rank(r).Broadcast(header, 1, on_host));
    EXPECT_EQ(header.back(), std::byte{1});
    std::vector<double> maxima = {r == 0 ? std::nan("") : 1.0};
    TUNDRA_EXPECT_OK(rank(r).AllReduceMax(maxima, on_host));
    EXPECT_TRUE(std::isnan(maxima[0]));
  });
  for (int r = 0; r < 2; ++r) EXPECT_THAT(StandInCounts(device(r)).launched, IsEmpty());
}

TEST_F(NcclTest, TooMuchForTheHostsIsRefusedAndTheGroupLivesOn) {
  ConnectAll(2);
  std::vector<std::byte> large(kNcclMaxHostBytes + 2);
  EXPECT_THAT(rank(0).Broadcast(large, 0, {.on_host = true}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("in parts")));
  EXPECT_THAT(rank(0).AllGather(std::span(large).first(large.size() / 2), large, {.on_host = true}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("in parts")));
  OnAllRanks(2, [&](int r) { TUNDRA_EXPECT_OK(rank(r).Barrier()); });
}

}  // namespace
}  // namespace tundra::testing
