#include "coordinator/store/sql_schema.h"

namespace tundra::coordinator {

// `body` columns hold serialized protos in base64: exact for doubles, and fields
// of a newer version survive being rewritten by an older one. What a query looks
// for has a column of its own. Times are microseconds since 1970.
const std::vector<Migration>& Migrations() {
  static const auto* const migrations = new std::vector<Migration>{
      {1,
       {R"(CREATE TABLE jobs (
             key INTEGER PRIMARY KEY AUTOINCREMENT,
             id TEXT NOT NULL UNIQUE,
             display_name TEXT NOT NULL,
             base_name TEXT NOT NULL,
             base_hash TEXT NOT NULL,
             train_dataset TEXT NOT NULL,
             validation_dataset TEXT NOT NULL,
             state INTEGER NOT NULL,
             group_id TEXT NOT NULL,
             epoch BIGINT NOT NULL,
             fruitless_attempts INTEGER NOT NULL,
             attempt_start_step BIGINT NOT NULL,
             step_seconds DOUBLE PRECISION NOT NULL,
             version BIGINT NOT NULL,
             last_sequence BIGINT NOT NULL,
             body TEXT NOT NULL))",
        "CREATE INDEX jobs_by_state ON jobs (state, key)",
        R"(CREATE TABLE job_labels (
             job_key BIGINT NOT NULL,
             label TEXT NOT NULL,
             value TEXT NOT NULL,
             PRIMARY KEY (job_key, label)))",
        // Events and metrics of a job under one sequence; step is NULL for events.
        R"(CREATE TABLE timeline (
             job_key BIGINT NOT NULL,
             sequence BIGINT NOT NULL,
             step BIGINT,
             body TEXT NOT NULL,
             PRIMARY KEY (job_key, sequence)))",
        "CREATE UNIQUE INDEX timeline_by_step ON timeline (job_key, step)",
        R"(CREATE TABLE checkpoints (
             job_key BIGINT NOT NULL,
             step BIGINT NOT NULL,
             is_final INTEGER NOT NULL,
             body TEXT NOT NULL,
             PRIMARY KEY (job_key, step)))",
        R"(CREATE TABLE datasets (
             key INTEGER PRIMARY KEY AUTOINCREMENT,
             id TEXT NOT NULL UNIQUE,
             body TEXT NOT NULL))",
        R"(CREATE TABLE blobs (
             sha256 TEXT NOT NULL PRIMARY KEY,
             size_bytes BIGINT NOT NULL,
             touched BIGINT NOT NULL))",
        R"(CREATE TABLE blob_refs (
             owner TEXT NOT NULL,
             sha256 TEXT NOT NULL,
             PRIMARY KEY (owner, sha256)))",
        "CREATE INDEX blob_refs_by_blob ON blob_refs (sha256)",
        R"(CREATE TABLE worker_groups (
             id TEXT NOT NULL PRIMARY KEY,
             epoch BIGINT NOT NULL,
             base_hash TEXT NOT NULL,
             precision INTEGER NOT NULL,
             numerics_class TEXT NOT NULL,
             build TEXT NOT NULL,
             shards INTEGER NOT NULL,
             job_id TEXT NOT NULL,
             attempt BIGINT NOT NULL,
             resume_step BIGINT NOT NULL,
             members TEXT NOT NULL))",
        R"(CREATE TABLE bases (
             key INTEGER PRIMARY KEY AUTOINCREMENT,
             hash TEXT NOT NULL UNIQUE,
             display_name TEXT NOT NULL,
             body TEXT NOT NULL))",
        R"(CREATE TABLE reports (
             cache_key TEXT NOT NULL PRIMARY KEY,
             created BIGINT NOT NULL,
             body TEXT NOT NULL))",
        R"(CREATE TABLE requests (
             method TEXT NOT NULL,
             request_id TEXT NOT NULL,
             request_hash TEXT NOT NULL,
             resource TEXT NOT NULL,
             created BIGINT NOT NULL,
             PRIMARY KEY (method, request_id)))",
        R"(CREATE TABLE uploads (
             id TEXT NOT NULL PRIMARY KEY,
             created BIGINT NOT NULL,
             body TEXT NOT NULL))"}},
      // Tenants, tokens, audit. What was made before belongs to the tenant "default".
      {2,
       {"ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",
        "CREATE INDEX jobs_by_tenant ON jobs (tenant, key)",
        "ALTER TABLE datasets ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",
        "ALTER TABLE uploads ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",
        "UPDATE requests SET method = 'default/' || method",
        R"(CREATE TABLE tenants (
             id TEXT NOT NULL PRIMARY KEY,
             created BIGINT NOT NULL,
             quota TEXT NOT NULL))",
        "INSERT INTO tenants (id, created, quota) VALUES ('default', 0, '')",
        R"(CREATE TABLE tokens (
             key INTEGER PRIMARY KEY AUTOINCREMENT,
             id TEXT NOT NULL UNIQUE,
             secret_hash TEXT NOT NULL UNIQUE,
             tenant TEXT NOT NULL,
             role INTEGER NOT NULL,
             display_name TEXT NOT NULL,
             created BIGINT NOT NULL,
             expires BIGINT))",
        R"(CREATE TABLE workers (
             id TEXT NOT NULL PRIMARY KEY,
             identity TEXT NOT NULL,
             drained INTEGER NOT NULL))",
        R"(CREATE TABLE audit (
             sequence INTEGER PRIMARY KEY AUTOINCREMENT,
             body TEXT NOT NULL))"}},
      // Reports are a cache; of what data each is, so that it goes with them.
      {3,
       {"DELETE FROM reports", "ALTER TABLE reports ADD COLUMN sha256 TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX reports_by_data ON reports (sha256, created)"}},
  };
  return *migrations;
}

}  // namespace tundra::coordinator
