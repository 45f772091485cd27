// Groups of ranks as threads, for every backend that can have them.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/status_test_util.h"
#include "worker/collective/collective_gloo.h"
#include "worker/collective/collective_local.h"
#include "worker/collective/collective_nccl.h"
#include "worker/collective/nccl_stand_in.h"

namespace tundra::testing {

// kNcclOnHost: the NCCL collective with everything on the host, as its headers are.
enum class Backend { kLocal, kGloo, kNccl, kNcclOnHost };

inline const auto kBackends =
    ::testing::Values(Backend::kLocal, Backend::kGloo, Backend::kNccl, Backend::kNcclOnHost);

inline std::string BackendName(Backend backend) {
  switch (backend) {
    case Backend::kLocal:
      return "Local";
    case Backend::kGloo:
      return "Gloo";
    case Backend::kNccl:
      return "Nccl";
    case Backend::kNcclOnHost:
      return "NcclOnHost";
  }
  return "";
}

// No test may use NCCL or CUDA in a way that they forbid.
class StandInMisuse : public ::testing::Environment {
 public:
  void TearDown() override { EXPECT_THAT(NcclStandInMisuse(), ::testing::IsEmpty()); }
};
inline ::testing::Environment* const kStandInMisuse =
    ::testing::AddGlobalTestEnvironment(new StandInMisuse());

// Sets on_host in every call.
class OnHostCollective : public Collective {
 public:
  explicit OnHostCollective(std::unique_ptr<Collective> device) : device_(std::move(device)) {}
  int rank() const override { return device_->rank(); }
  int size() const override { return device_->size(); }
  absl::Status AllReduceSum(std::span<int64_t> values, const CallOptions& options) override {
    return device_->AllReduceSum(values, OnHost(options));
  }
  absl::Status AllReduceMax(std::span<float> values, const CallOptions& options) override {
    return device_->AllReduceMax(values, OnHost(options));
  }
  absl::Status AllReduceMax(std::span<double> values, const CallOptions& options) override {
    return device_->AllReduceMax(values, OnHost(options));
  }
  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all,
                         const CallOptions& options) override {
    return device_->AllGather(mine, all, OnHost(options));
  }
  absl::Status Broadcast(std::span<std::byte> bytes, int root,
                         const CallOptions& options) override {
    return device_->Broadcast(bytes, root, OnHost(options));
  }
  absl::Status Barrier(const CallOptions& options) override {
    return device_->Barrier(OnHost(options));
  }
  void Abort(std::string_view reason) override { device_->Abort(reason); }
  absl::Status status() const override { return device_->status(); }
  CollectiveStats stats() const override { return device_->stats(); }

 private:
  static CallOptions OnHost(CallOptions options) {
    options.on_host = true;
    return options;
  }

  const std::unique_ptr<Collective> device_;
};

class OnHostBootstrap : public CollectiveBootstrap {
 public:
  explicit OnHostBootstrap(std::unique_ptr<CollectiveBootstrap> device)
      : device_(std::move(device)) {}
  std::string local_address() const override { return device_->local_address(); }
  absl::StatusOr<std::unique_ptr<Collective>> Connect(const std::vector<std::string>& addresses,
                                                      absl::Duration timeout) override {
    ASSIGN_OR_RETURN(auto collective, device_->Connect(addresses, timeout));
    return std::make_unique<OnHostCollective>(std::move(collective));
  }

 private:
  const std::unique_ptr<CollectiveBootstrap> device_;
};

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
    auto bootstrap = [&]() -> absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> {
      switch (backend) {
        case Backend::kLocal:
          return local.Bootstrap(r);
        case Backend::kGloo:
          return NewGlooBootstrap({.rank = r, .size = size, .chunk_bytes = chunk_bytes});
        case Backend::kNccl:
        case Backend::kNcclOnHost:
          break;
      }
      NcclOptions options;
      options.api = &NcclStandIn();
      options.rank = r;
      options.size = size;
      options.device = NewStandInDevice();
      return NewNcclBootstrap(options);
    }();
    EXPECT_THAT(bootstrap, IsOk());
    if (!bootstrap.ok()) continue;
    if (backend == Backend::kNcclOnHost) {
      *bootstrap = std::make_unique<OnHostBootstrap>(*std::move(bootstrap));
    }
    bootstraps.push_back(*std::move(bootstrap));
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
