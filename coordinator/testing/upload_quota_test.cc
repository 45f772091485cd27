// The quota of bytes: what a tenant uploads, whole and under way.
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using ::testing::HasSubstr;
using enum grpc::StatusCode;

class UploadQuotaTest : public CoordinatorHarness {
 protected:
  void SetQuota(int64_t bytes) {
    v1::UpdateTenantRequest request;
    request.mutable_tenant()->set_name("tenants/default");
    request.mutable_tenant()->mutable_quota()->set_dataset_bytes(bytes);
    grpc::ClientContext context;
    v1::Tenant tenant;
    ASSERT_TRUE(access_->UpdateTenant(&context, request, &tenant).ok());
  }
  int64_t Used() {
    v1::GetTenantRequest request;
    request.set_name("tenants/default");
    grpc::ClientContext context;
    v1::Tenant tenant;
    EXPECT_TRUE(access_->GetTenant(&context, request, &tenant).ok());
    return tenant.usage().dataset_bytes();
  }
  static v1::UploadDatasetRequest::Metadata Metadata(const std::string& bytes) {
    v1::UploadDatasetRequest::Metadata metadata;
    metadata.set_display_name("rows.jsonl");
    metadata.set_size_bytes(static_cast<int64_t>(bytes.size()));
    metadata.set_sha256(Sha256Hex(bytes));
    return metadata;
  }
  grpc::Status TryUploadBytes(const std::string& bytes, v1::Dataset* dataset = nullptr) {
    v1::Dataset ignored;
    return TryUpload(Metadata(bytes), bytes, dataset == nullptr ? &ignored : dataset);
  }
  // Bytes of all files of blobs and partial uploads.
  int64_t OnDisk() {
    int64_t bytes = 0;
    for (const char* const folder : {"/blobs", "/partial"}) {
      for (const auto& file :
           std::filesystem::recursive_directory_iterator(dir_ / "data" + folder)) {
        if (file.is_regular_file()) bytes += static_cast<int64_t>(file.file_size());
      }
    }
    return bytes;
  }
};

TEST_F(UploadQuotaTest, BoundsDataSetsAndAdaptersTogether) {
  SetQuota(20);
  ASSERT_TRUE(TryUploadBytes("0123456789").ok());
  std::string name;
  ASSERT_TRUE(TryUploadAdapter(*generate_, "{}", "weights", &name).ok());
  EXPECT_EQ(Used(), 19);
  const grpc::Status more = TryUploadBytes("xy");
  EXPECT_EQ(more.error_code(), RESOURCE_EXHAUSTED);
  EXPECT_THAT(more.error_message(), HasSubstr("of at most 20"));
  EXPECT_THAT(more.error_message(), HasSubstr("ask an admin"));
  std::string other;
  EXPECT_EQ(TryUploadAdapter(*generate_, "{}", "other weights", &other).error_code(),
            RESOURCE_EXHAUSTED);
  EXPECT_TRUE(TryUploadBytes("z").ok()) << "fits exactly";
  EXPECT_EQ(OnDisk(), 20) << "of what was refused nothing lies on the disk";
}

TEST_F(UploadQuotaTest, WhatIsThereAlreadyTakesNoMoreRoom) {
  v1::Dataset first, again;
  ASSERT_TRUE(TryUploadBytes("0123456789", &first).ok());
  std::string folder, same, half;
  ASSERT_TRUE(TryUploadAdapter(*generate_, "{}", "weights", &folder).ok());
  SetQuota(19);
  EXPECT_TRUE(TryUploadBytes("0123456789", &again).ok());
  EXPECT_EQ(again.name(), first.name());
  EXPECT_TRUE(TryUploadAdapter(*generate_, "{}", "weights", &same).ok());
  EXPECT_EQ(same, folder) << "kept anew, not once more";
  EXPECT_EQ(TryUploadAdapter(*generate_, "{ }", "weights", &half).error_code(), RESOURCE_EXHAUSTED);
  SetQuota(22);
  EXPECT_TRUE(TryUploadAdapter(*generate_, "{ }", "weights", &half).ok()) << "three bytes more";
  EXPECT_NE(half, folder);
  EXPECT_EQ(Used(), 22);
  EXPECT_EQ(OnDisk(), 22);
  // Their bytes are compared all the same.
  v1::Dataset dataset;
  EXPECT_EQ(TryUpload(Metadata("0123456789"), "012345678x", &dataset).error_code(), DATA_LOSS);
}

TEST_F(UploadQuotaTest, UploadsUnderWayCountUntilTheyEnd) {
  SetQuota(20);
  v1::UploadDatasetRequest request;
  *request.mutable_metadata() = Metadata(std::string(15, 'a'));
  auto context = std::make_unique<grpc::ClientContext>();
  v1::Dataset dataset;
  auto writer = datasets_->UploadDataset(context.get(), &dataset);
  ASSERT_TRUE(writer->Write(request));
  request.set_chunk(std::string(5, 'a'));
  ASSERT_TRUE(writer->Write(request));
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (OnDisk() < 5 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
  const grpc::Status beside = TryUploadBytes("bbbbbb");
  EXPECT_EQ(beside.error_code(), RESOURCE_EXHAUSTED);
  EXPECT_THAT(beside.error_message(), HasSubstr("15 more are on their way"));
  EXPECT_TRUE(TryUploadBytes("ccccc").ok());
  // The client goes away: its room is free again, as soon as that is seen.
  context->TryCancel();
  EXPECT_FALSE(writer->Finish().ok());
  grpc::Status after = TryUploadBytes("dddddddddd");
  while (!after.ok() && absl::Now() < deadline) after = TryUploadBytes("dddddddddd");
  EXPECT_TRUE(after.ok()) << after.error_message();
  EXPECT_EQ(OnDisk(), 15);
}

TEST_F(UploadQuotaTest, AQuotaThatShrinksMeanwhileRefusesWhatHasCome) {
  v1::UploadDatasetRequest request;
  *request.mutable_metadata() = Metadata("0123456789");
  grpc::ClientContext context;
  v1::Dataset dataset;
  const auto writer = datasets_->UploadDataset(&context, &dataset);
  ASSERT_TRUE(writer->Write(request));
  request.set_chunk("0123456789");
  ASSERT_TRUE(writer->Write(request));
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (OnDisk() < 10 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
  SetQuota(9);
  ASSERT_TRUE(writer->WritesDone());
  EXPECT_EQ(writer->Finish().error_code(), RESOURCE_EXHAUSTED);
  while (OnDisk() > 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(OnDisk(), 0);
  EXPECT_EQ(Used(), 0);
}

TEST_F(UploadQuotaTest, AnAdapterThatIsNoneIsRefusedAndLeavesNothing) {
  std::string name;
  EXPECT_EQ(TryUploadAdapter(*generate_, "[]", "weights", &name).error_code(), INVALID_ARGUMENT);
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (OnDisk() > 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(OnDisk(), 0);
  const grpc::Status large =
      TryUploadAdapter(*generate_, std::string((1 << 20) + 1, ' '), "weights", &name);
  EXPECT_EQ(large.error_code(), INVALID_ARGUMENT);
  EXPECT_THAT(large.error_message(), HasSubstr("over 1 MiB"));
}

}  // namespace
}  // namespace tundra::coordinator
