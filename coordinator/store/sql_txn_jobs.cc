// Jobs, their labels, timelines and checkpoints.
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "coordinator/store/job_state.h"
#include "coordinator/store/sql_txn.h"

namespace tundra::coordinator {
namespace {

constexpr char kJobColumns[] =
    "SELECT key, id, group_id, epoch, fruitless_attempts, attempt_start_step, step_seconds, "
    "version, last_sequence, tenant, body FROM jobs ";

std::string CheckpointOwner(int64_t job_key, int64_t step) {
  return absl::StrCat("checkpoint/", job_key, "/", step);
}

// What a filter term looks like in SQL; its texts are bound in order as :t0, :t1, ….
std::string TermSql(const JobFilterTerm& term, std::vector<std::string>& texts,
                    std::vector<long long>& numbers) {
  const auto bind = [&](const std::string& text) {
    texts.push_back(text);
    return absl::StrCat(":t", texts.size() - 1);
  };
  std::string sql;
  switch (term.field) {
    case JobFilterTerm::Field::kState: {
      v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
      v1::JobState_Parse(term.value, &state);
      numbers.push_back(state);
      sql = absl::StrCat("state = :n", numbers.size() - 1);
      break;
    }
    case JobFilterTerm::Field::kDisplayName:
      sql = term.contains
                ? absl::StrCat("instr(lower(display_name), lower(", bind(term.value), ")) > 0")
                : absl::StrCat("display_name = ", bind(term.value));
      break;
    case JobFilterTerm::Field::kBase: {
      const std::string name = bind(term.value);
      const std::string hash = bind(term.value);
      sql = absl::StrCat("(base_name = ", name, " OR 'bases/' || base_hash = ", hash, ")");
      break;
    }
    case JobFilterTerm::Field::kTenant:
      sql = absl::StrCat("tenant = ", bind(term.value));
      break;
    case JobFilterTerm::Field::kLabel: {
      const std::string key = bind(term.key);
      const std::string value = bind(term.value);
      sql = absl::StrCat("EXISTS (SELECT 1 FROM job_labels WHERE job_key = jobs.key AND label = ",
                         key, " AND value = ", value, ")");
      break;
    }
  }
  return term.negated ? absl::StrCat("NOT ", sql) : sql;
}

absl::StatusOr<CheckpointRecord> DecodeCheckpoint(const std::string& body, int is_final) {
  CheckpointRecord record;
  RETURN_IF_ERROR(DecodeProto(body, record.checkpoint));
  record.final = is_final != 0;
  return record;
}

}  // namespace

absl::StatusOr<std::vector<JobRecord>> SqlTxn::SelectJobs(const std::string& rest,
                                                          const std::vector<std::string>& texts,
                                                          const std::vector<long long>& numbers) {
  long long key = 0, epoch = 0, start_step = 0, version = 0, last_sequence = 0;
  int fruitless = 0;
  double step_seconds = 0;
  std::string id, group, tenant, body;
  soci::statement st(sql_);
  for (size_t i = 0; i < texts.size(); ++i) {
    st.exchange(soci::use(texts[i], absl::StrCat("t", i)));
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    st.exchange(soci::use(numbers[i], absl::StrCat("n", i)));
  }
  st.exchange(soci::into(key));
  st.exchange(soci::into(id));
  st.exchange(soci::into(group));
  st.exchange(soci::into(epoch));
  st.exchange(soci::into(fruitless));
  st.exchange(soci::into(start_step));
  st.exchange(soci::into(step_seconds));
  st.exchange(soci::into(version));
  st.exchange(soci::into(last_sequence));
  st.exchange(soci::into(tenant));
  st.exchange(soci::into(body));
  st.alloc();
  st.prepare(kJobColumns + rest);
  st.define_and_bind();
  st.execute();
  std::vector<JobRecord> jobs;
  while (st.fetch()) {
    JobRecord& job = jobs.emplace_back();
    job.key = key;
    job.id.value = id;
    job.group.value = group;
    job.epoch = epoch;
    job.fruitless_attempts = fruitless;
    job.attempt_start_step = start_step;
    job.step_seconds = step_seconds;
    job.version = version;
    job.last_sequence = last_sequence;
    job.tenant.value = tenant;
    RETURN_IF_ERROR(Annotate(DecodeProto(body, job.job), "job ", id));
  }
  return jobs;
}

absl::StatusOr<JobRecord> SqlTxn::GetJob(const JobId& id) {
  return SqlGuard("reading a job", [&]() -> absl::StatusOr<JobRecord> {
    ASSIGN_OR_RETURN(std::vector<JobRecord> jobs, SelectJobs("WHERE id = :t0", {id.value}, {}));
    if (jobs.empty()) return absl::NotFoundError(absl::StrCat("there is no job jobs/", id.value));
    return std::move(jobs[0]);
  });
}

absl::StatusOr<std::vector<JobRecord>> SqlTxn::ListJobs(const JobQuery& query) {
  return SqlGuard("listing jobs", [&] {
    std::vector<std::string> texts;
    std::vector<long long> numbers = {query.before_key, query.after_key, query.limit};
    std::string where = "WHERE key < :n0 AND key > :n1";
    if (!query.tenant.empty()) {
      texts.push_back(query.tenant.value);
      absl::StrAppend(&where, " AND tenant = :t0");
    }
    for (const JobFilterTerm& term : query.terms) {
      absl::StrAppend(&where, " AND ", TermSql(term, texts, numbers));
    }
    absl::StrAppend(&where, " ORDER BY key", query.oldest_first ? "" : " DESC", " LIMIT :n2");
    return SelectJobs(where, texts, numbers);
  });
}

absl::StatusOr<std::vector<JobRecord>> SqlTxn::ListActiveJobs() {
  return SqlGuard("listing jobs", [&] {
    return SelectJobs("WHERE state NOT IN (:n0, :n1, :n2) ORDER BY key", {},
                      {v1::SUCCEEDED, v1::FAILED, v1::CANCELLED});
  });
}

absl::StatusOr<std::map<v1::JobState, int64_t>> SqlTxn::CountJobs() {
  return SqlGuard("counting jobs", [&]() -> absl::StatusOr<std::map<v1::JobState, int64_t>> {
    std::map<v1::JobState, int64_t> counts;
    int state = 0;
    long long count = 0;
    soci::statement st = (sql_.prepare << "SELECT state, COUNT(*) FROM jobs GROUP BY state",
                          soci::into(state), soci::into(count));
    st.execute();
    while (st.fetch()) counts[static_cast<v1::JobState>(state)] = count;
    return counts;
  });
}

absl::StatusOr<std::vector<TimelineItem>> SqlTxn::ReadTimeline(const JobRecord& job,
                                                               int64_t after_sequence,
                                                               TimelineKind kind, int32_t limit) {
  return SqlGuard("reading a timeline", [&]() -> absl::StatusOr<std::vector<TimelineItem>> {
    // Events are few among many figures, and have no step: with the plus they are found by that,
    // not by their sequence, which would read all figures that came since.
    const char* const which = kind == TimelineKind::kAll ? "sequence > :s"
                              : kind == TimelineKind::kEvents
                                  ? "+sequence > :s AND step IS NULL"
                                  : "sequence > :s AND step IS NOT NULL";
    const long long key = job.key, after = after_sequence, most = limit;
    long long sequence = 0, step = 0;
    soci::indicator has_step = soci::i_null;
    std::string body;
    soci::statement st = (sql_.prepare << absl::StrCat(
                              "SELECT sequence, step, body FROM timeline WHERE job_key = :k AND ",
                              which, " ORDER BY sequence LIMIT :l"),
                          soci::use(key), soci::use(after), soci::use(most), soci::into(sequence),
                          soci::into(step, has_step), soci::into(body));
    st.execute();
    std::vector<TimelineItem> items;
    while (st.fetch()) {
      if (has_step == soci::i_ok) {
        v1::StepMetrics metrics;
        RETURN_IF_ERROR(DecodeProto(body, metrics));
        metrics.set_sequence(sequence);
        items.emplace_back(std::move(metrics));
      } else {
        v1::JobEvent event;
        RETURN_IF_ERROR(DecodeProto(body, event));
        event.set_sequence(sequence);
        items.emplace_back(std::move(event));
      }
    }
    return items;
  });
}

void SqlTxn::WriteEvents(JobDraft& draft) {
  const long long key = draft.record().key;
  for (const v1::JobEvent& event : draft.events()) {
    const long long sequence = ++draft.record().last_sequence;
    const std::string body = EncodeProto(event);
    sql_ << "INSERT INTO timeline (job_key, sequence, step, body) VALUES (:k, :s, NULL, :b)",
        soci::use(key), soci::use(sequence), soci::use(body);
  }
  draft.events().clear();
}

void SqlTxn::WriteLabels(const JobRecord& record) {
  const long long key = record.key;
  for (const auto& [label, value] : record.job.labels()) {
    sql_ << "INSERT INTO job_labels (job_key, label, value) VALUES (:k, :l, :v)", soci::use(key),
        soci::use(label), soci::use(value);
  }
}

absl::Status SqlTxn::InsertJob(JobDraft& draft) {
  return SqlGuard("storing a job", [&] {
    JobRecord& r = draft.record();
    TUNDRA_CHECK(r.key == 0 && r.job.state() == v1::QUEUED) << "job " << r.id.value;
    const int state = r.job.state();
    const long long zero = 0;
    const std::string& name = r.job.display_name();
    const std::string& base_name = r.job.spec().base();
    const std::string& base_hash = r.job.base_hash();
    const std::string& train = r.job.spec().dataset().train();
    const std::string& validation = r.job.spec().dataset().validation();
    const std::string body = EncodeProto(r.job);
    const double seconds = 0;
    sql_ << "INSERT INTO jobs (id, display_name, base_name, base_hash, train_dataset, "
            "validation_dataset, state, group_id, epoch, fruitless_attempts, attempt_start_step, "
            "step_seconds, version, last_sequence, tenant, body) VALUES (:id, :dn, :bn, :bh, :td, "
            ":vd, "
            ":st, '', :z1, :z2, :z3, :ss, :z4, :z5, :te, :b)",
        soci::use(r.id.value), soci::use(name), soci::use(base_name), soci::use(base_hash),
        soci::use(train), soci::use(validation), soci::use(state), soci::use(zero), soci::use(zero),
        soci::use(zero), soci::use(seconds), soci::use(zero), soci::use(zero),
        soci::use(r.tenant.value), soci::use(body);
    long long key = 0;
    sql_ << "SELECT key FROM jobs WHERE id = :id", soci::use(r.id.value), soci::into(key);
    r.key = key;
    WriteLabels(r);
    return SaveJob(draft);
  });
}

absl::Status SqlTxn::SaveJob(JobDraft& draft) {
  return SqlGuard("storing a job", [&]() -> absl::Status {
    JobRecord& r = draft.record();
    const long long key = r.key;
    const long long old_version = r.version;
    int stored_state = 0;
    long long found_version = -1;
    sql_ << "SELECT state, version FROM jobs WHERE key = :k", soci::use(key),
        soci::into(stored_state), soci::into(found_version);
    if (found_version != old_version) {
      return absl::AbortedError(
          absl::StrCat("job ", r.id.value, " was changed by another write; try again"));
    }
    const auto from = static_cast<v1::JobState>(stored_state);
    TUNDRA_CHECK(from == r.job.state() || !IsTerminal(from))
        << "job " << r.id.value << " leaves " << StateName(from);
    WriteEvents(draft);
    ++r.version;
    *r.job.mutable_update_time() = ToProto(draft.now());
    const int state = r.job.state(), fruitless = r.fruitless_attempts;
    const long long epoch = r.epoch, start_step = r.attempt_start_step, version = r.version,
                    last_sequence = r.last_sequence;
    const std::string body = EncodeProto(r.job);
    sql_ << "UPDATE jobs SET state = :st, group_id = :g, epoch = :e, fruitless_attempts = :f, "
            "attempt_start_step = :s, step_seconds = :ss, version = :v, last_sequence = :l, "
            "body = :b WHERE key = :k",
        soci::use(state), soci::use(r.group.value), soci::use(epoch), soci::use(fruitless),
        soci::use(start_step), soci::use(r.step_seconds), soci::use(version),
        soci::use(last_sequence), soci::use(body), soci::use(key);
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteJob(const JobRecord& job) {
  return SqlGuard("deleting a job", [&] {
    const long long key = job.key;
    const std::string owners = absl::StrCat("checkpoint/", job.key, "/%");
    sql_ << "UPDATE blobs SET touched = 0 WHERE sha256 IN "
            "(SELECT sha256 FROM blob_refs WHERE owner LIKE :o)",
        soci::use(owners);
    sql_ << "DELETE FROM blob_refs WHERE owner LIKE :o", soci::use(owners);
    for (const char* const table : {"timeline", "job_labels", "checkpoints"}) {
      sql_ << "DELETE FROM " << table << " WHERE job_key = :k", soci::use(key);
    }
    sql_ << "DELETE FROM jobs WHERE key = :k", soci::use(key);
    return absl::OkStatus();
  });
}

absl::StatusOr<int> SqlTxn::AppendMetrics(JobDraft& draft,
                                          const std::vector<v1::StepMetrics>& metrics) {
  return SqlGuard("storing metrics", [&]() -> absl::StatusOr<int> {
    const long long key = draft.record().key;
    int stored = 0;
    for (const v1::StepMetrics& m : metrics) {
      const long long step = m.step();
      int there = 0;
      sql_ << "SELECT COUNT(*) FROM timeline WHERE job_key = :k AND step = :s", soci::use(key),
          soci::use(step), soci::into(there);
      if (there != 0) continue;
      const long long sequence = ++draft.record().last_sequence;
      const std::string body = EncodeProto(m);
      sql_ << "INSERT INTO timeline (job_key, sequence, step, body) VALUES (:k, :q, :s, :b)",
          soci::use(key), soci::use(sequence), soci::use(step), soci::use(body);
      ++stored;
    }
    return stored;
  });
}

absl::StatusOr<std::optional<int64_t>> SqlTxn::LastMetricsStep(const JobRecord& job) {
  return SqlGuard("reading metrics", [&]() -> absl::StatusOr<std::optional<int64_t>> {
    const long long key = job.key;
    long long step = 0;
    soci::indicator found = soci::i_null;
    sql_ << "SELECT MAX(step) FROM timeline WHERE job_key = :k", soci::use(key),
        soci::into(step, found);
    if (found != soci::i_ok) return std::nullopt;
    return step;
  });
}

absl::StatusOr<std::vector<CheckpointRecord>> SqlTxn::ListCheckpoints(const JobRecord& job,
                                                                      int64_t before_step,
                                                                      int32_t limit) {
  return SqlGuard("listing checkpoints", [&]() -> absl::StatusOr<std::vector<CheckpointRecord>> {
    const long long key = job.key, before = before_step, most = limit;
    int is_final = 0;
    std::string body;
    soci::statement st =
        (sql_.prepare << "SELECT is_final, body FROM checkpoints WHERE job_key = :k AND step < :s "
                         "ORDER BY step DESC LIMIT :l",
         soci::use(key), soci::use(before), soci::use(most), soci::into(is_final),
         soci::into(body));
    st.execute();
    std::vector<CheckpointRecord> checkpoints;
    while (st.fetch()) {
      ASSIGN_OR_RETURN(checkpoints.emplace_back(), DecodeCheckpoint(body, is_final));
    }
    return checkpoints;
  });
}

absl::StatusOr<std::map<int64_t, CheckpointRecord>> SqlTxn::NewestCheckpoints(v1::JobState state) {
  using Records = std::map<int64_t, CheckpointRecord>;
  return SqlGuard("listing checkpoints", [&]() -> absl::StatusOr<Records> {
    const int wanted = state;
    long long key = 0;
    int is_final = 0;
    std::string body;
    soci::statement st =
        (sql_.prepare << "SELECT c.job_key, c.is_final, c.body FROM jobs j JOIN checkpoints c "
                         "ON c.job_key = j.key AND c.step = "
                         "(SELECT MAX(step) FROM checkpoints WHERE job_key = j.key) "
                         "WHERE j.state = :s",
         soci::use(wanted), soci::into(key), soci::into(is_final), soci::into(body));
    st.execute();
    Records records;
    while (st.fetch()) {
      ASSIGN_OR_RETURN(records[key], DecodeCheckpoint(body, is_final));
    }
    return records;
  });
}

absl::StatusOr<CheckpointRecord> SqlTxn::GetCheckpoint(const JobRecord& job, int64_t step) {
  return SqlGuard("reading a checkpoint", [&]() -> absl::StatusOr<CheckpointRecord> {
    const long long key = job.key, wanted = step;
    int is_final = 0;
    std::string body;
    sql_ << "SELECT is_final, body FROM checkpoints WHERE job_key = :k AND step = :s",
        soci::use(key), soci::use(wanted), soci::into(is_final), soci::into(body);
    if (!sql_.got_data()) {
      return absl::NotFoundError(
          absl::StrCat("there is no checkpoint jobs/", job.id.value, "/checkpoints/", step));
    }
    return DecodeCheckpoint(body, is_final);
  });
}

absl::Status SqlTxn::PutCheckpoint(const JobRecord& job, const CheckpointRecord& checkpoint) {
  return SqlGuard("storing a checkpoint", [&] {
    const long long key = job.key, step = checkpoint.checkpoint.step();
    const int is_final = checkpoint.final ? 1 : 0;
    const std::string body = EncodeProto(checkpoint.checkpoint);
    const std::string owner = CheckpointOwner(job.key, step);
    sql_ << "DELETE FROM checkpoints WHERE job_key = :k AND step = :s", soci::use(key),
        soci::use(step);
    DropRefs(owner);
    sql_ << "INSERT INTO checkpoints (job_key, step, is_final, body) VALUES (:k, :s, :f, :b)",
        soci::use(key), soci::use(step), soci::use(is_final), soci::use(body);
    Refer(owner, checkpoint.checkpoint.sha256());
    for (const v1::AdapterFile& file : checkpoint.checkpoint.adapter().files()) {
      Refer(owner, file.sha256());
    }
    return absl::OkStatus();
  });
}

absl::Status SqlTxn::DeleteCheckpoint(const JobRecord& job, int64_t step) {
  return SqlGuard("deleting a checkpoint", [&] {
    const long long key = job.key, wanted = step;
    sql_ << "DELETE FROM checkpoints WHERE job_key = :k AND step = :s", soci::use(key),
        soci::use(wanted);
    DropRefs(CheckpointOwner(job.key, step));
    return absl::OkStatus();
  });
}

}  // namespace tundra::coordinator
