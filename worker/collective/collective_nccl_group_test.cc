// Life of a group over the NCCL stand-in: how ranks meet, which channels have
// communicators, and how a group that lives is closed.
#include <sys/socket.h>

#include "worker/collective/collective_nccl_fixture.h"
#include "worker/collective/nccl_star.h"

namespace tundra::testing {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Lt;

// --- connecting -------------------------------------------------------------------

TEST_F(NcclTest, AnInitThatNeverFinishesEndsAtTheDeadlineAndIsAborted) {
  for (const int communicator : {0, 1}) {
    devices_.clear();
    bootstraps_.clear();
    addresses_.clear();
    Make(3);
    InjectNcclFault(device(2), NcclFault::kInitHangs, communicator);
    const absl::Time start = absl::Now();
    OnAllRanks(3, [&](int r) {
      EXPECT_THAT(
          Connect(r, r == 2 ? absl::Milliseconds(500) : kPatience),
          StatusIs(r == 2 ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kUnavailable,
                   HasSubstr("had no communicators within 500ms")));
    });
    EXPECT_LT(absl::Now() - start, kSoon);
    ExpectAllAborted();
    EXPECT_EQ(StandInCounts(device(2)).made, communicator + 1);
  }
  EXPECT_THAT(wedged(), IsEmpty());
}

TEST_F(NcclTest, AnInitCallThatNeverReturnsEndsAtTheDeadlineAndWedges) {
  Make(2, absl::Milliseconds(300));
  InjectNcclFault(device(1), NcclFault::kInitCallHangs, 0);
  OnAllRanks(2, [&](int r) {
    EXPECT_THAT(
        Connect(r, r == 1 ? absl::Milliseconds(500) : kPatience),
        StatusIs(r == 1 ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kUnavailable, _));
  });
  EXPECT_TRUE(Eventually([&] { return wedged().size() == 1; }));
  EXPECT_EQ(wedged()[0].first, 1);
}

TEST_F(NcclTest, AnInitThatFailsIsToldToAllRanks) {
  Make(3);
  InjectNcclFault(device(1), NcclFault::kInitFails, 1);
  OnAllRanks(3, [&](int r) {
    EXPECT_THAT(Connect(r, kPatience),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("invalid usage")));
  });
  ExpectAllAborted();
}

TEST_F(NcclTest, OnlyRankZeroHasAnAddress) {
  Make(3);
  EXPECT_FALSE(addresses_[0].empty());
  EXPECT_EQ(addresses_[1], "");
  EXPECT_EQ(addresses_[2], "");
  auto two = internal::NcclAddress::Decode(addresses_[0], kChannels);
  TUNDRA_ASSERT_OK(two);
  EXPECT_EQ(two->size, 3);
  for (size_t cut = 0; cut < addresses_[0].size(); cut += 7) {
    EXPECT_THAT(internal::NcclAddress::Decode(addresses_[0].substr(0, cut), kChannels),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not an address")));
  }
  addresses_[0] += "x";
  EXPECT_THAT(Connect(1, kSoon), StatusIs(absl::StatusCode::kInvalidArgument, _));
}

// Who knows the port but not the secret neither gets in nor holds anybody up.
TEST_F(NcclTest, StrangersAreTurnedAway) {
  Make(2);
  TUNDRA_ASSERT_OK_AND_ASSIGN(auto address,
                              internal::NcclAddress::Decode(addresses_[0], kChannels));
  const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  address.secret[3] = static_cast<char>(address.secret[3] + 1);
  std::thread stranger([&] {
    EXPECT_THAT(internal::NcclStar::Join(address, 1, soon).status(),
                StatusIs(absl::StatusCode::kUnavailable, _));
  });
  OnAllRanks(2, [&](int r) {
    if (r == 1) stranger.join();  // turned away before the right one comes
    TUNDRA_EXPECT_OK(Connect(r, kPatience));
  });
}

// --- channels ---------------------------------------------------------------------

// One communicator is enough for a group that only sums, or only gathers, on the device.
TEST_F(NcclTest, OnlyChannelsWithCallsOnTheDeviceHaveACommunicator) {
  Make(2, kSoon, {false, true});
  OnAllRanks(2, [&](int r) { TUNDRA_ASSERT_OK(Connect(r, kSoon)); });
  for (const int device : devices_) EXPECT_EQ(StandInCounts(device).made, 1);
  OnAllRanks(2, [&](int r) {
    std::vector<int64_t> sums = {r};
    EXPECT_THAT(rank(r).AllReduceSum(sums), StatusIs(absl::StatusCode::kInvalidArgument,
                                                     HasSubstr("channel 0 of this group has no")));
    TUNDRA_EXPECT_OK(rank(r).AllReduceSum(sums, {.channel = Channel::kGather}));
    EXPECT_EQ(sums[0], 1);
    TUNDRA_EXPECT_OK(rank(r).AllReduceSum(sums, {.on_host = true}));
    EXPECT_EQ(sums[0], 2);
    std::vector<float> maxima = {static_cast<float>(r)};
    TUNDRA_EXPECT_OK(rank(r).AllReduceMax(maxima));
    EXPECT_EQ(maxima[0], 1);
    TUNDRA_EXPECT_OK(rank(r).Barrier());
  });
  group_.clear();
  for (const int device : devices_) {
    EXPECT_TRUE(Eventually([&] { return StandInCounts(device).destroyed == 1; }));
  }
}

// --- the end of a group that lives ------------------------------------------------

TEST_F(NcclTest, ClosingDestroysTheCommunicators) {
  ConnectAll(3);
  OnAllRanks(3, [&](int r) {
    std::vector<int64_t> values(100);
    TUNDRA_EXPECT_OK(rank(r).AllReduceSum(values));
  });
  // The first to go takes the others along; none has work in flight.
  group_[1].reset();
  for (const int r : {0, 2}) {
    EXPECT_THAT(rank(r).Barrier(), StatusIs(absl::StatusCode::kUnavailable,
                                            HasSubstr("rank 1 left the group: the collective was "
                                                      "closed")));
  }
  for (int r = 0; r < 3; ++r) {
    EXPECT_TRUE(Eventually([&] { return StandInCounts(device(r)).destroyed == 2; })) << r;
    EXPECT_EQ(StandInCounts(device(r)).aborted, 0);
  }
}

// The others finish and leave while rank 0 is still at it: what it has to tell them
// then has no taker, which must not keep its call.
TEST_F(NcclTest, ACallEndsThoughThePeersHaveFinishedItAndClosed) {
  ConnectAll(3);
  InjectNcclFault(device(0), NcclFault::kKernelEndsLate, 0);
  OnAllRanks(3, [&](int r) {
    std::vector<int64_t> values(100, r);
    TUNDRA_EXPECT_OK(rank(r).AllReduceSum(values, {.timeout = kSoon}));
    EXPECT_EQ(values.back(), 3);
    if (r == 0) return;
    if (r == 2) {
      EXPECT_TRUE(Eventually([&] { return StandInCounts(device(1)).destroyed == 2; }));
    }
    group_[static_cast<size_t>(r)].reset();
  });
  for (int r = 0; r < 3; ++r) {
    EXPECT_TRUE(Eventually([&] { return StandInCounts(device(r)).destroyed == 2; })) << r;
  }
}

TEST_F(NcclTest, ClosingAbortsWhatDoesNotFinalize) {
  ConnectAll(2, absl::Milliseconds(300));
  InjectNcclFault(device(0), NcclFault::kFinalizeHangs);
  const absl::Time start = absl::Now();
  group_.clear();
  EXPECT_LT(absl::Now() - start, kSoon);
  EXPECT_TRUE(Eventually([&] { return StandInCounts(device(0)).aborted == 2; }));
  EXPECT_EQ(StandInCounts(device(0)).destroyed, 0);
  EXPECT_THAT(wedged(), IsEmpty());
}

TEST(NcclBootstrapTest, RefusesBadOptions) {
  NcclOptions options;
  EXPECT_THAT(NewNcclBootstrap(options), StatusIs(absl::StatusCode::kInvalidArgument, _));
  options.api = &NcclStandIn();
  options.rank = 2;
  options.size = 2;
  EXPECT_THAT(NewNcclBootstrap(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 2")));
  options.rank = 0;
  options.hostname = "host.invalid";
  EXPECT_THAT(NewNcclBootstrap(options),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("host.invalid")));
}

}  // namespace
}  // namespace tundra::testing
