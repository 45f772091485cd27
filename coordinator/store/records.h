// What the store keeps, as values: one struct a table. Resources that the API
// shows are kept as their protos; beside them stands what only the coordinator
// knows.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"
#include "tundra/v1/access.pb.h"
#include "tundra/v1/artifact.pb.h"
#include "tundra/v1/base.pb.h"
#include "tundra/v1/dataset.pb.h"
#include "tundra/v1/job.pb.h"
#include "tundra/v1/worker.pb.h"

namespace tundra::coordinator {

// The tenant of everything that was made before there were tenants, and of calls without a token
// where these are allowed.
inline constexpr char kDefaultTenant[] = "default";

struct JobRecord {
  // Paging key: grows with each job created; also the order of the queue.
  int64_t key = 0;
  JobId id;
  TenantId tenant{kDefaultTenant};
  // As the API shows it. `waiting` and `etag` are never stored.
  v1::Job job;
  // Where it is placed; empty and 0 while it is not.
  GroupId group;
  int64_t epoch = 0;
  // Attempts in a row that ended without a new step, this one left out.
  int32_t fruitless_attempts = 0;
  // job.step when the current attempt began.
  int64_t attempt_start_step = 0;
  // Smoothed wall time of a step; 0 before the first.
  double step_seconds = 0;
  // Grows with each write of the job.
  int64_t version = 0;
  // Last sequence number given to an event or a step's metrics.
  int64_t last_sequence = 0;
};

struct GroupMemberRecord {
  WorkerId worker;
  int32_t device = 0;
  // The worker process that was told of the epoch: another one has no ranks of it.
  std::string incarnation;
  bool operator==(const GroupMemberRecord&) const = default;
};

struct GroupRecord {
  GroupId id;
  int64_t epoch = 0;
  BaseHash base;
  v1::Precision precision = v1::F32;
  std::string numerics_class;
  std::string build;
  int32_t shards = 1;
  // In rank order.
  std::vector<GroupMemberRecord> members;
  // The job it trains; empty while it is idle.
  JobId job;
  int64_t attempt = 0;
  // Checkpoint that the attempt starts from; -1 for none.
  int64_t resume_step = -1;
};

struct DatasetRecord {
  int64_t key = 0;
  DatasetId id;
  TenantId tenant{kDefaultTenant};
  v1::Dataset dataset;
};

struct BlobRecord {
  BlobId id;
  int64_t size_bytes = 0;
  // Last time somebody put it or asked for it: unreferenced blobs are kept for
  // a grace period from then on.
  absl::Time touched;
};

struct BaseRecord {
  int64_t key = 0;
  BaseHash hash;
  v1::BaseInfo info;
};

struct CheckpointRecord {
  v1::Checkpoint checkpoint;
  bool final = false;
};

// An adapter folder that a client uploaded.
struct UploadRecord {
  std::string id;
  TenantId tenant{kDefaultTenant};
  v1::Adapter adapter;
  absl::Time create_time;
};

// What a request id stands for.
struct RequestRecord {
  // With the tenant: "TENANT/METHOD".
  std::string method;
  std::string request_id;
  // SHA-256 of the request.
  std::string request_hash;
  // The resource it made.
  std::string resource;
  absl::Time create_time;
};

struct TenantRecord {
  TenantId id;
  v1::Quota quota;
  absl::Time create_time;
};

// What of a tenant is in the store.
struct TenantCounts {
  int64_t active_jobs = 0;
  int64_t jobs = 0;
  int64_t datasets = 0;
  // Of data sets, and of uploaded adapters, each file once.
  int64_t dataset_bytes = 0;
  int64_t tokens = 0;
};

struct TokenRecord {
  int64_t key = 0;
  TokenId id;
  // Lower-case hex SHA-256 of the secret, which has 256 random bits: no salt is needed.
  std::string secret_hash;
  TenantId tenant;
  v1::Role role = v1::ROLE_VIEWER;
  std::string display_name;
  absl::Time create_time;
  absl::Time expire_time = absl::InfiniteFuture();
};

// What outlives a worker's session.
struct WorkerRecord {
  WorkerId id;
  // The certificate's name that may speak for it; empty for a worker that came without one.
  std::string identity;
  // An admin has drained it.
  bool drained = false;
};

using TimelineItem = std::variant<v1::JobEvent, v1::StepMetrics>;

enum class TimelineKind { kAll, kEvents, kMetrics };

// One term of a filter over jobs.
struct JobFilterTerm {
  enum class Field { kState, kDisplayName, kBase, kTenant, kLabel };
  Field field = Field::kState;
  // Label's key, for kLabel.
  std::string key;
  // For kState the name ("RUNNING").
  std::string value;
  bool negated = false;
  // For kDisplayName: the value is a part of it, whatever the case of ASCII letters.
  bool contains = false;
};

struct JobQuery {
  // Only this tenant's; empty for all tenants'.
  TenantId tenant{};
  // All must hold.
  std::vector<JobFilterTerm> terms;
  // Only jobs whose key is smaller.
  int64_t before_key = INT64_MAX;
  // Only jobs whose key is larger.
  int64_t after_key = 0;
  // Else newest first.
  bool oldest_first = false;
  int32_t limit = 50;
};

}  // namespace tundra::coordinator
