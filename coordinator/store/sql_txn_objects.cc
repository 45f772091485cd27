// Everything but jobs: data sets, blobs, groups, bases, reports, request ids,
// uploads; and how protos and errors look in SQL.
#include <soci/sqlite3/soci-sqlite3.h>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/store/sql_txn.h"

namespace tundra::coordinator {
namespace {

constexpr int kSqliteFull = 13;  // SQLITE_FULL

std::string MembersJson(const std::vector<GroupMemberRecord>& members) {
  auto json = nlohmann::json::array();
  for (const GroupMemberRecord& m : members) {
    json.push_back({{"worker", m.worker.value}, {"device", m.device}, {"run", m.incarnation}});
  }
  return json.dump();
}

absl::StatusOr<std::vector<GroupMemberRecord>> ParseMembers(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) return absl::DataLossError("members of a group are not a JSON array");
  std::vector<GroupMemberRecord> members;
  for (const auto& m : json) {
    members.push_back({.worker = {m.value("worker", "")},
                       .device = m.value("device", 0),
                       .incarnation = m.value("run", "")});
  }
  return members;
}

}  // namespace

std::string EncodeProto(const google::protobuf::MessageLite& message) {
  return absl::Base64Escape(message.SerializeAsString());
}

absl::Status DecodeProto(const std::string& text, google::protobuf::MessageLite& message) {
  std::string bytes;
  if (!absl::Base64Unescape(text, &bytes) || !message.ParseFromString(bytes)) {
    return absl::DataLossError(
        absl::StrCat("the database holds a damaged ", message.GetTypeName(), "; restore a backup"));
  }
  return absl::OkStatus();
}

absl::Status SqlError(const std::exception& error, std::string_view what) {
  const auto* const sqlite = dynamic_cast<const soci::sqlite3_soci_error*>(&error);
  const std::string message =
      absl::StrCat(absl::string_view(what.data(), what.size()), ": ", error.what());
  if ((sqlite != nullptr && sqlite->result() == kSqliteFull) ||
      message.find("disk is full") != std::string::npos) {
    return absl::ResourceExhaustedError(
        "the disk of the coordinator's data folder is full; make room there and try again");
  }
  return absl::InternalError(message);
}

long long ToMicros(absl::Time time) { return absl::ToUnixMicros(time); }
absl::Time FromMicros(long long micros) { return absl::FromUnixMicros(micros); }

void SqlTxn::Refer(const std::string& owner, const std::string& sha256) {
  sql_ << "INSERT INTO blob_refs (owner, sha256) VALUES (:o, :s) ON CONFLICT DO NOTHING",
      soci::use(owner), soci::use(sha256);
}

void SqlTxn::DropRefs(const std::string& owner) {
  // What was referred to and is so no longer goes with the next collection; the grace is for
  // what has come and is not yet referred to.
  sql_ << "UPDATE blobs SET touched = 0 WHERE sha256 IN "
          "(SELECT sha256 FROM blob_refs WHERE owner = :o)",
      soci::use(owner);
  sql_ << "DELETE FROM blob_refs WHERE owner = :o", soci::use(owner);
}

absl::StatusOr<DatasetRecord> SqlTxn::GetDataset(const DatasetId& id) {
  return SqlGuard("reading a data set", [&]() -> absl::StatusOr<DatasetRecord> {
    DatasetRecord record;
    record.id = id;
    long long key = 0;
    std::string body;
    sql_ << "SELECT key, tenant, body FROM datasets WHERE id = :id", soci::use(id.value),
        soci::into(key), soci::into(record.tenant.value), soci::into(body);
    if (!sql_.got_data()) {
      return absl::NotFoundError(absl::StrCat("there is no data set datasets/", id.value));
    }
    record.key = key;
    RETURN_IF_ERROR(DecodeProto(body, record.dataset));
    return record;
  });
}

absl::StatusOr<DatasetRecord> SqlTxn::FindDataset(const TenantId& tenant, const std::string& sha256,
                                                  const std::string& display_name) {
  return SqlGuard("looking for a data set", [&]() -> absl::StatusOr<DatasetRecord> {
    long long key = 0;
    std::string id;
    std::string body;
    soci::statement query =
        (sql_.prepare << "SELECT d.key, d.id, d.body FROM blob_refs r JOIN datasets d "
                         "ON r.owner = 'dataset/' || d.id WHERE r.sha256 = :s AND d.tenant = :t "
                         "ORDER BY d.key DESC",
         soci::use(sha256), soci::use(tenant.value), soci::into(key), soci::into(id),
         soci::into(body));
    query.execute();
    while (query.fetch()) {
      DatasetRecord record{.key = key, .id = {id}, .tenant = tenant, .dataset = {}};
      RETURN_IF_ERROR(DecodeProto(body, record.dataset));
      if (record.dataset.display_name() == display_name) return record;
    }
    return absl::NotFoundError(absl::StrCat("there is no data set ", display_name, " of ", sha256));
  });
}

absl::StatusOr<std::vector<DatasetRecord>> SqlTxn::ListDatasets(const TenantId& tenant,
                                                                int64_t before_key, int32_t limit) {
  return SqlGuard("listing data sets", [&]() -> absl::StatusOr<std::vector<DatasetRecord>> {
    const long long before = before_key, most = limit;
    long long key = 0;
    std::string id, owner, body;
    soci::statement st =
        (sql_.prepare << "SELECT key, id, tenant, body FROM datasets WHERE key < :k AND "
                         "(:t = '' OR tenant = :u) ORDER BY key DESC LIMIT :l",
         soci::use(before), soci::use(tenant.value), soci::use(tenant.value), soci::use(most),
         soci::into(key), soci::into(id), soci::into(owner), soci::into(body));
    st.execute();
    std::vector<DatasetRecord> records;
    while (st.fetch()) {
      DatasetRecord& record = records.emplace_back();
      record.key = key;
      record.id.value = id;
      record.tenant.value = owner;
      RETURN_IF_ERROR(DecodeProto(body, record.dataset));
    }
    return records;
  });
}

absl::StatusOr<JobId> SqlTxn::JobUsingDataset(const DatasetId& id) {
  return SqlGuard("looking for a job", [&]() -> absl::StatusOr<JobId> {
    const std::string name = absl::StrCat("datasets/", id.value);
    const int succeeded = v1::SUCCEEDED, failed = v1::FAILED, cancelled = v1::CANCELLED;
    JobId job;
    sql_ << "SELECT id FROM jobs WHERE (train_dataset = :t OR validation_dataset = :v) "
            "AND state NOT IN (:a, :b, :c) LIMIT 1",
        soci::use(name), soci::use(name), soci::use(succeeded), soci::use(failed),
        soci::use(cancelled), soci::into(job.value);
    if (!sql_.got_data()) job.value.clear();
    return job;
  });
}

absl::Status SqlTxn::InsertDataset(DatasetRecord& record) {
  return SqlGuard("storing a data set", [&] {
    const std::string body = EncodeProto(record.dataset);
    sql_ << "INSERT INTO datasets (id, tenant, body) VALUES (:id, :t, :b)",
        soci::use(record.id.value), soci::use(record.tenant.value), soci::use(body);
    long long key = 0;
    sql_ << "SELECT key FROM datasets WHERE id = :id", soci::use(record.id.value), soci::into(key);
    record.key = key;
    Refer(absl::StrCat("dataset/", record.id.value), record.dataset.sha256());
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteDataset(const DatasetId& id) {
  return SqlGuard("deleting a data set", [&] {
    sql_ << "DELETE FROM datasets WHERE id = :id", soci::use(id.value);
    DropRefs(absl::StrCat("dataset/", id.value));
    return absl::OkStatus();
  });
}

absl::StatusOr<BlobRecord> SqlTxn::GetBlob(const BlobId& id) {
  return SqlGuard("reading a blob's row", [&]() -> absl::StatusOr<BlobRecord> {
    long long size = 0, touched = 0;
    sql_ << "SELECT size_bytes, touched FROM blobs WHERE sha256 = :s", soci::use(id.value),
        soci::into(size), soci::into(touched);
    if (!sql_.got_data()) return absl::NotFoundError(absl::StrCat("there is no blob ", id.value));
    return BlobRecord{id, size, FromMicros(touched)};
  });
}

absl::Status SqlTxn::PutBlob(const BlobRecord& blob) {
  return SqlGuard("storing a blob's row", [&] {
    const long long size = blob.size_bytes, touched = ToMicros(blob.touched);
    sql_ << "INSERT INTO blobs (sha256, size_bytes, touched) VALUES (:s, :n, :t) "
            "ON CONFLICT (sha256) DO UPDATE SET touched = excluded.touched",
        soci::use(blob.id.value), soci::use(size), soci::use(touched);
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteBlob(const BlobId& id) {
  return SqlGuard("deleting a blob's row", [&] {
    sql_ << "DELETE FROM blobs WHERE sha256 = :s", soci::use(id.value);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<BlobId>> SqlTxn::UnreferencedBlobs(absl::Time before, int32_t limit) {
  return SqlGuard("looking for unreferenced blobs", [&]() -> absl::StatusOr<std::vector<BlobId>> {
    const long long cutoff = ToMicros(before), most = limit;
    std::string sha256;
    soci::statement st =
        (sql_.prepare << "SELECT sha256 FROM blobs WHERE touched < :t AND NOT EXISTS "
                         "(SELECT 1 FROM blob_refs WHERE blob_refs.sha256 = blobs.sha256) LIMIT :l",
         soci::use(cutoff), soci::use(most), soci::into(sha256));
    st.execute();
    std::vector<BlobId> blobs;
    while (st.fetch()) blobs.push_back({sha256});
    return blobs;
  });
}

absl::StatusOr<std::vector<GroupRecord>> SqlTxn::ListGroups() {
  return SqlGuard("listing groups", [&]() -> absl::StatusOr<std::vector<GroupRecord>> {
    GroupRecord row;
    long long epoch = 0, attempt = 0, resume_step = 0;
    int precision = 0, shards = 0;
    std::string members;
    soci::statement st =
        (sql_.prepare << "SELECT id, epoch, base_hash, precision, numerics_class, build, shards, "
                         "job_id, attempt, resume_step, members FROM worker_groups ORDER BY id",
         soci::into(row.id.value), soci::into(epoch), soci::into(row.base.value),
         soci::into(precision), soci::into(row.numerics_class), soci::into(row.build),
         soci::into(shards), soci::into(row.job.value), soci::into(attempt),
         soci::into(resume_step), soci::into(members));
    st.execute();
    std::vector<GroupRecord> groups;
    while (st.fetch()) {
      row.epoch = epoch;
      row.precision = static_cast<v1::Precision>(precision);
      row.shards = shards;
      row.attempt = attempt;
      row.resume_step = resume_step;
      ASSIGN_OR_RETURN(row.members, ParseMembers(members));
      groups.push_back(row);
    }
    return groups;
  });
}

absl::Status SqlTxn::PutGroup(const GroupRecord& g) {
  return SqlGuard("storing a group", [&] {
    const long long epoch = g.epoch, attempt = g.attempt, resume_step = g.resume_step;
    const int precision = g.precision, shards = g.shards;
    const std::string members = MembersJson(g.members);
    sql_ << "DELETE FROM worker_groups WHERE id = :id", soci::use(g.id.value);
    sql_ << "INSERT INTO worker_groups (id, epoch, base_hash, precision, numerics_class, build, "
            "shards, job_id, attempt, resume_step, members) VALUES "
            "(:id, :e, :b, :p, :n, :bu, :s, :j, :a, :r, :m)",
        soci::use(g.id.value), soci::use(epoch), soci::use(g.base.value), soci::use(precision),
        soci::use(g.numerics_class), soci::use(g.build), soci::use(shards), soci::use(g.job.value),
        soci::use(attempt), soci::use(resume_step), soci::use(members);
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteGroup(const GroupId& id) {
  return SqlGuard("deleting a group", [&] {
    sql_ << "DELETE FROM worker_groups WHERE id = :id", soci::use(id.value);
    return absl::OkStatus();
  });
}

absl::StatusOr<BaseRecord> SqlTxn::GetBase(const BaseHash& hash) {
  return SqlGuard("reading a base", [&]() -> absl::StatusOr<BaseRecord> {
    BaseRecord record;
    record.hash = hash;
    long long key = 0;
    std::string body;
    sql_ << "SELECT key, body FROM bases WHERE hash = :h", soci::use(hash.value), soci::into(key),
        soci::into(body);
    if (!sql_.got_data()) {
      return absl::NotFoundError(absl::StrCat("there is no base bases/", hash.value));
    }
    record.key = key;
    RETURN_IF_ERROR(DecodeProto(body, record.info));
    return record;
  });
}

absl::StatusOr<std::vector<BaseRecord>> SqlTxn::ListBases() {
  return SqlGuard("listing bases", [&]() -> absl::StatusOr<std::vector<BaseRecord>> {
    long long key = 0;
    std::string hash, body;
    soci::statement st =
        (sql_.prepare << "SELECT key, hash, body FROM bases ORDER BY display_name, key",
         soci::into(key), soci::into(hash), soci::into(body));
    st.execute();
    std::vector<BaseRecord> records;
    while (st.fetch()) {
      BaseRecord& record = records.emplace_back();
      record.key = key;
      record.hash.value = hash;
      RETURN_IF_ERROR(DecodeProto(body, record.info));
    }
    return records;
  });
}

absl::Status SqlTxn::PutBase(const BaseHash& hash, const v1::BaseInfo& info) {
  return SqlGuard("storing a base", [&] {
    const std::string body = EncodeProto(info);
    const std::string& name = info.base().display_name();
    sql_ << "INSERT INTO bases (hash, display_name, body) VALUES (:h, :n, :b) "
            "ON CONFLICT (hash) DO UPDATE SET display_name = excluded.display_name, "
            "body = excluded.body",
        soci::use(hash.value), soci::use(name), soci::use(body);
    const std::string owner = absl::StrCat("base/", hash.value);
    DropRefs(owner);
    for (const v1::AdapterFile& file : info.text_files()) Refer(owner, file.sha256());
    return absl::OkStatus();
  });
}

absl::StatusOr<v1::ValidationReport> SqlTxn::GetReport(const std::string& cache_key) {
  return SqlGuard("reading a report", [&]() -> absl::StatusOr<v1::ValidationReport> {
    std::string body;
    sql_ << "SELECT body FROM reports WHERE cache_key = :k", soci::use(cache_key), soci::into(body);
    if (!sql_.got_data()) return absl::NotFoundError("no report for these bytes and options");
    v1::ValidationReport report;
    RETURN_IF_ERROR(DecodeProto(body, report));
    return report;
  });
}

absl::Status SqlTxn::PutReport(const std::string& cache_key, const v1::ValidationReport& report,
                               absl::Time now) {
  return SqlGuard("storing a report", [&] {
    const std::string body = EncodeProto(report);
    const long long created = ToMicros(now);
    sql_ << "INSERT INTO reports (cache_key, created, body) VALUES (:k, :c, :b) "
            "ON CONFLICT (cache_key) DO UPDATE SET created = excluded.created, "
            "body = excluded.body",
        soci::use(cache_key), soci::use(created), soci::use(body);
    return absl::OkStatus();
  });
}

absl::StatusOr<RequestRecord> SqlTxn::GetRequest(const std::string& method,
                                                 const std::string& request_id) {
  return SqlGuard("reading a request id", [&]() -> absl::StatusOr<RequestRecord> {
    RequestRecord record;
    record.method = method;
    record.request_id = request_id;
    long long created = 0;
    sql_ << "SELECT request_hash, resource, created FROM requests WHERE method = :m AND "
            "request_id = :r",
        soci::use(method), soci::use(request_id), soci::into(record.request_hash),
        soci::into(record.resource), soci::into(created);
    if (!sql_.got_data()) return absl::NotFoundError("an unknown request id");
    record.create_time = FromMicros(created);
    return record;
  });
}

absl::Status SqlTxn::PutRequest(const RequestRecord& r) {
  return SqlGuard("storing a request id", [&] {
    const long long created = ToMicros(r.create_time);
    sql_ << "INSERT INTO requests (method, request_id, request_hash, resource, created) VALUES "
            "(:m, :i, :h, :r, :c) ON CONFLICT (method, request_id) DO UPDATE SET "
            "request_hash = excluded.request_hash, resource = excluded.resource, "
            "created = excluded.created",
        soci::use(r.method), soci::use(r.request_id), soci::use(r.request_hash),
        soci::use(r.resource), soci::use(created);
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteRequestsBefore(absl::Time before) {
  return SqlGuard("forgetting request ids", [&] {
    const long long cutoff = ToMicros(before);
    sql_ << "DELETE FROM requests WHERE created < :c", soci::use(cutoff);
    return absl::OkStatus();
  });
}

absl::StatusOr<UploadRecord> SqlTxn::GetUpload(const std::string& id) {
  return SqlGuard("reading an upload", [&]() -> absl::StatusOr<UploadRecord> {
    UploadRecord record;
    record.id = id;
    long long created = 0;
    std::string body;
    sql_ << "SELECT created, tenant, body FROM uploads WHERE id = :id", soci::use(id),
        soci::into(created), soci::into(record.tenant.value), soci::into(body);
    if (!sql_.got_data()) {
      return absl::NotFoundError(
          absl::StrCat("there is no uploads/", id, "; uploads are kept for 24 hours"));
    }
    record.create_time = FromMicros(created);
    RETURN_IF_ERROR(DecodeProto(body, record.adapter));
    return record;
  });
}

absl::StatusOr<std::vector<std::string>> SqlTxn::UploadsBefore(absl::Time before) {
  return SqlGuard("listing uploads", [&]() -> absl::StatusOr<std::vector<std::string>> {
    const long long cutoff = ToMicros(before);
    std::string id;
    soci::statement st = (sql_.prepare << "SELECT id FROM uploads WHERE created < :c",
                          soci::use(cutoff), soci::into(id));
    st.execute();
    std::vector<std::string> ids;
    while (st.fetch()) ids.push_back(id);
    return ids;
  });
}

absl::StatusOr<std::vector<UploadRecord>> SqlTxn::UploadsWith(const TenantId& tenant,
                                                              const BlobId& file) {
  return SqlGuard("looking for uploads", [&]() -> absl::StatusOr<std::vector<UploadRecord>> {
    std::string id;
    soci::statement st = (sql_.prepare << "SELECT u.id FROM blob_refs r JOIN uploads u "
                                          "ON r.owner = 'upload/' || u.id "
                                          "WHERE r.sha256 = :s AND u.tenant = :t ORDER BY u.id",
                          soci::use(file.value), soci::use(tenant.value), soci::into(id));
    st.execute();
    std::vector<std::string> ids;
    while (st.fetch()) ids.push_back(id);
    std::vector<UploadRecord> uploads;
    for (const std::string& found : ids) {
      ASSIGN_OR_RETURN(uploads.emplace_back(), GetUpload(found));
    }
    return uploads;
  });
}

absl::Status SqlTxn::PutUpload(const UploadRecord& upload) {
  return SqlGuard("storing an upload", [&] {
    const std::string body = EncodeProto(upload.adapter);
    const long long created = ToMicros(upload.create_time);
    sql_ << "INSERT INTO uploads (id, created, tenant, body) VALUES (:i, :c, :t, :b) "
            "ON CONFLICT (id) DO UPDATE SET created = excluded.created",
        soci::use(upload.id), soci::use(created), soci::use(upload.tenant.value), soci::use(body);
    for (const v1::AdapterFile& file : upload.adapter.files()) {
      Refer(absl::StrCat("upload/", upload.id), file.sha256());
    }
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteUpload(const std::string& id) {
  return SqlGuard("deleting an upload", [&] {
    sql_ << "DELETE FROM uploads WHERE id = :id", soci::use(id);
    DropRefs(absl::StrCat("upload/", id));
    return absl::OkStatus();
  });
}

}  // namespace tundra::coordinator
