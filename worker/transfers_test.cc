#include "worker/transfers.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "common/files.h"
#include "common/rpc.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "worker/testing/scripted_coordinator.h"

namespace tundra::worker {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::tundra::testing::StatusIs;

class TransfersTest : public ::testing::Test {
 protected:
  tundra::v1::BlobRef Serve(const std::string& bytes) {
    tundra::v1::BlobRef blob;
    blob.set_sha256(Sha256Hex(bytes));
    blob.set_size_bytes(static_cast<int64_t>(bytes.size()));
    blob.set_display_name("train.jsonl");
    coordinator_.blobs[blob.sha256()] = bytes;
    return blob;
  }

  std::vector<std::string> Files() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "blobs")) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  ScriptedCoordinator coordinator_;
  TempDir dir_;
  Transfers transfers_{"worker-1", dir_ / "blobs", ChannelSource::Plain(coordinator_.address())};
};

TEST_F(TransfersTest, FetchGoesOnWhereTheStreamBroke) {
  const auto blob = Serve("0123456789");
  coordinator_.break_after = {4, 3};
  TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string path, transfers_.Fetch(blob));
  EXPECT_EQ(*ReadFile(path), "0123456789");
  EXPECT_THAT(coordinator_.fetches, ElementsAre(0, 4, 7));
  EXPECT_THAT(Files(), ElementsAre(blob.sha256())) << "no partial file is left";
}

TEST_F(TransfersTest, FetchUsesWhatIsHereUnlessItHasRotted) {
  const auto blob = Serve("0123456789");
  TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string path, transfers_.Fetch(blob));
  TUNDRA_ASSERT_OK(transfers_.Fetch(blob).status());
  EXPECT_EQ(coordinator_.fetches.size(), 1u);
  TUNDRA_ASSERT_OK(WriteFileAtomically(path, "0123456780"));
  TUNDRA_ASSERT_OK(transfers_.Fetch(blob).status());
  EXPECT_EQ(*ReadFile(path), "0123456789");
}

TEST_F(TransfersTest, WrongBytesAreRefusedAndNotKept) {
  const auto blob = Serve("0123456789");
  coordinator_.blobs[blob.sha256()] = "0123456780";
  EXPECT_THAT(transfers_.Fetch(blob), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("hash")));
  coordinator_.blobs[blob.sha256()] = "01234567890";
  EXPECT_THAT(transfers_.Fetch(blob),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("more than")));
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(TransfersTest, AStreamThatMixedTwoVersionsIsFetchedAgainFromItsStart) {
  const auto blob = Serve("0123456789");
  coordinator_.blobs[blob.sha256()] = "xxxx456789";
  coordinator_.break_after = {4};
  std::thread repair([&] {
    coordinator_.WaitFor([&] { return coordinator_.fetches.size() >= 2; });
    absl::MutexLock lock(&coordinator_.mu);
    coordinator_.blobs[blob.sha256()] = "0123456789";
  });
  TUNDRA_EXPECT_OK(transfers_.Fetch(blob).status());
  repair.join();
  EXPECT_EQ(coordinator_.fetches.back(), 0);
}

TEST_F(TransfersTest, ABlobThatIsNotThereIsNotAskedForAgain) {
  tundra::v1::BlobRef blob;
  blob.set_sha256(Sha256Hex("nowhere"));
  EXPECT_THAT(transfers_.Fetch(blob), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_EQ(coordinator_.fetches.size(), 1u);
  blob.set_sha256("../../etc/passwd");
  EXPECT_THAT(transfers_.Fetch(blob), StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(TransfersTest, FetchOutlivesARestartOfTheCoordinator) {
  const auto blob = Serve("0123456789");
  coordinator_.Stop();
  absl::StatusOr<std::string> path;
  std::thread fetch([&] { path = transfers_.Fetch(blob); });
  coordinator_.Start();
  fetch.join();
  TUNDRA_EXPECT_OK(path);
}

TEST_F(TransfersTest, StopEndsCallsThatWaitForAStuckCoordinator) {
  const auto blob = Serve("0123456789");
  coordinator_.stuck = true;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "state", "state"));
  absl::Status fetched, put;
  std::thread fetch([&] { fetched = transfers_.Fetch(blob).status(); });
  std::thread send([&] { put = transfers_.Put(dir_ / "state", Sha256Hex("state"), 5); });
  ASSERT_TRUE(coordinator_.WaitFor([&] { return !coordinator_.fetches.empty(); }));
  transfers_.Stop();
  fetch.join();
  send.join();
  EXPECT_THAT(fetched, StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_THAT(put, StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_THAT(transfers_.Fetch(blob), StatusIs(absl::StatusCode::kCancelled, _)) << "nor later";
}

TEST_F(TransfersTest, PutSendsOnceAndPassesRefusalsOn) {
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "state", "state"));
  TUNDRA_ASSERT_OK(transfers_.Put(dir_ / "state", Sha256Hex("state"), 5));
  EXPECT_EQ(coordinator_.blobs.at(Sha256Hex("state")), "state");
  coordinator_.put_status = {grpc::StatusCode::RESOURCE_EXHAUSTED, "disk full"};
  TUNDRA_EXPECT_OK(transfers_.Put(dir_ / "state", Sha256Hex("state"), 5)) << "it is there";
  EXPECT_THAT(transfers_.Put(dir_ / "state", Sha256Hex("other"), 5),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("disk full")));
  EXPECT_THAT(transfers_.Put(dir_ / "none", Sha256Hex("none"), 5),
              StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(TransfersTest, PruneRemovesTheLeastRecentlyFetchedThatNobodyUses) {
  std::vector<tundra::v1::BlobRef> blobs;
  for (const char* bytes : {"aaaa", "bbbb", "cccc", "dddd"}) {
    blobs.push_back(Serve(bytes));
    TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string path, transfers_.Fetch(blobs.back()));
    // Times far apart, whatever the file system's resolution.
    std::filesystem::last_write_time(
        path, std::filesystem::file_time_type::clock::now() -
                  std::chrono::hours(24 * (5 - static_cast<int>(blobs.size()))));
  }
  TUNDRA_ASSERT_OK(transfers_.Fetch(blobs[1]).status());  // Now the newest.
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "blobs/other", "not a blob"));
  transfers_.Prune(8, {blobs[0].sha256()});
  EXPECT_THAT(Files(),
              ::testing::UnorderedElementsAre(blobs[0].sha256(), blobs[1].sha256(), "other"));
  transfers_.Prune(0, {});
  EXPECT_THAT(Files(), ElementsAre("other"));
}

TEST_F(TransfersTest, WhatAnEarlierProcessLeftHalfFetchedGoes) {
  TUNDRA_ASSERT_OK(MakeDirs(dir_ / "blobs"));
  const std::string whole = Sha256Hex("whole");
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / ("blobs/" + whole + ".part-abc"), "wh"));
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / ("blobs/" + whole), "whole"));
  Transfers again("worker-1", dir_ / "blobs", ChannelSource::Plain(coordinator_.address()));
  EXPECT_THAT(Files(), ElementsAre(whole));
}

}  // namespace
}  // namespace tundra::worker
