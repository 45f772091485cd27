// What every backend promises about results: over sizes of groups and messages.
// What they promise about failures: collective_faults_test.cc.
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "worker/collective/collective_test_util.h"

namespace tundra::testing {
namespace {

using ::testing::HasSubstr;

// Elements: none, one, odd, fewer than ranks, over a chunk, over the size from
// which the ring is used.
constexpr size_t kCounts[] = {0, 1, 3, 7, 1025, 20'011};

class CollectiveContract : public ::testing::TestWithParam<std::tuple<Backend, int>> {
 protected:
  Backend backend() const { return std::get<0>(GetParam()); }
  int size() const { return std::get<1>(GetParam()); }

  // Runs body(collective) on every rank of one group.
  void OnGroup(const std::function<void(Collective&)>& body) {
    Group group = NewGroup(backend(), size());
    for (const auto& collective : group) ASSERT_NE(collective, nullptr);
    OnAllRanks(size(), [&](int r) { body(*group[static_cast<size_t>(r)]); });
  }
};

INSTANTIATE_TEST_SUITE_P(Backends, CollectiveContract,
                         ::testing::Combine(kBackends, ::testing::Values(1, 2, 3, 4, 8)),
                         [](const auto& info) {
                           return absl::StrCat(BackendName(std::get<0>(info.param)), "x",
                                               std::get<1>(info.param));
                         });

// 64 well-mixed bits for rank r and index i.
uint64_t Bits(int rank, size_t i) {
  uint64_t x = (static_cast<uint64_t>(rank) << 40) + i + 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// Rank r's i-th number: any bits, extremes among them.
int64_t Number(int rank, size_t i) {
  if (i % 17 == 0) return std::numeric_limits<int64_t>::min();
  if (i % 17 == 1) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(Bits(rank, i));
}

std::byte Byte(int rank, size_t i) {
  return static_cast<std::byte>((i * 31 + static_cast<size_t>(rank) * 101 + 7) & 255);
}

TEST_P(CollectiveContract, KnowsItsRankAndSize) {
  OnGroup([&](Collective& c) {
    EXPECT_EQ(c.size(), size());
    EXPECT_GE(c.rank(), 0);
    EXPECT_LT(c.rank(), size());
    TUNDRA_EXPECT_OK(c.status());
  });
}

TEST_P(CollectiveContract, SumsExactlyAndWrapsInTwosComplement) {
  OnGroup([&](Collective& c) {
    for (const size_t count : kCounts) {
      std::vector<int64_t> values(count), expected(count);
      for (size_t i = 0; i < count; ++i) {
        values[i] = Number(c.rank(), i);
        uint64_t sum = 0;
        for (int r = 0; r < size(); ++r) sum += static_cast<uint64_t>(Number(r, i));
        expected[i] = static_cast<int64_t>(sum);
      }
      TUNDRA_ASSERT_OK(c.AllReduceSum(values));
      ASSERT_EQ(values, expected) << count;
    }
  });
}

template <typename T>
T Magnitude(int rank, size_t i) {
  if (i % 11 == 3 && rank == static_cast<int>(i % 5)) return std::numeric_limits<T>::quiet_NaN();
  if (i % 11 == 4) return rank % 2 == 0 ? T(-0.0) : T(0.0);
  if (i % 11 == 5) return -std::numeric_limits<T>::infinity();
  return static_cast<T>(static_cast<int64_t>(Bits(rank, i))) * T(0x1p-63);
}

template <typename T>
void CheckMax(Collective& c) {
  for (const size_t count : kCounts) {
    std::vector<T> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = Magnitude<T>(c.rank(), i);
    TUNDRA_ASSERT_OK(c.AllReduceMax(values));
    for (size_t i = 0; i < count; ++i) {
      T largest = -std::numeric_limits<T>::infinity();
      bool nan = false, positive_zero = false;
      for (int r = 0; r < c.size(); ++r) {
        const T x = Magnitude<T>(r, i);
        nan = nan || std::isnan(x);
        positive_zero = positive_zero || (x == 0 && !std::signbit(x));
        if (x > largest) largest = x;
      }
      if (nan) {
        const T quiet = std::numeric_limits<T>::quiet_NaN();
        ASSERT_EQ(std::memcmp(&values[i], &quiet, sizeof(T)), 0) << i;
      } else {
        ASSERT_EQ(values[i], largest) << i;
        if (largest == 0) {
          ASSERT_EQ(std::signbit(values[i]), !positive_zero) << i;
        }
      }
    }
  }
}

TEST_P(CollectiveContract, FindsTheLargestAndNanWins) {
  OnGroup([&](Collective& c) {
    CheckMax<float>(c);
    CheckMax<double>(c);
  });
}

TEST_P(CollectiveContract, GathersInRankOrder) {
  OnGroup([&](Collective& c) {
    for (const size_t bytes : {0, 1, 13, 4096, 4097, 100'003}) {
      std::vector<std::byte> mine(bytes), all(bytes * static_cast<size_t>(size()));
      for (size_t i = 0; i < bytes; ++i) mine[i] = Byte(c.rank(), i);
      TUNDRA_ASSERT_OK(c.AllGather(mine, all));
      for (int r = 0; r < size(); ++r) {
        for (size_t i = 0; i < bytes; ++i) {
          ASSERT_EQ(all[static_cast<size_t>(r) * bytes + i], Byte(r, i)) << bytes << " " << r;
        }
      }
    }
  });
}

TEST_P(CollectiveContract, GathersInPlace) {
  OnGroup([&](Collective& c) {
    const size_t bytes = 5000;
    std::vector<std::byte> all(bytes * static_cast<size_t>(size()));
    const std::span<std::byte> mine =
        std::span(all).subspan(bytes * static_cast<size_t>(c.rank()), bytes);
    for (size_t i = 0; i < bytes; ++i) mine[i] = Byte(c.rank(), i);
    TUNDRA_ASSERT_OK(c.AllGather(mine, all));
    for (int r = 0; r < size(); ++r) {
      for (size_t i = 0; i < bytes; ++i) {
        ASSERT_EQ(all[static_cast<size_t>(r) * bytes + i], Byte(r, i));
      }
    }
  });
}

TEST_P(CollectiveContract, BroadcastsFromEveryRoot) {
  OnGroup([&](Collective& c) {
    for (int root = 0; root < size(); ++root) {
      for (const size_t bytes : {0, 1, 4097, 50'001}) {
        std::vector<std::byte> data(bytes);
        for (size_t i = 0; i < bytes; ++i) data[i] = Byte(c.rank(), i);
        TUNDRA_ASSERT_OK(c.Broadcast(data, root));
        for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(data[i], Byte(root, i));
      }
    }
  });
}

TEST_P(CollectiveContract, NobodyPassesABarrierBeforeAllHaveCome) {
  std::atomic<int> arrived{0};
  OnGroup([&](Collective& c) {
    for (int round = 1; round <= 20; ++round) {
      arrived++;
      TUNDRA_ASSERT_OK(c.Barrier());
      EXPECT_GE(arrived.load(), round * size());
      TUNDRA_ASSERT_OK(c.Barrier());
    }
  });
}

TEST_P(CollectiveContract, ChannelsRunBesideEachOther) {
  OnGroup([&](Collective& c) {
    constexpr int kRounds = 30;
    std::thread gatherer([&] {
      const CallOptions on_gather{.channel = Channel::kGather};
      for (int round = 0; round < kRounds; ++round) {
        const auto bytes = static_cast<size_t>(1000 + 517 * round);
        std::vector<std::byte> mine(bytes, static_cast<std::byte>(c.rank() + round));
        std::vector<std::byte> all(bytes * static_cast<size_t>(size()));
        TUNDRA_ASSERT_OK(c.AllGather(mine, all, on_gather));
        for (int r = 0; r < size(); ++r) {
          ASSERT_EQ(all[static_cast<size_t>(r + 1) * bytes - 1], static_cast<std::byte>(r + round));
        }
      }
    });
    for (int round = 0; round < kRounds; ++round) {
      std::vector<int64_t> values(static_cast<size_t>(1 + 700 * (round % 9)), c.rank() + round);
      EXPECT_THAT(c.AllReduceSum(values), IsOk());
      EXPECT_EQ(values.back(), size() * (size() - 1) / 2 + size() * round);
    }
    gatherer.join();
  });
}

TEST_P(CollectiveContract, CountsWhatItMoves) {
  OnGroup([&](Collective& c) {
    std::vector<int64_t> sums(1000, 1);
    std::vector<float> maxima(10, 1);
    std::vector<std::byte> mine(300), all(300 * static_cast<size_t>(size())), some(77);
    TUNDRA_ASSERT_OK(c.Barrier());
    const CollectiveStats before = c.stats();
    TUNDRA_ASSERT_OK(c.AllReduceSum(sums));
    TUNDRA_ASSERT_OK(c.AllReduceMax(maxima));
    TUNDRA_ASSERT_OK(c.AllGather(mine, all));
    TUNDRA_ASSERT_OK(c.Broadcast(some, 0));
    const CollectiveStats after = c.stats();
    EXPECT_EQ(after.bytes_reduced - before.bytes_reduced, 8 * 1000 + 4 * 10);
    EXPECT_EQ(after.bytes_gathered - before.bytes_gathered, 300 * (size() - 1));
    EXPECT_EQ(after.bytes_broadcast - before.bytes_broadcast, 77);
    EXPECT_EQ(after.calls - before.calls, 4);
    EXPECT_GE(after.reduce_seconds, before.reduce_seconds);
  });
}

TEST_P(CollectiveContract, RefusesBadArgumentsAndLivesOn) {
  OnGroup([&](Collective& c) {
    std::vector<std::byte> mine(4), wrong(4 * static_cast<size_t>(size()) + 1);
    EXPECT_THAT(c.AllGather(mine, wrong),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4 bytes each")));
    EXPECT_THAT(c.Broadcast(mine, -1),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("root -1")));
    EXPECT_THAT(c.Broadcast(mine, size()),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("root")));
    EXPECT_THAT(c.Barrier({.timeout = absl::ZeroDuration()}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("timeout")));
    EXPECT_THAT(c.Barrier({.channel = static_cast<Channel>(7)}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("channel")));
    TUNDRA_EXPECT_OK(c.Barrier());
  });
}

TEST_P(CollectiveContract, RefusesAddressesThatAreNotTheGroups) {
  auto bootstraps = NewBootstraps(backend(), size());
  std::vector<std::string> addresses;
  for (const auto& bootstrap : bootstraps) addresses.push_back(bootstrap->local_address());
  addresses.push_back("one too many");
  EXPECT_THAT(bootstraps[0]->Connect(addresses, absl::Seconds(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("addresses for")));
  bootstraps = NewBootstraps(backend(), size());
  addresses.clear();
  for (const auto& bootstrap : bootstraps) addresses.push_back(bootstrap->local_address());
  addresses.back() = "rubbish";
  EXPECT_THAT(bootstraps[0]->Connect(addresses, absl::Seconds(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("address")));
}

TEST_P(CollectiveContract, WhatWasSentArrivesThoughTheSenderHasClosed) {
  Group group = NewGroup(backend(), size());
  OnAllRanks(size(), [&](int r) {
    auto& c = group[static_cast<size_t>(r)];
    std::vector<std::byte> data(200'000, static_cast<std::byte>(r));
    TUNDRA_ASSERT_OK(c->Broadcast(data, 0));
    EXPECT_EQ(data.back(), std::byte{0});
    c.reset();  // the root is first, others may still be reading
  });
}

}  // namespace
}  // namespace tundra::testing
