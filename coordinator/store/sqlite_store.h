// The store on SQLite, embedded: the default.
//
// SQLite has one writer at a time, and a deferred BEGIN that turns into a write
// fails at once with "database is locked" whatever the timeout. So one thread
// owns the only writing session; it takes the writes that wait, runs each in a
// savepoint of one immediate transaction, and commits them together (group
// commit: one fsync for many). Reads run on sessions of their own and see the
// last commit (WAL). synchronous=FULL makes a commit durable.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

struct SqliteOptions {
  // Folder of the database; made when missing. Only one process may use it.
  std::string data_dir;
  int read_sessions = 4;
  // Most writes that share a commit.
  int max_batch = 64;
  // False skips the waiting for the disk, so that a crash of the machine may lose
  // writes: for simulations.
  bool sync = true;
  // Told how long each commit took, on the writer thread.
  std::function<void(absl::Duration)> on_commit = nullptr;
  // Called at "begin", "applied" (before the commit) and "committed", on the
  // writer thread: crash tests end the process there.
  std::function<void(std::string_view)> at_point = nullptr;
};

// Opens or makes DATA_DIR/tundra.db and runs the migrations that are missing.
// Errors: kFailedPrecondition when another process holds the folder, or when the
// database was made by a newer, incompatible version; kDataLoss when it is no
// database of ours; kPermissionDenied, kResourceExhausted, kInternal.
absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(SqliteOptions options);

}  // namespace tundra::coordinator
