// tundra local up | down with programs that do nothing in place of the real ones,
// which tests/e2e runs: what is noted, who is stopped, and when.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/address.h"
#include "client/commands.h"
#include "client/output.h"
#include "client/scripted_service.h"
#include "common/files.h"
#include "common/status_test_util.h"

namespace tundra::client {
namespace {

class LocalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("PATH");
    old_path_ = path == nullptr ? "" : path;
    ::setenv("PATH", (dir_ / "bin:" + old_path_).c_str(), 1);
    TUNDRA_ASSERT_OK(MakeDirs(dir_ / "bin"));
    TUNDRA_ASSERT_OK(MakeDirs(dir_ / "bases"));
    // Notes its port, if it has one, and stays until it is stopped.
    Program("tundra-coordinator",
            "while [ $# -gt 0 ]; do [ \"$1\" = --ports-file ] && ports=$2; shift; done\n"
            "if [ -n \"$TUNDRA_FAKE_PORT\" ]; then\n"
            "  echo \"{\\\"grpc\\\": $TUNDRA_FAKE_PORT, \\\"http\\\": 1, \\\"web\\\": 2}\" > "
            "\"$ports.new\"\n"
            "  mv \"$ports.new\" \"$ports\"\n"
            "fi\n"
            "exec sleep 600\n");
    Program("tundra-worker", "exec sleep 600\n");
  }
  void TearDown() override {
    Local("down");
    ::setenv("PATH", old_path_.c_str(), 1);
    ::unsetenv("TUNDRA_FAKE_PORT");
  }
  void Program(const std::string& name, const std::string& text) {
    const std::string path = dir_ / ("bin/" + name);
    std::ofstream(path) << "#!/bin/sh\n" << text;
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
  }

  int Local(const std::string& arguments) {
    CLI::App app;
    CommonFlags common;
    client::Run run;
    AddLocal(app, common, &run);
    app.parse("local " + arguments + " --data-dir " + dir_.path());
    return run();
  }
  // In a thread of its own, since it blocks signals there.
  std::thread Up(int* code, const std::string& more = "") {
    return std::thread(
        [this, code, more] { *code = Local("up --base-dir " + (dir_ / "bases") + more); });
  }

  nlohmann::json State() {
    const auto bytes = ReadFile(LocalStatePath(dir_.path()));
    return bytes.ok() ? nlohmann::json::parse(*bytes, nullptr, false) : nlohmann::json();
  }
  std::vector<pid_t> WaitForProcesses(size_t count) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    std::vector<pid_t> pids;
    while (pids.size() < count && absl::Now() < deadline) {
      pids.clear();
      const auto state = State();
      if (state.is_object()) {
        for (const auto& process : state["processes"]) pids.push_back(process["pid"].get<pid_t>());
      }
      absl::SleepFor(absl::Milliseconds(5));
    }
    EXPECT_GE(pids.size(), count);
    return pids;
  }
  static bool Runs(pid_t pid) {
    const auto stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
    return stat.ok() && stat->find(") Z ") == std::string::npos;
  }

  TempDir dir_;
  std::string old_path_;
};

TEST_F(LocalTest, DetachedServicesStayUntilDown) {
  ScriptedService service;
  ::setenv("TUNDRA_FAKE_PORT", std::to_string(service.port()).c_str(), 1);
  int code = -1;
  Up(&code, " --detach").join();
  ASSERT_EQ(code, kOk);
  const auto pids = WaitForProcesses(2);
  EXPECT_EQ(State()["address"], service.address());
  for (const pid_t pid : pids) EXPECT_TRUE(Runs(pid));
  int again = -1;
  Up(&again, " --detach").join();
  EXPECT_EQ(again, kBadInput);
  EXPECT_EQ(WaitForProcesses(2), pids) << "the first is left alone";
  EXPECT_EQ(Local("down"), kOk);
  for (const pid_t pid : pids) EXPECT_FALSE(Runs(pid));
  EXPECT_FALSE(FileExists(LocalStatePath(dir_.path())));
}

TEST_F(LocalTest, ASignalEndsItAlsoWhileItStarts) {
  int code = -1;
  std::thread up = Up(&code);  // The coordinator never notes its port.
  const auto pids = WaitForProcesses(1);
  // The child does not inherit the signals that `up` blocks.
  const auto status = ReadFile("/proc/" + std::to_string(pids[0]) + "/status");
  EXPECT_THAT(status.value_or(""), ::testing::HasSubstr("SigBlk:\t0000000000000000"));
  ::pthread_kill(up.native_handle(), SIGTERM);
  up.join();
  EXPECT_NE(code, kOk);
  EXPECT_FALSE(Runs(pids[0]));
  EXPECT_FALSE(FileExists(LocalStatePath(dir_.path())));
}

TEST_F(LocalTest, ASecondUpOfTheSameFolderLeavesTheFirstAlone) {
  int code = -1;
  std::thread up = Up(&code);
  const auto pids = WaitForProcesses(1);
  int second = -1;
  Up(&second).join();
  EXPECT_EQ(second, kBadInput);
  EXPECT_TRUE(Runs(pids[0]));
  EXPECT_EQ(WaitForProcesses(1), pids);
  // Also what a killed `up` leaves behind is found: it is noted before it is ready.
  EXPECT_EQ(Local("down"), kOk);
  up.join();
  EXPECT_NE(code, kOk);
  EXPECT_FALSE(Runs(pids[0]));
}

TEST_F(LocalTest, AServiceInTheForegroundEndsOnASignalWorkersAndAll) {
  ScriptedService service;
  ::setenv("TUNDRA_FAKE_PORT", std::to_string(service.port()).c_str(), 1);
  int code = -1;
  std::thread up = Up(&code, " --workers 1");
  const auto pids = WaitForProcesses(2);
  ::pthread_kill(up.native_handle(), SIGINT);
  up.join();
  for (const pid_t pid : pids) EXPECT_FALSE(Runs(pid));
  EXPECT_FALSE(FileExists(LocalStatePath(dir_.path())));
}

TEST_F(LocalTest, TellsWhyTheCoordinatorEnded) {
  Program("tundra-coordinator", "echo 'the port is taken' >&2; exit 2\n");
  int code = -1;
  ::testing::internal::CaptureStderr();
  Up(&code).join();
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::HasSubstr("the port is taken"));
  EXPECT_EQ(code, kUnreachable);
}

TEST_F(LocalTest, BrokenNotesAreNoCrash) {
  for (const char* text :
       {"", "[]", "{}", R"({"processes": 3})", R"({"processes": [1, {"pid": "x"}]})",
        R"({"address": 1, "processes": [{"pid": 1, "start_time": 5}]})"}) {
    TUNDRA_ASSERT_OK(WriteFileAtomically(LocalStatePath(dir_.path()), text));
    EXPECT_EQ(Local("down"), kOk) << text;
  }
}

TEST_F(LocalTest, AProcessThatHasTheNumberOfOneThatEndedIsNotTouched) {
  nlohmann::json state;
  state["processes"] = {{{"name", "x"}, {"pid", ::getpid()}, {"start_time", "1"}}};
  TUNDRA_ASSERT_OK(WriteFileAtomically(LocalStatePath(dir_.path()), state.dump()));
  EXPECT_EQ(Local("down"), kOk);  // This process is still here.
}

}  // namespace
}  // namespace tundra::client
