#include "coordinator/blobs/blob_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "common/files.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/blobs/garbage.h"
#include "coordinator/store/sqlite_store.h"

namespace tundra::coordinator {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using testing::StatusIs;

class BlobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void Open() {
    auto blobs = OpenDirectoryBlobStore(dir_.path());
    TUNDRA_ASSERT_OK(blobs);
    blobs_ = *std::move(blobs);
  }
  BlobId Put(const std::string& bytes) {
    const BlobId id{Sha256Hex(bytes)};
    auto writer = blobs_->Create(id, static_cast<int64_t>(bytes.size()));
    TUNDRA_EXPECT_OK(writer);
    TUNDRA_EXPECT_OK((*writer)->Append(bytes));
    TUNDRA_EXPECT_OK((*writer)->Commit());
    return id;
  }

  TempDir dir_;
  std::unique_ptr<BlobStore> blobs_;
};

TEST_F(BlobStoreTest, GoesOnWithAnUploadAfterARestart) {
  const std::string bytes = std::string(70'000, 'a') + std::string(30'000, 'b');
  const BlobId id{Sha256Hex(bytes)};
  {
    auto writer = blobs_->Resume("w", id, 100'000, 0);
    TUNDRA_ASSERT_OK(writer);
    TUNDRA_ASSERT_OK((*writer)->Append(bytes.substr(0, 60'000)));
  }
  Open();
  EXPECT_EQ(*blobs_->ReceivedBytes("w", id), 60'000);
  EXPECT_THAT(blobs_->Size(id), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(blobs_->Resume("w", id, 100'000, 60'001),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("offset")));
  auto writer = blobs_->Resume("w", id, 100'000, 50'000);  // may also go back
  TUNDRA_ASSERT_OK(writer);
  TUNDRA_ASSERT_OK((*writer)->Append(bytes.substr(50'000)));
  TUNDRA_ASSERT_OK((*writer)->Commit());
  EXPECT_EQ(*blobs_->Size(id), 100'000);
  EXPECT_EQ(*blobs_->Read(id, 0, 1 << 20), bytes);
  EXPECT_EQ(*blobs_->ReceivedBytes("w", id), 0);
}

TEST_F(BlobStoreTest, ReadsRanges) {
  const BlobId id = Put("0123456789");
  EXPECT_EQ(*blobs_->Read(id, 3, 4), "3456");
  EXPECT_EQ(*blobs_->Read(id, 8, 100), "89");
  EXPECT_EQ(*blobs_->Read(id, 10, 100), "");
  EXPECT_THAT(blobs_->Read(id, 11, 1), StatusIs(absl::StatusCode::kOutOfRange, _));
  EXPECT_THAT(blobs_->Read(id, -1, 1), StatusIs(absl::StatusCode::kOutOfRange, _));
  EXPECT_EQ(blobs_->Map(id)->bytes(), "0123456789");
}

TEST_F(BlobStoreTest, RefusesWrongBytesAndKeepsNothingOfThem) {
  const BlobId id{Sha256Hex("right")};
  auto writer = blobs_->Resume("w", id, 5, 0);
  TUNDRA_ASSERT_OK(writer);
  TUNDRA_ASSERT_OK((*writer)->Append("wrong"));
  EXPECT_THAT((*writer)->Commit(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("hash")));
  EXPECT_EQ(*blobs_->ReceivedBytes("w", id), 0);
  auto longer = blobs_->Create(id, 5);
  EXPECT_THAT((*longer)->Append("rightly"), StatusIs(absl::StatusCode::kInvalidArgument, _));
  auto shorter = blobs_->Create(id, 5);
  TUNDRA_ASSERT_OK((*shorter)->Append("rig"));
  EXPECT_THAT((*shorter)->Commit(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("3 of 5")));
  EXPECT_THAT(blobs_->Size(id), StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(BlobStoreTest, ASealedUploadIsNoBlobUntilItIsCommitted) {
  const BlobId id{Sha256Hex("bytes")};
  const auto writer = *blobs_->Create(id, 5);
  TUNDRA_ASSERT_OK(writer->Append("bytes"));
  TUNDRA_ASSERT_OK(writer->Seal());
  TUNDRA_ASSERT_OK(writer->Seal());
  EXPECT_THAT(blobs_->Size(id), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_FALSE(writer->Append("").ok());
  TUNDRA_ASSERT_OK(writer->Commit());
  TUNDRA_ASSERT_OK(writer->Commit());
  EXPECT_EQ(*blobs_->Read(id, 0, 10), "bytes");
}

TEST_F(BlobStoreTest, NamesFromRequestsNeverBecomePaths) {
  for (const std::string& name : {std::string("../../etc/passwd"), std::string(""),
                                  std::string(64, 'G'), std::string(64, 'A')}) {
    EXPECT_THAT(blobs_->Size({name}), StatusIs(absl::StatusCode::kInvalidArgument, _));
    EXPECT_THAT(blobs_->Create({name}, 1), StatusIs(absl::StatusCode::kInvalidArgument, _));
    EXPECT_THAT(blobs_->Remove({name}), StatusIs(absl::StatusCode::kInvalidArgument, _));
  }
  EXPECT_THAT(blobs_->Create({Sha256Hex("x")}, -1),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(blobs_->Create({Sha256Hex("x")}, INT64_MAX),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(BlobStoreTest, ANewerUploadTakesOver) {
  const BlobId id{Sha256Hex("bytes")};
  auto old_writer = blobs_->Resume("w", id, 5, 0);
  TUNDRA_ASSERT_OK((*old_writer)->Append("by"));
  auto new_writer = blobs_->Resume("w", id, 5, 2);
  TUNDRA_ASSERT_OK(new_writer);
  EXPECT_THAT((*old_writer)->Append("tes"), StatusIs(absl::StatusCode::kAborted, _));
  EXPECT_THAT((*old_writer)->Commit(), StatusIs(absl::StatusCode::kAborted, _));
  TUNDRA_EXPECT_OK((*new_writer)->Append("tes"));
  TUNDRA_EXPECT_OK((*new_writer)->Commit());
}

TEST_F(BlobStoreTest, UploadersDoNotSeeEachOthersParts) {
  const BlobId id{Sha256Hex("bytes")};
  auto one = blobs_->Resume("one", id, 5, 0);
  TUNDRA_ASSERT_OK((*one)->Append("byte"));
  EXPECT_EQ(*blobs_->ReceivedBytes("two", id), 0);
  EXPECT_THAT(blobs_->Resume("two", id, 5, 4), StatusIs(absl::StatusCode::kInvalidArgument, _))
      << "nobody completes what another has";
  auto two = blobs_->Resume("two", id, 5, 0);
  TUNDRA_ASSERT_OK((*two)->Append("wrong"));
  EXPECT_THAT((*two)->Commit(), StatusIs(absl::StatusCode::kDataLoss, _));
  TUNDRA_EXPECT_OK((*one)->Append("s"));
  TUNDRA_EXPECT_OK((*one)->Commit());
  auto again = blobs_->Resume("two", id, 5, 0);
  TUNDRA_ASSERT_OK((*again)->Append("bytes"));
  TUNDRA_EXPECT_OK((*again)->Commit()) << "the same bytes once more";
  EXPECT_EQ(*blobs_->Read(id, 0, 10), "bytes");
}

TEST_F(BlobStoreTest, AFullDiskIsResourceExhaustedAndTheUploadGoesOnLater) {
  const std::string bytes(300'000, 'z');
  const BlobId id{Sha256Hex(bytes)};
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit tight{100'000, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &tight);
    auto writer = blobs_->Resume("w", id, 300'000, 0);
    if (!writer.ok()) _exit(1);
    if (!absl::IsResourceExhausted((*writer)->Append(bytes))) _exit(2);
    auto other = blobs_->Create(id, 300'000);
    if (!absl::IsResourceExhausted((*other)->Append(bytes))) _exit(3);
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  const int64_t received = *blobs_->ReceivedBytes("w", id);
  EXPECT_GT(received, 0);
  auto writer = blobs_->Resume("w", id, 300'000, received);
  TUNDRA_ASSERT_OK(writer);
  TUNDRA_ASSERT_OK((*writer)->Append(bytes.substr(static_cast<size_t>(received))));
  TUNDRA_EXPECT_OK((*writer)->Commit());
}

TEST_F(BlobStoreTest, CollectsOnlyWhatNothingRefersToAfterItsGrace) {
  auto store = OpenSqliteStore({.data_dir = dir_.path()});
  TUNDRA_ASSERT_OK(store);
  const absl::Time now = absl::Now();
  const BlobId used = Put("used"), loose = Put("loose"), stray = Put("stray");
  TUNDRA_ASSERT_OK((*store)->Write([&](Txn& txn) -> absl::Status {
    TUNDRA_EXPECT_OK(RecordBlob(txn, *blobs_, used, now));
    TUNDRA_EXPECT_OK(RecordBlob(txn, *blobs_, loose, now));
    EXPECT_THAT(RecordBlob(txn, *blobs_, {Sha256Hex("absent")}, now),
                StatusIs(absl::StatusCode::kNotFound, _));
    DatasetRecord dataset;
    dataset.id.value = "d";
    dataset.dataset.set_sha256(used.value);
    return txn.InsertDataset(dataset);
  }));
  EXPECT_EQ(*CollectGarbage(**store, *blobs_, now, absl::Hours(1)), 0);
  EXPECT_EQ(*CollectGarbage(**store, *blobs_, now + absl::Hours(2), absl::Hours(1)), 2);
  TUNDRA_EXPECT_OK(blobs_->Size(used));
  EXPECT_THAT(blobs_->Size(loose), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(blobs_->Size(stray), StatusIs(absl::StatusCode::kNotFound, _));
}

}  // namespace
}  // namespace tundra::coordinator
