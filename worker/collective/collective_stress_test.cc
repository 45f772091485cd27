// Groups that end at a random moment, in the middle of whatever runs: every rank
// gets an error and returns, and the results up to then were right. The seed is
// printed; TUNDRA_STRESS_ROUNDS asks for more than the default few.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <random>

#include "worker/collective/collective_test_util.h"

namespace tundra::testing {
namespace {

constexpr CallOptions kOnCompute{.timeout = absl::Seconds(60)};
constexpr CallOptions kOnGather{.timeout = absl::Seconds(60), .channel = Channel::kGather};

int Rounds() {
  const char* rounds = std::getenv("TUNDRA_STRESS_ROUNDS");
  return rounds != nullptr ? std::atoi(rounds) : 6;
}

// Reduces and broadcasts until the group ends; counts calls that worked.
void Compute(Collective& c, std::atomic<int64_t>& calls) {
  for (int64_t i = 0;; ++i, ++calls) {
    const auto count = static_cast<size_t>(1 + i * 977 % 30'000);
    std::vector<int64_t> values(count, c.rank() + i);
    if (!c.AllReduceSum(values, kOnCompute).ok()) return;
    const int64_t n = c.size();
    ASSERT_EQ(values.back(), n * (n - 1) / 2 + n * i);
    std::vector<std::byte> bytes(count, static_cast<std::byte>(c.rank()));
    const int root = static_cast<int>(i) % c.size();
    if (!c.Broadcast(bytes, root, kOnCompute).ok()) return;
    ASSERT_EQ(bytes.back(), static_cast<std::byte>(root));
  }
}

void Gather(Collective& c, std::atomic<int64_t>& calls) {
  for (int64_t i = 0;; ++i, ++calls) {
    const auto count = static_cast<size_t>(1 + i * 1009 % 40'000);
    std::vector<std::byte> mine(count, static_cast<std::byte>(c.rank() + i));
    std::vector<std::byte> all(count * static_cast<size_t>(c.size()));
    if (!c.AllGather(mine, all, kOnGather).ok()) return;
    ASSERT_EQ(all.back(), static_cast<std::byte>(c.size() - 1 + i));
  }
}

class CollectiveStress : public ::testing::TestWithParam<Backend> {};
INSTANTIATE_TEST_SUITE_P(Backends, CollectiveStress, kBackends,
                         [](const auto& info) { return BackendName(info.param); });

TEST_P(CollectiveStress, AbortsAtRandomMomentsEndEveryCall) {
  const uint32_t seed = 20'241;
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < Rounds(); ++round) {
    const int size = 2 + static_cast<int>(random() % 3);
    Group group = NewGroup(GetParam(), size);
    const auto victim = static_cast<size_t>(random() % static_cast<uint32_t>(size));
    const int64_t after = static_cast<int64_t>(random() % 60);
    std::atomic<int64_t> calls{0};
    std::vector<std::thread> threads;
    for (const auto& c : group) {
      threads.emplace_back([&, c = c.get()] { Compute(*c, calls); });
      threads.emplace_back([&, c = c.get()] { Gather(*c, calls); });
    }
    // The moment is counted in calls, not in time; where in a call it strikes is
    // up to the scheduler, which is the point.
    while (calls < after) std::this_thread::yield();
    group[victim]->Abort("stress");
    for (std::thread& thread : threads) thread.join();
    for (size_t r = 0; r < group.size(); ++r) {
      EXPECT_EQ(absl::IsAborted(group[r]->status()), r == victim) << group[r]->status();
      EXPECT_EQ(absl::IsUnavailable(group[r]->status()), r != victim) << group[r]->status();
    }
  }
}

}  // namespace
}  // namespace tundra::testing
