// The real NCCL, as far as this machine lets it: the library is opened and makes ids
// everywhere; with a GPU a group of one rank works; without one it fails as it should.
// More ranks need more GPUs than one: NCCL refuses two ranks on one.
#include "worker/collective/nccl_cuda.h"

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "common/status_test_util.h"
#include "worker/collective/collective_nccl.h"

namespace tundra::testing {
namespace {

using ::testing::HasSubstr;

class NcclCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    auto api = OpenNccl("127.0.0.1");
    if (absl::IsNotFound(api.status())) {
      GTEST_SKIP() << "no NCCL to test: " << api.status().message();
    }
    TUNDRA_ASSERT_OK(api);
    api_ = *api;
  }

  absl::StatusOr<std::unique_ptr<Collective>> Connect() {
    NcclOptions options;
    options.api = api_;
    auto bootstrap = NewNcclBootstrap(options);
    if (!bootstrap.ok()) return bootstrap.status();
    return (*bootstrap)->Connect({(*bootstrap)->local_address()}, absl::Seconds(60));
  }

  static int Gpus() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
  }

  const NcclApi* api_ = nullptr;
};

TEST_F(NcclCuda, MakesIdsAndKeepsToLoopback) {
  NcclUniqueId a{}, b{};
  ASSERT_EQ(api_->get_unique_id(&a), NcclResult::kSuccess) << api_->last_error(nullptr);
  ASSERT_EQ(api_->get_unique_id(&b), NcclResult::kSuccess);
  EXPECT_NE(std::memcmp(&a, &b, sizeof(a)), 0);
  EXPECT_THAT(api_->error_string(NcclResult::kInvalidUsage), HasSubstr("usage"));
  EXPECT_STREQ(std::getenv("NCCL_SOCKET_IFNAME"), "=lo");
}

TEST_F(NcclCuda, WithoutAGpuConnectSaysSo) {
  if (Gpus() > 0) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_THAT(Connect(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cudaSetDevice")));
}

TEST_F(NcclCuda, OneRankReducesGathersAndBroadcasts) {
  if (Gpus() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto c, Connect());
  constexpr size_t kCount = 10'001;
  int64_t* device = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), 8 * kCount), cudaSuccess);
  std::vector<int64_t> host(kCount);
  for (size_t i = 0; i < kCount; ++i) host[i] = static_cast<int64_t>(i * i) - 7;
  ASSERT_EQ(cudaMemcpy(device, host.data(), 8 * kCount, cudaMemcpyDefault), cudaSuccess);
  const std::span<int64_t> values(device, kCount);
  TUNDRA_EXPECT_OK(c->AllReduceSum(values));
  TUNDRA_EXPECT_OK(c->Broadcast(std::as_writable_bytes(values), 0));
  TUNDRA_EXPECT_OK(c->AllGather(std::as_bytes(values), std::as_writable_bytes(values),
                                {.channel = Channel::kGather}));
  std::vector<int64_t> back(kCount);
  ASSERT_EQ(cudaMemcpy(back.data(), device, 8 * kCount, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(back, host);
  auto* maxima = reinterpret_cast<float*>(device);
  const float in[2] = {-3.5f, std::nanf("1")};
  float out[2] = {};
  ASSERT_EQ(cudaMemcpy(maxima, in, sizeof(in), cudaMemcpyDefault), cudaSuccess);
  TUNDRA_EXPECT_OK(c->AllReduceMax(std::span<float>(maxima, 2)));
  ASSERT_EQ(cudaMemcpy(out, maxima, sizeof(out), cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(out[0], -3.5f);
  EXPECT_TRUE(std::isnan(out[1]));
  cudaFree(device);
}

}  // namespace
}  // namespace tundra::testing
