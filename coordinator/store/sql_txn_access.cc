// Tenants, tokens, workers and the audit log.
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/store/sql_txn.h"

namespace tundra::coordinator {

absl::StatusOr<TenantRecord> SqlTxn::GetTenant(const TenantId& id) {
  return SqlGuard("reading a tenant", [&]() -> absl::StatusOr<TenantRecord> {
    TenantRecord record;
    record.id = id;
    long long created = 0;
    std::string quota;
    sql_ << "SELECT created, quota FROM tenants WHERE id = :id", soci::use(id.value),
        soci::into(created), soci::into(quota);
    if (!sql_.got_data()) {
      return absl::NotFoundError(absl::StrCat("there is no tenant tenants/", id.value));
    }
    record.create_time = FromMicros(created);
    RETURN_IF_ERROR(DecodeProto(quota, record.quota));
    return record;
  });
}

absl::StatusOr<std::vector<TenantRecord>> SqlTxn::ListTenants() {
  return SqlGuard("listing tenants", [&]() -> absl::StatusOr<std::vector<TenantRecord>> {
    long long created = 0;
    std::string id, quota;
    soci::statement st = (sql_.prepare << "SELECT id, created, quota FROM tenants ORDER BY id",
                          soci::into(id), soci::into(created), soci::into(quota));
    st.execute();
    std::vector<TenantRecord> records;
    while (st.fetch()) {
      TenantRecord& record = records.emplace_back();
      record.id.value = id;
      record.create_time = FromMicros(created);
      RETURN_IF_ERROR(DecodeProto(quota, record.quota));
    }
    return records;
  });
}

absl::StatusOr<TenantCounts> SqlTxn::CountTenant(const TenantId& id) {
  return SqlGuard("counting what a tenant has", [&]() -> absl::StatusOr<TenantCounts> {
    long long active = 0, jobs = 0, datasets = 0, bytes = 0, uploaded = 0, tokens = 0;
    const int succeeded = v1::SUCCEEDED, failed = v1::FAILED, cancelled = v1::CANCELLED;
    sql_ << "SELECT COUNT(*) FROM jobs WHERE tenant = :t", soci::use(id.value), soci::into(jobs);
    sql_ << "SELECT COUNT(*) FROM jobs WHERE tenant = :t AND state NOT IN (:a, :b, :c)",
        soci::use(id.value), soci::use(succeeded), soci::use(failed), soci::use(cancelled),
        soci::into(active);
    sql_ << "SELECT COUNT(*), COALESCE(SUM(b.size_bytes), 0) FROM datasets d "
            "JOIN blob_refs r ON r.owner = 'dataset/' || d.id "
            "JOIN blobs b ON b.sha256 = r.sha256 WHERE d.tenant = :t",
        soci::use(id.value), soci::into(datasets), soci::into(bytes);
    sql_ << "SELECT COALESCE(SUM(size_bytes), 0) FROM blobs WHERE sha256 IN "
            "(SELECT r.sha256 FROM uploads u JOIN blob_refs r ON r.owner = 'upload/' || u.id "
            "WHERE u.tenant = :t)",
        soci::use(id.value), soci::into(uploaded);
    sql_ << "SELECT COUNT(*) FROM tokens WHERE tenant = :t", soci::use(id.value),
        soci::into(tokens);
    return TenantCounts{.active_jobs = active,
                        .jobs = jobs,
                        .datasets = datasets,
                        .dataset_bytes = bytes + uploaded,
                        .tokens = tokens};
  });
}

absl::Status SqlTxn::PutTenant(const TenantRecord& tenant) {
  return SqlGuard("storing a tenant", [&] {
    const long long created = ToMicros(tenant.create_time);
    const std::string quota = EncodeProto(tenant.quota);
    sql_ << "INSERT INTO tenants (id, created, quota) VALUES (:i, :c, :q) "
            "ON CONFLICT (id) DO UPDATE SET quota = excluded.quota",
        soci::use(tenant.id.value), soci::use(created), soci::use(quota);
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteTenant(const TenantId& id) {
  return SqlGuard("deleting a tenant", [&] {
    sql_ << "DELETE FROM tenants WHERE id = :id", soci::use(id.value);
    // What goes by itself after a day, too: a tenant that is made anew under this name has none.
    std::string upload;
    soci::statement st = (sql_.prepare << "SELECT id FROM uploads WHERE tenant = :t",
                          soci::use(id.value), soci::into(upload));
    st.execute();
    std::vector<std::string> uploads;
    while (st.fetch()) uploads.push_back(upload);
    for (const std::string& gone : uploads) RETURN_IF_ERROR(DeleteUpload(gone));
    const std::string prefix = id.value + "/";
    sql_ << "DELETE FROM requests WHERE substr(method, 1, length(:p)) = :q", soci::use(prefix),
        soci::use(prefix);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<TokenRecord>> SqlTxn::ListTokens() {
  return SqlGuard("listing tokens", [&]() -> absl::StatusOr<std::vector<TokenRecord>> {
    long long key = 0, created = 0, expires = 0;
    int role = 0;
    soci::indicator has_expiry = soci::i_null;
    TokenRecord row;
    soci::statement st =
        (sql_.prepare << "SELECT key, id, secret_hash, tenant, role, display_name, created, "
                         "expires FROM tokens ORDER BY key DESC",
         soci::into(key), soci::into(row.id.value), soci::into(row.secret_hash),
         soci::into(row.tenant.value), soci::into(role), soci::into(row.display_name),
         soci::into(created), soci::into(expires, has_expiry));
    st.execute();
    std::vector<TokenRecord> records;
    while (st.fetch()) {
      row.key = key;
      row.role = static_cast<v1::Role>(role);
      row.create_time = FromMicros(created);
      row.expire_time = has_expiry == soci::i_ok ? FromMicros(expires) : absl::InfiniteFuture();
      records.push_back(row);
    }
    return records;
  });
}

absl::Status SqlTxn::InsertToken(TokenRecord& record) {
  return SqlGuard("storing a token", [&] {
    const bool forever = record.expire_time == absl::InfiniteFuture();
    soci::indicator has_expiry = forever ? soci::i_null : soci::i_ok;
    const long long created = ToMicros(record.create_time),
                    expires = forever ? 0 : ToMicros(record.expire_time);
    const int role = record.role;
    sql_ << "INSERT INTO tokens (id, secret_hash, tenant, role, display_name, created, expires) "
            "VALUES (:i, :h, :t, :r, :d, :c, :e)",
        soci::use(record.id.value), soci::use(record.secret_hash), soci::use(record.tenant.value),
        soci::use(role), soci::use(record.display_name), soci::use(created),
        soci::use(expires, has_expiry);
    long long key = 0;
    sql_ << "SELECT key FROM tokens WHERE id = :id", soci::use(record.id.value), soci::into(key);
    record.key = key;
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteToken(const TokenId& id) {
  return SqlGuard("deleting a token", [&] {
    sql_ << "DELETE FROM tokens WHERE id = :id", soci::use(id.value);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<WorkerRecord>> SqlTxn::ListWorkers() {
  return SqlGuard("listing workers", [&]() -> absl::StatusOr<std::vector<WorkerRecord>> {
    WorkerRecord row;
    int drained = 0;
    soci::statement st = (sql_.prepare << "SELECT id, identity, drained FROM workers ORDER BY id",
                          soci::into(row.id.value), soci::into(row.identity), soci::into(drained));
    st.execute();
    std::vector<WorkerRecord> records;
    while (st.fetch()) {
      row.drained = drained != 0;
      records.push_back(row);
    }
    return records;
  });
}

absl::Status SqlTxn::PutWorker(const WorkerRecord& worker) {
  return SqlGuard("storing a worker", [&] {
    const int drained = worker.drained ? 1 : 0;
    sql_ << "INSERT INTO workers (id, identity, drained) VALUES (:i, :n, :d) ON CONFLICT (id) "
            "DO UPDATE SET identity = excluded.identity, drained = excluded.drained",
        soci::use(worker.id.value), soci::use(worker.identity), soci::use(drained);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<v1::AuditEntry>> SqlTxn::ListAudit(int64_t before_sequence,
                                                              int32_t limit) {
  return SqlGuard("reading the audit log", [&]() -> absl::StatusOr<std::vector<v1::AuditEntry>> {
    const long long before = before_sequence, most = limit;
    long long sequence = 0;
    std::string body;
    soci::statement st =
        (sql_.prepare << "SELECT sequence, body FROM audit WHERE sequence < :s "
                         "ORDER BY sequence DESC LIMIT :l",
         soci::use(before), soci::use(most), soci::into(sequence), soci::into(body));
    st.execute();
    std::vector<v1::AuditEntry> entries;
    while (st.fetch()) {
      v1::AuditEntry& entry = entries.emplace_back();
      // One that cannot be read hides no other.
      if (!DecodeProto(body, entry).ok()) {
        entry.Clear();
        entry.set_message("this entry is damaged");
      }
      entry.set_sequence(sequence);
    }
    return entries;
  });
}

absl::Status SqlTxn::AppendAudit(v1::AuditEntry& entry) {
  return SqlGuard("storing an audit entry", [&] {
    entry.clear_sequence();
    const std::string body = EncodeProto(entry);
    sql_ << "INSERT INTO audit (body) VALUES (:b)", soci::use(body);
    long long sequence = 0;
    sql_ << "SELECT MAX(sequence) FROM audit", soci::into(sequence);
    entry.set_sequence(sequence);
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::KeepAudit(int64_t count) {
  return SqlGuard("thinning the audit log", [&] {
    const long long keep = count;
    sql_ << "DELETE FROM audit WHERE sequence <= (SELECT MAX(sequence) FROM audit) - :k",
        soci::use(keep);
    return absl::OkStatus();
  });
}

}  // namespace tundra::coordinator
