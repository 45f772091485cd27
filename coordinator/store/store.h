// Where all truth is. Everything that the coordinator decides or acknowledges is
// a write here first; a restarted coordinator goes on from here.
//
// Two methods: Write runs a function in a transaction that is durable when it
// returns, Read runs one on a consistent snapshot. What a transaction may do is
// the row operations below; what they mean (the state table, fencing) is decided
// above them in code that every implementation shares. One contract suite
// (store_contract_test.cc) holds for every implementation.
//
// Errors, of all: kResourceExhausted when the disk is full, kInternal for an I/O
// error, kUnavailable once the store stops; nothing of the transaction is kept.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/store/job_draft.h"
#include "coordinator/store/records.h"

namespace tundra::coordinator {

class ReadTxn {
 public:
  virtual ~ReadTxn() = default;

  // Errors: kNotFound.
  virtual absl::StatusOr<JobRecord> GetJob(const JobId& id) = 0;
  // In the query's order.
  virtual absl::StatusOr<std::vector<JobRecord>> ListJobs(const JobQuery& query) = 0;
  // All jobs that have not ended, oldest first: what the scheduler looks at.
  virtual absl::StatusOr<std::vector<JobRecord>> ListActiveJobs() = 0;
  // Counts by state, of all jobs.
  virtual absl::StatusOr<std::map<v1::JobState, int64_t>> CountJobs() = 0;

  // Items after a sequence number, oldest first, at most `limit`.
  virtual absl::StatusOr<std::vector<TimelineItem>> ReadTimeline(const JobRecord& job,
                                                                 int64_t after_sequence,
                                                                 TimelineKind kind,
                                                                 int32_t limit) = 0;

  // The highest step with metrics; nullopt while there is none.
  virtual absl::StatusOr<std::optional<int64_t>> LastMetricsStep(const JobRecord& job) = 0;

  // Newest first, steps below before_step, at most `limit`.
  virtual absl::StatusOr<std::vector<CheckpointRecord>> ListCheckpoints(const JobRecord& job,
                                                                        int64_t before_step,
                                                                        int32_t limit) = 0;
  // The newest checkpoint of each job in this state, by the job's key; none of jobs without one.
  virtual absl::StatusOr<std::map<int64_t, CheckpointRecord>> NewestCheckpoints(
      v1::JobState state) = 0;
  // Errors: kNotFound.
  virtual absl::StatusOr<CheckpointRecord> GetCheckpoint(const JobRecord& job, int64_t step) = 0;

  // Errors: kNotFound.
  virtual absl::StatusOr<DatasetRecord> GetDataset(const DatasetId& id) = 0;
  // The tenant's newest data set with these bytes and this file name. Errors: kNotFound.
  virtual absl::StatusOr<DatasetRecord> FindDataset(const TenantId& tenant,
                                                    const std::string& sha256,
                                                    const std::string& display_name) = 0;
  // Newest first; of all tenants when `tenant` is empty.
  virtual absl::StatusOr<std::vector<DatasetRecord>> ListDatasets(const TenantId& tenant,
                                                                  int64_t before_key,
                                                                  int32_t limit) = 0;
  // A job that uses the data set and has not ended; empty when there is none.
  virtual absl::StatusOr<JobId> JobUsingDataset(const DatasetId& id) = 0;

  // Errors: kNotFound.
  virtual absl::StatusOr<BlobRecord> GetBlob(const BlobId& id) = 0;
  // Blobs that nothing refers to and nobody touched since `before`.
  virtual absl::StatusOr<std::vector<BlobId>> UnreferencedBlobs(absl::Time before,
                                                                int32_t limit) = 0;

  virtual absl::StatusOr<std::vector<GroupRecord>> ListGroups() = 0;

  // Errors: kNotFound.
  virtual absl::StatusOr<BaseRecord> GetBase(const BaseHash& hash) = 0;
  // Ordered by display name, then key.
  virtual absl::StatusOr<std::vector<BaseRecord>> ListBases() = 0;

  // A report kept for exactly this key. Errors: kNotFound.
  virtual absl::StatusOr<v1::ValidationReport> GetReport(const std::string& cache_key) = 0;
  // Errors: kNotFound.
  virtual absl::StatusOr<RequestRecord> GetRequest(const std::string& method,
                                                   const std::string& request_id) = 0;
  // Errors: kNotFound.
  virtual absl::StatusOr<UploadRecord> GetUpload(const std::string& id) = 0;
  virtual absl::StatusOr<std::vector<std::string>> UploadsBefore(absl::Time before) = 0;
  // The tenant's uploads that have a file of these bytes.
  virtual absl::StatusOr<std::vector<UploadRecord>> UploadsWith(const TenantId& tenant,
                                                                const BlobId& file) = 0;

  // Errors: kNotFound.
  virtual absl::StatusOr<TenantRecord> GetTenant(const TenantId& id) = 0;
  // By id.
  virtual absl::StatusOr<std::vector<TenantRecord>> ListTenants() = 0;
  virtual absl::StatusOr<TenantCounts> CountTenant(const TenantId& id) = 0;
  // Newest first.
  virtual absl::StatusOr<std::vector<TokenRecord>> ListTokens() = 0;
  virtual absl::StatusOr<std::vector<WorkerRecord>> ListWorkers() = 0;
  // Newest first, sequences below before_sequence, at most `limit`.
  virtual absl::StatusOr<std::vector<v1::AuditEntry>> ListAudit(int64_t before_sequence,
                                                                int32_t limit) = 0;
};

// Within a transaction, reads see its own writes.
class Txn : public ReadTxn {
 public:
  // Stores a new job in state QUEUED with its first events; sets record.key.
  virtual absl::Status InsertJob(JobDraft& draft) = 0;
  // Stores the draft's moves and events, numbered. The stored row must be the
  // one that the draft was made from.
  virtual absl::Status SaveJob(JobDraft& draft) = 0;
  // With its timeline, labels and checkpoints. References to blobs are dropped.
  virtual absl::Status DeleteJob(const JobRecord& job) = 0;
  // Numbers and stores the metrics of steps not stored before, and returns how
  // many these were. Numbers come from the draft; SaveJob must follow.
  virtual absl::StatusOr<int> AppendMetrics(JobDraft& draft,
                                            const std::vector<v1::StepMetrics>& metrics) = 0;

  // Replaces one of the same step, and refers to its blobs.
  virtual absl::Status PutCheckpoint(const JobRecord& job, const CheckpointRecord& checkpoint) = 0;
  virtual absl::Status DeleteCheckpoint(const JobRecord& job, int64_t step) = 0;

  // Sets record.key, and refers to the blob.
  virtual absl::Status InsertDataset(DatasetRecord& record) = 0;
  virtual absl::Status DeleteDataset(const DatasetId& id) = 0;

  // Records that the blob's bytes are here, and that it was touched.
  virtual absl::Status PutBlob(const BlobRecord& blob) = 0;
  virtual absl::Status DeleteBlob(const BlobId& id) = 0;

  virtual absl::Status PutGroup(const GroupRecord& group) = 0;
  virtual absl::Status DeleteGroup(const GroupId& id) = 0;

  // Inserts or replaces, and refers to the text files' blobs.
  virtual absl::Status PutBase(const BaseHash& hash, const v1::BaseInfo& info) = 0;

  virtual absl::Status PutReport(const std::string& cache_key, const BlobId& data,
                                 const v1::ValidationReport& report, absl::Time now) = 0;
  virtual absl::Status PutRequest(const RequestRecord& request) = 0;
  virtual absl::Status DeleteRequestsBefore(absl::Time before) = 0;
  // Stores it, or stores it anew with another time.
  virtual absl::Status PutUpload(const UploadRecord& upload) = 0;
  virtual absl::Status DeleteUpload(const std::string& id) = 0;

  // Inserts or replaces.
  virtual absl::Status PutTenant(const TenantRecord& tenant) = 0;
  // With its uploads and request ids; its jobs, data sets and tokens are the caller's to delete
  // before.
  virtual absl::Status DeleteTenant(const TenantId& id) = 0;
  // Sets record.key.
  virtual absl::Status InsertToken(TokenRecord& record) = 0;
  virtual absl::Status DeleteToken(const TokenId& id) = 0;
  // Inserts or replaces.
  virtual absl::Status PutWorker(const WorkerRecord& worker) = 0;
  // Numbers the entry.
  virtual absl::Status AppendAudit(v1::AuditEntry& entry) = 0;
  // Keeps only the newest `count`.
  virtual absl::Status KeepAudit(int64_t count) = 0;
};

// Thread-safe. Calls block until the disk has answered: never on gRPC threads.
class Store {
 public:
  virtual ~Store() = default;
  // Runs fn in a transaction; commits when it returns OK, else keeps nothing and
  // returns its error. Durable when it returns OK. fn runs once, on the store's
  // writer thread: it must neither block nor call the store.
  virtual absl::Status Write(const std::function<absl::Status(Txn&)>& fn) = 0;
  // Runs fn on a snapshot, on the caller's thread.
  virtual absl::Status Read(const std::function<absl::Status(ReadTxn&)>& fn) = 0;
};

}  // namespace tundra::coordinator
