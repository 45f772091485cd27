// The row operations over SOCI, the same code for every SQL database. Lives as
// long as the transaction that its owner has begun on the session.
// SOCI has no portable blob type, so protos are stored as base64 text.
#pragma once

#include <google/protobuf/message_lite.h>
#include <soci/soci.h>

#include <map>
#include <string>
#include <vector>

#include "coordinator/store/store.h"

namespace tundra::coordinator {

class SqlTxn : public Txn {
 public:
  explicit SqlTxn(soci::session& sql) : sql_(sql) {}

  absl::StatusOr<JobRecord> GetJob(const JobId& id) override;
  absl::StatusOr<std::vector<JobRecord>> ListJobs(const JobQuery& query) override;
  absl::StatusOr<std::vector<JobRecord>> ListActiveJobs() override;
  absl::StatusOr<std::map<v1::JobState, int64_t>> CountJobs() override;
  absl::StatusOr<std::vector<TimelineItem>> ReadTimeline(const JobRecord& job,
                                                         int64_t after_sequence, TimelineKind kind,
                                                         int32_t limit) override;
  absl::StatusOr<std::optional<int64_t>> LastMetricsStep(const JobRecord& job) override;
  absl::StatusOr<std::vector<CheckpointRecord>> ListCheckpoints(const JobRecord& job,
                                                                int64_t before_step,
                                                                int32_t limit) override;
  absl::StatusOr<std::map<int64_t, CheckpointRecord>> NewestCheckpoints(
      v1::JobState state) override;
  absl::StatusOr<CheckpointRecord> GetCheckpoint(const JobRecord& job, int64_t step) override;
  absl::StatusOr<DatasetRecord> GetDataset(const DatasetId& id) override;
  absl::StatusOr<DatasetRecord> FindDataset(const TenantId& tenant, const std::string& sha256,
                                            const std::string& display_name) override;
  absl::StatusOr<std::vector<DatasetRecord>> ListDatasets(const TenantId& tenant,
                                                          int64_t before_key,
                                                          int32_t limit) override;
  absl::StatusOr<JobId> JobUsingDataset(const DatasetId& id) override;
  absl::StatusOr<BlobRecord> GetBlob(const BlobId& id) override;
  absl::StatusOr<std::vector<BlobId>> UnreferencedBlobs(absl::Time before, int32_t limit) override;
  absl::StatusOr<std::vector<GroupRecord>> ListGroups() override;
  absl::StatusOr<BaseRecord> GetBase(const BaseHash& hash) override;
  absl::StatusOr<std::vector<BaseRecord>> ListBases() override;
  absl::StatusOr<v1::ValidationReport> GetReport(const std::string& cache_key) override;
  absl::StatusOr<RequestRecord> GetRequest(const std::string& method,
                                           const std::string& request_id) override;
  absl::StatusOr<UploadRecord> GetUpload(const std::string& id) override;
  absl::StatusOr<std::vector<std::string>> UploadsBefore(absl::Time before) override;
  absl::StatusOr<std::vector<UploadRecord>> UploadsWith(const TenantId& tenant,
                                                        const BlobId& file) override;
  absl::StatusOr<TenantRecord> GetTenant(const TenantId& id) override;
  absl::StatusOr<std::vector<TenantRecord>> ListTenants() override;
  absl::StatusOr<TenantCounts> CountTenant(const TenantId& id) override;
  absl::StatusOr<std::vector<TokenRecord>> ListTokens() override;
  absl::StatusOr<std::vector<WorkerRecord>> ListWorkers() override;
  absl::StatusOr<std::vector<v1::AuditEntry>> ListAudit(int64_t before_sequence,
                                                        int32_t limit) override;

  absl::Status InsertJob(JobDraft& draft) override;
  absl::Status SaveJob(JobDraft& draft) override;
  absl::Status DeleteJob(const JobRecord& job) override;
  absl::StatusOr<int> AppendMetrics(JobDraft& draft,
                                    const std::vector<v1::StepMetrics>& metrics) override;
  absl::Status PutCheckpoint(const JobRecord& job, const CheckpointRecord& checkpoint) override;
  absl::Status DeleteCheckpoint(const JobRecord& job, int64_t step) override;
  absl::Status InsertDataset(DatasetRecord& record) override;
  absl::Status DeleteDataset(const DatasetId& id) override;
  absl::Status PutBlob(const BlobRecord& blob) override;
  absl::Status DeleteBlob(const BlobId& id) override;
  absl::Status PutGroup(const GroupRecord& group) override;
  absl::Status DeleteGroup(const GroupId& id) override;
  absl::Status PutBase(const BaseHash& hash, const v1::BaseInfo& info) override;
  absl::Status PutReport(const std::string& cache_key, const v1::ValidationReport& report,
                         absl::Time now) override;
  absl::Status PutRequest(const RequestRecord& request) override;
  absl::Status DeleteRequestsBefore(absl::Time before) override;
  absl::Status PutUpload(const UploadRecord& upload) override;
  absl::Status DeleteUpload(const std::string& id) override;
  absl::Status PutTenant(const TenantRecord& tenant) override;
  absl::Status DeleteTenant(const TenantId& id) override;
  absl::Status InsertToken(TokenRecord& record) override;
  absl::Status DeleteToken(const TokenId& id) override;
  absl::Status PutWorker(const WorkerRecord& worker) override;
  absl::Status AppendAudit(v1::AuditEntry& entry) override;
  absl::Status KeepAudit(int64_t count) override;

 private:
  absl::StatusOr<std::vector<JobRecord>> SelectJobs(const std::string& rest,
                                                    const std::vector<std::string>& texts,
                                                    const std::vector<long long>& numbers);
  void WriteEvents(JobDraft& draft);
  void WriteLabels(const JobRecord& record);
  void Refer(const std::string& owner, const std::string& sha256);
  void DropRefs(const std::string& owner);

  soci::session& sql_;
};

// Base64 of the serialized message, and back. Errors: kDataLoss.
std::string EncodeProto(const google::protobuf::MessageLite& message);
absl::Status DecodeProto(const std::string& text, google::protobuf::MessageLite& message);

// An exception of SOCI as a status: kResourceExhausted when the disk is full,
// else kInternal, "WHAT: reason".
absl::Status SqlError(const std::exception& error, std::string_view what);

// Runs f, which returns a Status or StatusOr, and turns exceptions into statuses.
template <typename F>
auto SqlGuard(std::string_view what, F f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::exception& error) {
    return SqlError(error, what);
  }
}

long long ToMicros(absl::Time time);
absl::Time FromMicros(long long micros);

}  // namespace tundra::coordinator
