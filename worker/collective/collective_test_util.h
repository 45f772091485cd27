// Groups of ranks as threads, for every backend that can have them.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_test_util.h"
#include "worker/collective/collective_gloo.h"
#include "worker/collective/collective_local.h"

namespace tundra::testing {

enum class Backend { kLocal, kGloo };

inline std::string BackendName(Backend backend) {
  return backend == Backend::kLocal ? "Local" : "Gloo";
}

using Group = std::vector<std::unique_ptr<Collective>>;

// Runs fn(rank) for every rank at once, each on a thread of its own.
inline void OnAllRanks(int size, const std::function<void(int)>& fn) {
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) threads.emplace_back([&fn, r] { fn(r); });
  for (std::thread& thread : threads) thread.join();
}

// Bootstraps of a new group. chunk_bytes: Gloo's, small so that tests cross it.
inline std::vector<std::unique_ptr<CollectiveBootstrap>> NewBootstraps(Backend backend, int size,
                                                                       size_t chunk_bytes = 4096) {
  std::vector<std::unique_ptr<CollectiveBootstrap>> bootstraps;
  LocalGroup local(size);
  for (int r = 0; r < size; ++r) {
    auto bootstrap = backend == Backend::kLocal
                         ? local.Bootstrap(r)
                         : NewGlooBootstrap({.rank = r, .size = size, .chunk_bytes = chunk_bytes});
    EXPECT_THAT(bootstrap, IsOk());
    if (bootstrap.ok()) bootstraps.push_back(*std::move(bootstrap));
  }
  return bootstraps;
}

inline Group ConnectAll(std::vector<std::unique_ptr<CollectiveBootstrap>> bootstraps) {
  std::vector<std::string> addresses;
  for (const auto& bootstrap : bootstraps) addresses.push_back(bootstrap->local_address());
  Group group(bootstraps.size());
  OnAllRanks(static_cast<int>(bootstraps.size()), [&](int r) {
    auto collective = bootstraps[static_cast<size_t>(r)]->Connect(addresses, absl::Seconds(20));
    EXPECT_THAT(collective, IsOk());
    if (collective.ok()) group[static_cast<size_t>(r)] = *std::move(collective);
  });
  return group;
}

inline Group NewGroup(Backend backend, int size) {
  return ConnectAll(NewBootstraps(backend, size));
}

}  // namespace tundra::testing
