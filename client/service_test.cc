// Commands against a scripted service: following a job over broken connections,
// and downloads that break, do not match, or name files that they must not.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <thread>

#include "client/commands.h"
#include "client/output.h"
#include "client/scripted_service.h"
#include "client/watch.h"
#include "common/files.h"
#include "common/sha256.h"
#include "common/status_test_util.h"

namespace tundra::client {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::tundra::testing::StatusIs;
using tundra::v1::WatchJobResponse;

const grpc::Status kAway(grpc::StatusCode::UNAVAILABLE, "broken on purpose");

WatchJobResponse JobItem(tundra::v1::JobState state) {
  WatchJobResponse item;
  item.mutable_job()->set_name("jobs/job-1");
  item.mutable_job()->set_state(state);
  return item;
}

WatchJobResponse EventItem(int64_t sequence) {
  WatchJobResponse item;
  item.mutable_event()->set_sequence(sequence);
  return item;
}

WatchJobResponse MetricsItem(int64_t sequence) {
  WatchJobResponse item;
  item.mutable_metrics()->set_sequence(sequence);
  return item;
}

TEST(WatchTest, GoesOnAfterTheLastItemSeenWhenTheStreamBreaks) {
  ScriptedService service;
  service.watch = [](int call, grpc::ServerContext*, ScriptedService::WatchWriter* writer) {
    writer->Write(JobItem(call < 2 ? tundra::v1::RUNNING : tundra::v1::SUCCEEDED));
    if (call == 0) writer->Write(EventItem(3));
    if (call == 1) writer->Write(MetricsItem(8));
    return call < 2 ? kAway : grpc::Status::OK;
  };
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto job,
                              WatchJob(service.Open(), "jobs/job-1", WatchStyle::kQuiet));
  EXPECT_EQ(job.state(), tundra::v1::SUCCEEDED);
  EXPECT_THAT(service.after_sequences, ElementsAre(0, 3, 8));
}

TEST(WatchTest, OutlivesAServiceThatIsKilledAndComesBack) {
  ScriptedService service;
  absl::Mutex mu;
  bool watched = false;
  service.watch = [&](int call, grpc::ServerContext* context,
                      ScriptedService::WatchWriter* writer) {
    writer->Write(JobItem(call == 0 ? tundra::v1::RUNNING : tundra::v1::FAILED));
    {
      absl::MutexLock lock(&mu);
      watched = true;
    }
    while (call == 0 && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    return grpc::Status::OK;
  };
  absl::StatusOr<tundra::v1::Job> job;
  std::thread watcher([&] { job = WatchJob(service.Open(), "jobs/job-1", WatchStyle::kQuiet); });
  {
    absl::MutexLock lock(&mu);
    ASSERT_TRUE(mu.AwaitWithTimeout(absl::Condition(&watched), absl::Seconds(30)));
  }
  service.Stop();
  service.Start();
  watcher.join();
  TUNDRA_ASSERT_OK(job);
  EXPECT_EQ(job->state(), tundra::v1::FAILED);
}

TEST(WatchTest, AJobThatIsSilentForLongerThanThePatienceIsNotGivenUp) {
  ScriptedService service;
  const absl::Duration patience = absl::Milliseconds(100);
  service.watch = [&](int call, grpc::ServerContext*, ScriptedService::WatchWriter* writer) {
    writer->Write(JobItem(call == 0 ? tundra::v1::QUEUED : tundra::v1::SUCCEEDED));
    // The time of silence is what is tested; nothing waits for it to be enough.
    if (call == 0) absl::SleepFor(3 * patience);
    return call == 0 ? kAway : grpc::Status::OK;
  };
  TUNDRA_EXPECT_OK(WatchJob(service.Open(), "jobs/job-1", WatchStyle::kQuiet,
                            absl::InfiniteDuration(), patience));
}

TEST(WatchTest, GivesUpOnAServiceThatStaysAway) {
  ScriptedService service;
  service.watch = [](int call, grpc::ServerContext*, ScriptedService::WatchWriter* writer) {
    if (call == 0) writer->Write(JobItem(tundra::v1::RUNNING));
    return kAway;
  };
  EXPECT_THAT(WatchJob(service.Open(), "jobs/job-1", WatchStyle::kQuiet, absl::InfiniteDuration(),
                       absl::Milliseconds(1)),
              StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_GE(service.after_sequences.size(), 2u);
}

TEST(WatchTest, OtherErrorsAndAServiceThatWasNeverThereEndItAtOnce) {
  ScriptedService service;
  service.watch = [](int, grpc::ServerContext*, ScriptedService::WatchWriter*) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no job");
  };
  EXPECT_THAT(WatchJob(service.Open(), "jobs/job-1", WatchStyle::kQuiet),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no job")));
  const Service gone = service.Open();
  service.Stop();
  EXPECT_THAT(WatchJob(gone, "jobs/job-1", WatchStyle::kQuiet),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("tundra local up")));
}

TEST(WatchTest, SaysThatTheJobHasNotEndedInTime) {
  ScriptedService service;
  service.watch = [](int, grpc::ServerContext* context, ScriptedService::WatchWriter* writer) {
    writer->Write(JobItem(tundra::v1::RUNNING));
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    return grpc::Status::OK;
  };
  EXPECT_THAT(WatchJob(service.Open(), "jobs/job-1", WatchStyle::kQuiet, absl::Milliseconds(300)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, _));
}

TEST(JobName, TellsIdsFromNames) {
  ScriptedService service;
  service.caller.set_tenant("tenants/mine");
  service.job.set_name("jobs/job-found");
  EXPECT_EQ(*service.Open().JobName("jobs/anything"), "jobs/anything");
  EXPECT_EQ(*service.Open().JobName("job-0123456789abcdefghij"), "jobs/job-0123456789abcdefghij");
  EXPECT_TRUE(service.filters.empty());
  EXPECT_EQ(*service.Open().JobName("job-nightly"), "jobs/job-found");
  EXPECT_THAT(service.filters, ElementsAre("display_name = \"job-nightly\" AND tenant = \"mine\""));
}

class DownloadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    service_.job.set_name("jobs/" + kJob);
    service_.job.mutable_adapter()->set_name("jobs/" + kJob + "/adapter");
    Offer("adapter.bin", kBytes);
    service_.download = [](int, int64_t offset, ScriptedService::FileWriter* writer) {
      Send(writer, kBytes.substr(static_cast<size_t>(offset)));
      return grpc::Status::OK;
    };
  }
  void Offer(const std::string& name, const std::string& bytes) {
    service_.job.mutable_adapter()->clear_files();
    auto& file = *service_.job.mutable_adapter()->add_files();
    file.set_filename(name);
    file.set_sha256(Sha256Hex(bytes));
    file.set_size_bytes(static_cast<int64_t>(bytes.size()));
  }
  static void Send(ScriptedService::FileWriter* writer, const std::string& bytes) {
    tundra::v1::DownloadFileResponse response;
    response.set_chunk(bytes);
    writer->Write(response);
  }
  // The exit code of `tundra download JOB --to DIR`.
  int Download() {
    CLI::App app;
    CommonFlags common;
    client::Run run;
    AddDownload(app, common, &run);
    app.parse("download " + kJob + " --to " + dir_.path() + "/out --address " + service_.address());
    return run();
  }
  std::string File(const std::string& name) {
    return ReadFile(dir_ / ("out/" + name)).value_or("");
  }

  static inline const std::string kJob = "job-0123456789abcdefghij";
  static inline const std::string kBytes = "0123456789";
  ScriptedService service_;
  TempDir dir_;
};

TEST_F(DownloadTest, GoesOnWhereTheStreamBroke) {
  service_.download = [](int call, int64_t offset, ScriptedService::FileWriter* writer) {
    Send(writer, kBytes.substr(static_cast<size_t>(offset), call == 0 ? 4 : std::string::npos));
    return call == 0 ? kAway : grpc::Status::OK;
  };
  EXPECT_EQ(Download(), kOk);
  EXPECT_EQ(File("adapter.bin"), kBytes);
  EXPECT_THAT(service_.offsets, ElementsAre(0, 4));
  EXPECT_FALSE(FileExists(dir_ / "out/adapter.bin.part"));
}

TEST_F(DownloadTest, LeftOversOfAnotherAdapterDoNotStandInTheWay) {
  TUNDRA_ASSERT_OK(MakeDirs(dir_ / "out"));
  for (const std::string& left : {std::string("xxxx"), std::string(1000, 'x')}) {
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "out/adapter.bin.part", left));
    EXPECT_EQ(Download(), kOk);
    EXPECT_EQ(File("adapter.bin"), kBytes);
  }
}

TEST_F(DownloadTest, BytesThatDoNotMatchAreRefusedAndNotKept) {
  for (const std::string& wrong : {std::string("012345678X"), std::string(5000, 'x')}) {
    service_.download = [&](int, int64_t, ScriptedService::FileWriter* writer) {
      Send(writer, wrong);
      return grpc::Status::OK;
    };
    EXPECT_EQ(Download(), kBadInput);
    EXPECT_FALSE(FileExists(dir_ / "out/adapter.bin"));
    EXPECT_FALSE(FileExists(dir_ / "out/adapter.bin.part"));
  }
}

TEST_F(DownloadTest, NamesThatWouldLeaveTheFolderAreRefused) {
  for (const std::string& name : {std::string("../x"), std::string("/etc/x"), std::string(".."),
                                  std::string(".bashrc"), std::string("a/b"), std::string()}) {
    Offer(name, kBytes);
    EXPECT_EQ(Download(), kBadInput) << name;
  }
  EXPECT_TRUE(service_.offsets.empty()) << "nothing was asked for";
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "out"));
}

TEST_F(DownloadTest, SaysThatAJobHasNoAdapterYet) {
  service_.job.mutable_adapter()->clear_files();
  EXPECT_EQ(Download(), kBadInput);
}

}  // namespace
}  // namespace tundra::client
