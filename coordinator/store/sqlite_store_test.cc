// What SQLite alone must do: survive the end of the process at every point of a
// commit, a full disk, two processes, and foreign files.
#include "coordinator/store/sqlite_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/status_test_util.h"

namespace tundra::coordinator {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

absl::Status PutRequest(Store& store, int i, const std::string& payload = "hash") {
  return store.Write([&](Txn& txn) {
    return txn.PutRequest({"m", absl::StrCat("r", i), payload, "x", kNow});
  });
}

bool HasRequest(Store& store, int i) {
  bool there = false;
  TUNDRA_EXPECT_OK(store.Read([&](ReadTxn& txn) {
    there = txn.GetRequest("m", absl::StrCat("r", i)).ok();
    return absl::OkStatus();
  }));
  return there;
}

// Runs `child` in a process of its own; its exit status.
int InChild(const std::function<void()>& child) {
  const pid_t pid = fork();
  if (pid == 0) {
    child();
    _exit(99);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

TEST(SqliteCrashTest, WhatWasAcknowledgedIsThereAndNothingIsHalfDone) {
  for (const char* const point : {"begin", "applied", "committed"}) {
    for (const int commits : {1, 2, 5}) {
      TempDir dir;
      int pipe_fds[2];
      ASSERT_EQ(pipe(pipe_fds), 0);
      const int status = InChild([&] {
        SqliteOptions options;
        options.data_dir = dir.path();
        int left = commits;
        options.at_point = [&](std::string_view at) {
          if (at == point && --left == 0) _exit(7);
        };
        auto store = OpenSqliteStore(options);
        for (int i = 0; store.ok() && i < 100; ++i) {
          // Two rows a transaction, so that half of one would show.
          const absl::Status written = (*store)->Write([&](Txn& txn) -> absl::Status {
            absl::Status s = txn.PutRequest({"m", absl::StrCat("r", i), "", "", kNow});
            s.Update(txn.PutRequest({"m", absl::StrCat("r", 1000 + i), "", "", kNow}));
            return s;
          });
          if (!written.ok()) _exit(8);
          const char byte = static_cast<char>(i);
          if (write(pipe_fds[1], &byte, 1) != 1) _exit(9);
        }
      });
      close(pipe_fds[1]);
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << point << " " << status;
      std::string acknowledged(256, '\0');
      const ssize_t n = read(pipe_fds[0], acknowledged.data(), acknowledged.size());
      close(pipe_fds[0]);
      ASSERT_GE(n, commits - 1);
      auto store = OpenSqliteStore({.data_dir = dir.path()});
      TUNDRA_ASSERT_OK(store);
      for (int i = 0; i < n; ++i) EXPECT_TRUE(HasRequest(**store, i)) << point << " " << i;
      for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(HasRequest(**store, i), HasRequest(**store, 1000 + i)) << point << " " << i;
      }
    }
  }
}

TEST(SqliteStoreTest, ASecondProcessIsRefused) {
  TempDir dir;
  auto first = OpenSqliteStore({.data_dir = dir.path()});
  TUNDRA_ASSERT_OK(first);
  EXPECT_THAT(OpenSqliteStore({.data_dir = dir.path()}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--data-dir")));
  first->reset();
  TUNDRA_EXPECT_OK(OpenSqliteStore({.data_dir = dir.path()}));
}

TEST(SqliteStoreTest, AFileThatIsNoDatabaseIsAnErrorWithItsName) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "tundra.db", std::string(8192, 'x')));
  EXPECT_THAT(OpenSqliteStore({.data_dir = dir.path()}),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("tundra.db")));
}

TEST(SqliteStoreTest, AFullDiskLosesNothingAndTheStoreGoesOnWhenThereIsRoom) {
  TempDir dir;
  // The limit is the process's, so a process of its own has it.
  const int status = InChild([&] {
    signal(SIGXFSZ, SIG_IGN);
    auto store = OpenSqliteStore({.data_dir = dir.path()});
    if (!store.ok() || !PutRequest(**store, 0).ok()) _exit(1);
    const rlimit tight{400 << 10, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &tight);
    int failed = -1;
    for (int i = 1; i < 200 && failed < 0; ++i) {
      if (!PutRequest(**store, i, std::string(20'000, 'y')).ok()) failed = i;
    }
    if (failed < 2) _exit(2);
    if (HasRequest(**store, failed)) _exit(3);
    for (int i = 0; i < failed; ++i) {
      if (!HasRequest(**store, i)) _exit(4);
    }
    const rlimit wide{RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &wide);
    if (!PutRequest(**store, failed, std::string(20'000, 'y')).ok()) _exit(5);
    _exit(HasRequest(**store, failed) ? 0 : 6);
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(SqliteStoreTest, WritesThatWaitShareACommit) {
  TempDir dir;
  std::atomic<int> commits{0};
  SqliteOptions options;
  options.data_dir = dir.path();
  options.on_commit = [&](absl::Duration) { ++commits; };
  auto store = OpenSqliteStore(options);
  TUNDRA_ASSERT_OK(store);
  constexpr int kWrites = 20;
  // The first write holds the writer until the others are about to wait. Whether
  // they do is up to the system, so there are several tries.
  bool shared = false;
  for (int round = 0; round < 100 && !shared; ++round) {
    commits = 0;
    std::atomic<int> waiting{0};
    std::vector<std::thread> threads;
    threads.emplace_back([&] {
      TUNDRA_EXPECT_OK((*store)->Write([&](Txn&) {
        while (waiting < kWrites) std::this_thread::yield();
        return absl::OkStatus();
      }));
    });
    for (int i = 0; i < kWrites; ++i) {
      threads.emplace_back([&, i] {
        ++waiting;
        TUNDRA_EXPECT_OK(PutRequest(**store, i));
      });
    }
    for (std::thread& thread : threads) thread.join();
    shared = commits < kWrites;
    for (int i = 0; i < kWrites; ++i) EXPECT_TRUE(HasRequest(**store, i));
  }
  EXPECT_TRUE(shared);
}

}  // namespace
}  // namespace tundra::coordinator
