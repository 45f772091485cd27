// Small parts of a worker: flags, ids, the metrics page, the base catalog, the pool.
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/synchronization/notification.h"
#include "common/files.h"
#include "common/status_test_util.h"
#include "worker/base_catalog.h"
#include "worker/devices.h"
#include "worker/metrics_server.h"
#include "worker/supervisor.h"
#include "worker/task_pool.h"

namespace tundra::worker {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::tundra::testing::StatusIs;
namespace fs = std::filesystem;

TEST(DevicesTest, AreParsedOrTheFormsAreNamed) {
  EXPECT_EQ(ParseDevices("cpu")->cpus, 1);
  EXPECT_EQ(ParseDevices("cpu:3")->cpus, 3);
  EXPECT_EQ(ParseDevices("all")->form, DeviceChoice::Form::kAll);
  EXPECT_EQ(ParseDevices("cuda")->form, DeviceChoice::Form::kCuda);
  EXPECT_THAT(ParseDevices("cuda:0,2")->ordinals, ::testing::ElementsAre(0, 2));
  for (const char* bad : {"", "cpu:", "cpu:0", "cpu:-1", "cpu:257", "cpu:2x", "gpu:1",
                          "cuda:", "cuda:x", "cuda:0,", "cuda:-1", "cuda:256", "cpu:99999999999"}) {
    EXPECT_THAT(ParseDevices(bad), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cpu:N")))
        << bad;
  }
}

TEST(DevicesTest, MeetOverNcclWhereEveryRankHasAGpuOfItsOwn) {
  FoundDevice cpu;
  cpu.info.set_kind("cpu");
  FoundDevice gpu;
  gpu.info.set_kind("cuda");
  FoundDevice second = gpu;
  second.ordinal = 1;
  EXPECT_EQ(*ChooseCollective("auto", {cpu, cpu}), "gloo");
  EXPECT_EQ(*ChooseCollective("auto", {gpu, second}), "nccl");
  EXPECT_EQ(*ChooseCollective("auto", {gpu, gpu}), "gloo");
  EXPECT_EQ(*ChooseCollective("gloo", {gpu, second}), "gloo");
  EXPECT_EQ(*ChooseCollective("nccl", {gpu}), "nccl");
  EXPECT_THAT(ChooseCollective("nccl", {gpu, gpu}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("of its own")));
  EXPECT_THAT(ChooseCollective("nccl", {cpu}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--collective gloo")));
  gpu.no_nccl = "no library";
  EXPECT_EQ(*ChooseCollective("auto", {gpu}), "gloo");
  EXPECT_THAT(ChooseCollective("nccl", {gpu}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no library")));
}

TEST(DevicesTest, ThreadsAreDividedAndNeverNone) {
  EXPECT_EQ(ThreadsPerRank(8, 2), 4);
  EXPECT_EQ(ThreadsPerRank(1, 4), 1);
  EXPECT_GE(ThreadsPerRank(0, 1), 1);
}

TEST(WorkerDirTest, KeepsItsIdAndIsHeldByOneWorkerOnly) {
  TempDir dir;
  TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string id, OpenWorkerDir(dir / "w"));
  EXPECT_TRUE(IsPlainId(id));
  EXPECT_EQ(*ReadFile(dir / "w/worker_id"), id);
  EXPECT_THAT(OpenWorkerDir(dir / "w"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--data-dir")));
}

TEST(WorkerDirTest, RefusesAnIdThatIsNone) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "worker_id", "../x\n"));
  EXPECT_THAT(OpenWorkerDir(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("remove")));
}

TEST(PlainIdTest, NothingThatCouldLeaveItsFolder) {
  EXPECT_TRUE(IsPlainId("job-0a9Z_"));
  for (const std::string& bad : {std::string(), std::string(".."), std::string("a/b"),
                                 std::string("a\0b", 3), std::string(129, 'a')}) {
    EXPECT_FALSE(IsPlainId(bad)) << bad;
  }
}

TEST(MetricsServerTest, ServesProbesAndFigures) {
  std::atomic<bool> connected{false};
  TUNDRA_ASSERT_OK_AND_ASSIGN(
      const auto server,
      MetricsServer::Start("127.0.0.1:0", {.connected = [&] { return connected.load(); },
                                           .metrics = [] { return "tundra_steps_total 41\n"; }}));
  httplib::Client client("127.0.0.1", server->port());
  EXPECT_EQ(client.Get("/healthz")->status, 200);
  EXPECT_EQ(client.Get("/readyz")->status, 503);
  connected = true;
  EXPECT_EQ(client.Get("/readyz")->status, 200);
  EXPECT_EQ(client.Get("/metrics")->body, "tundra_steps_total 41\n");
}

TEST(MetricsServerTest, SaysThatThePortIsTaken) {
  const WorkerProbes probes{.connected = [] { return true; }, .metrics = [] { return ""; }};
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto first, MetricsServer::Start("127.0.0.1:0", probes));
  const std::string same = "127.0.0.1:" + std::to_string(first->port());
  EXPECT_THAT(MetricsServer::Start(same, probes),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("--http")));
  for (const char* bad : {"127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1"}) {
    EXPECT_THAT(MetricsServer::Start(bad, probes),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("HOST:PORT")))
        << bad;
  }
}

TEST(TaskPoolTest, EndsWithTasksInTheQueue) {
  absl::Notification begun, go_on;
  std::atomic<int> ran{0};
  {
    TaskPool pool(1);
    pool.Add([&] {
      begun.Notify();
      go_on.WaitForNotification();
      ++ran;
    });
    begun.WaitForNotification();
    pool.Add([&] { ++ran; });
    go_on.Notify();
  }
  EXPECT_GE(ran, 1);
}

class BaseCatalogTest : public ::testing::Test {
 protected:
  void Copy(const std::string& name) {
    const char* source = std::getenv("TUNDRA_SOURCE_DIR");
    ASSERT_NE(source, nullptr) << "run by ctest, or set TUNDRA_SOURCE_DIR";
    fs::copy(std::string(source) + "/tests/parity/golden/peft/mqa_tied_llama3/base",
             dir_ / ("bases/" + name), fs::copy_options::recursive);
  }
  void SetUp() override { fs::create_directories(dir_ / "bases"); }
  TempDir dir_;
};

TEST_F(BaseCatalogTest, OffersGoodBasesAndLeavesBrokenOnesOut) {
  Copy("good");
  Copy("truncated");
  fs::resize_file(dir_ / "bases/truncated/model.safetensors", 1000);
  Copy("no-weights");
  fs::remove(dir_ / "bases/no-weights/model.safetensors");
  Copy("broken-config");
  std::ofstream(dir_ / "bases/broken-config/config.json") << "{";
  fs::create_directories(dir_ / "bases/not-a-base");
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseCatalog catalog,
                              BaseCatalog::Scan({dir_ / "bases"}, dir_ / "cache"));
  ASSERT_EQ(catalog.bases().size(), 1u);
  const auto& base = catalog.bases()[0].base();
  EXPECT_EQ(base.display_name(), "good");
  EXPECT_GT(base.parameters(), 0);
  TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string dir, catalog.DirOf(base.name().substr(6)));
  EXPECT_TRUE(fs::equivalent(dir, dir_ / "bases/good"));
  EXPECT_THAT(catalog.DirOf("0"), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_NE(catalog.TextFile(catalog.bases()[0].text_files(0).sha256()), "");
  EXPECT_EQ(catalog.TextFile("0"), "");
}

TEST_F(BaseCatalogTest, OneBaseInTwoFoldersIsOneBase) {
  Copy("a");
  Copy("b");
  TUNDRA_ASSERT_OK_AND_ASSIGN(
      const BaseCatalog catalog,
      BaseCatalog::Scan({dir_ / "bases", dir_ / "bases/b"}, dir_ / "cache"));
  EXPECT_EQ(catalog.bases().size(), 1u);
}

TEST_F(BaseCatalogTest, AMissingFolderIsAnErrorWithTheRemedy) {
  EXPECT_THAT(BaseCatalog::Scan({dir_ / "none"}, dir_ / "cache").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("--base-dir")));
}

}  // namespace
}  // namespace tundra::worker
