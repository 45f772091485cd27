#include "coordinator/store/sqlite_store.h"

#include <fcntl.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>
#include <sys/file.h>
#include <unistd.h>

#include <deque>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/status.h"
#include "coordinator/store/sql_schema.h"
#include "coordinator/store/sql_txn.h"

namespace tundra::coordinator {
namespace {

// One waiting call of Write.
struct PendingWrite {
  const std::function<absl::Status(Txn&)>* fn = nullptr;
  absl::Status status;
  bool done = false;
};

absl::StatusOr<Fd> LockDataDir(const std::string& dir) {
  RETURN_IF_ERROR(MakeDirs(dir));
  const std::string path = dir + "/lock";
  Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, path);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, path);
    return absl::FailedPreconditionError(absl::StrCat(
        dir, " is in use by another tundra-coordinator; stop it, or choose another --data-dir"));
  }
  return fd;
}

std::unique_ptr<soci::session> Connect(const std::string& path, bool sync) {
  auto session = std::make_unique<soci::session>();
  session->open(soci::sqlite3, absl::StrCat("dbname=\"", path, "\" timeout=30"));
  *session << "PRAGMA journal_mode=WAL";
  *session << (sync ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF");
  *session << "PRAGMA foreign_keys=OFF";
  return session;
}

void Migrate(soci::session& sql) {
  sql << "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER NOT NULL PRIMARY KEY)";
  for (const Migration& migration : Migrations()) {
    int there = 0;
    sql << "SELECT COUNT(*) FROM schema_migrations WHERE number = :n",
        soci::use(migration.number), soci::into(there);
    if (there != 0) continue;
    sql << "BEGIN IMMEDIATE";
    for (const std::string& statement : migration.statements) sql << statement;
    sql << "INSERT INTO schema_migrations (number) VALUES (:n)", soci::use(migration.number);
    sql << "COMMIT";
  }
}

bool InTransaction(soci::session& sql) {
  auto* const backend = static_cast<soci::sqlite3_session_backend*>(sql.get_backend());
  return sqlite_api::sqlite3_get_autocommit(backend->conn_) == 0;
}

class SqliteStore : public Store {
 public:
  explicit SqliteStore(SqliteOptions options) : options_(std::move(options)) {}

  ~SqliteStore() override {
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    if (writer_.joinable()) writer_.join();
  }

  absl::Status Open() {
    ASSIGN_OR_RETURN(lock_, LockDataDir(options_.data_dir));
    const std::string path = options_.data_dir + "/tundra.db";
    RETURN_IF_ERROR(SqlGuard(path, [&] {
      write_session_ = Connect(path, options_.sync);
      Migrate(*write_session_);
      for (int i = 0; i < options_.read_sessions; ++i) {
        read_sessions_.push_back(Connect(path, options_.sync));
        free_.push_back(read_sessions_.back().get());
      }
      return absl::OkStatus();
    }));
    writer_ = std::thread([this] { WriterLoop(); });
    return absl::OkStatus();
  }

  absl::Status Write(const std::function<absl::Status(Txn&)>& fn) override {
    PendingWrite write;
    write.fn = &fn;
    absl::MutexLock lock(&mu_);
    if (stopping_) return absl::UnavailableError("the store is stopping");
    queue_.push_back(&write);
    mu_.Await(absl::Condition(&write.done));
    return write.status;
  }

  absl::Status Read(const std::function<absl::Status(ReadTxn&)>& fn) override {
    soci::session* session = nullptr;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(
          +[](std::vector<soci::session*>* free) { return !free->empty(); }, &free_));
      session = free_.back();
      free_.pop_back();
    }
    const absl::Status status = SqlGuard("reading", [&] {
      *session << "BEGIN";
      SqlTxn txn(*session);
      absl::Status result = fn(txn);
      *session << "ROLLBACK";
      return result;
    });
    if (InTransaction(*session)) {
      SqlGuard("rolling back", [&] {
        *session << "ROLLBACK";
        return absl::OkStatus();
      }).IgnoreError();
    }
    absl::MutexLock lock(&mu_);
    free_.push_back(session);
    return status;
  }

 private:
  void WriterLoop() {
    std::vector<PendingWrite*> batch;
    for (;;) {
      {
        absl::MutexLock lock(&mu_);
        mu_.Await(absl::Condition(this, &SqliteStore::HasWork));
        if (queue_.empty()) return;
        while (!queue_.empty() && batch.size() < static_cast<size_t>(options_.max_batch)) {
          batch.push_back(queue_.front());
          queue_.pop_front();
        }
      }
      RunBatch(batch);
      absl::MutexLock lock(&mu_);
      for (PendingWrite* write : batch) write->done = true;
      batch.clear();
    }
  }

  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !queue_.empty(); }

  void Point(std::string_view name) {
    if (options_.at_point) options_.at_point(name);
  }

  // All of the batch that succeed are committed together; when the commit fails,
  // all of it fails.
  void RunBatch(const std::vector<PendingWrite*>& batch) {
    soci::session& sql = *write_session_;
    const absl::Duration start = Clock::System()->Monotonic();
    absl::Status status = SqlGuard("committing", [&]() -> absl::Status {
      sql << "BEGIN IMMEDIATE";
      Point("begin");
      for (PendingWrite* write : batch) RETURN_IF_ERROR(RunOne(sql, *write));
      Point("applied");
      sql << "COMMIT";
      Point("committed");
      return absl::OkStatus();
    });
    if (!status.ok()) {
      LogError("store: {}", std::string(status.message()));
      SqlGuard("rolling back", [&] {
        if (InTransaction(sql)) sql << "ROLLBACK";
        return absl::OkStatus();
      }).IgnoreError();
      for (PendingWrite* write : batch) {
        if (write->status.ok()) write->status = status;
      }
    }
    if (options_.on_commit) options_.on_commit(Clock::System()->Monotonic() - start);
  }

  // An error of the write itself is in write.status and undone by the savepoint;
  // an error here means that the whole transaction is lost (SQLite ends it on
  // its own when the disk is full).
  absl::Status RunOne(soci::session& sql, PendingWrite& write) {
    sql << "SAVEPOINT one";
    SqlTxn txn(sql);
    write.status = (*write.fn)(txn);
    if (!InTransaction(sql)) {
      return write.status.ok() ? absl::InternalError("the transaction ended early") : write.status;
    }
    if (!write.status.ok()) sql << "ROLLBACK TO one";
    sql << "RELEASE one";
    return absl::OkStatus();
  }

  SqliteOptions options_;
  Fd lock_;
  std::unique_ptr<soci::session> write_session_;
  std::vector<std::unique_ptr<soci::session>> read_sessions_;
  absl::Mutex mu_;
  std::vector<soci::session*> free_ ABSL_GUARDED_BY(mu_);
  std::deque<PendingWrite*> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread writer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(SqliteOptions options) {
  auto store = std::make_unique<SqliteStore>(std::move(options));
  RETURN_IF_ERROR(store->Open());
  return store;
}

}  // namespace tundra::coordinator
