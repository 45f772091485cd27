// The program itself: flags, files, signals, exit codes, and SIGKILL at any time.
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "tundra/v1/dataset.grpc.pb.h"

extern char** environ;

namespace tundra::coordinator {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

class ProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* const bin = getenv("TUNDRA_BIN_DIR");
    if (bin == nullptr) GTEST_SKIP() << "TUNDRA_BIN_DIR is not set; ctest sets it";
    program_ = std::string(bin) + "/tundra-coordinator";
    ASSERT_TRUE(FileExists(program_)) << program_;
  }
  void TearDown() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  // Starts the program; its output goes to a file.
  pid_t Spawn(std::vector<std::string> args) {
    args.insert(args.begin(), program_);
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, (dir_ / "out").c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, program_.c_str(), &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    return pid;
  }

  // Runs it to its end; its exit code and output.
  std::pair<int, std::string> Run(const std::vector<std::string>& args) {
    const pid_t pid = Spawn(args);
    int status = 0;
    waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, *ReadFile(dir_ / "out")};
  }

  // Starts serving, and waits for the ports file.
  void Serve() {
    unlink((dir_ / "ports.json").c_str());
    pid_ = Spawn({"--allow-anonymous", "--data-dir", dir_ / "data", "--listen", "127.0.0.1:0",
                  "--http", "127.0.0.1:0", "--web", "127.0.0.1:0", "--ports-file",
                  dir_ / "ports.json"});
    const absl::Duration start = Clock::System()->Monotonic();
    while (!FileExists(dir_ / "ports.json")) {
      ASSERT_LT(Clock::System()->Monotonic() - start, kPatience) << *ReadFile(dir_ / "out");
      ASSERT_EQ(waitpid(pid_, nullptr, WNOHANG), 0) << *ReadFile(dir_ / "out");
      std::this_thread::yield();
    }
    const auto ports = nlohmann::json::parse(*ReadFile(dir_ / "ports.json"));
    EXPECT_EQ(ports["pid"], pid_);
    port_ = ports["grpc"];
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    datasets_ = v1::DatasetService::NewStub(grpc::CreateCustomChannel(
        absl::StrCat("127.0.0.1:", port_), grpc::InsecureChannelCredentials(), arguments));
  }

  int Stop(int signal) {
    kill(pid_, signal);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }

  bool Upload(const std::string& bytes, std::string* name) {
    grpc::ClientContext context;
    context.set_wait_for_ready(false);
    v1::Dataset dataset;
    const auto writer = datasets_->UploadDataset(&context, &dataset);
    v1::UploadDatasetRequest request;
    request.mutable_metadata()->set_display_name("x.jsonl");
    request.mutable_metadata()->set_size_bytes(static_cast<int64_t>(bytes.size()));
    request.mutable_metadata()->set_sha256(Sha256Hex(bytes));
    writer->Write(request);
    request.set_chunk(bytes);
    writer->Write(request);
    writer->WritesDone();
    if (!writer->Finish().ok()) return false;
    *name = dataset.name();
    return true;
  }

  bool Has(const std::string& name) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    v1::GetDatasetRequest request;
    request.set_name(name);
    v1::Dataset dataset;
    return datasets_->GetDataset(&context, request, &dataset).ok();
  }

  TempDir dir_;
  std::string program_;
  pid_t pid_ = -1;
  int port_ = 0;
  std::unique_ptr<v1::DatasetService::Stub> datasets_;
};

TEST_F(ProcessTest, ExplainsItself) {
  const auto help = Run({"--help"});
  EXPECT_EQ(help.first, 0);
  EXPECT_THAT(help.second, HasSubstr("--data-dir"));
  EXPECT_THAT(help.second, HasSubstr("--print-config"));
  const auto config = Run({"--print-config"});
  EXPECT_EQ(config.first, 0);
  EXPECT_THAT(config.second, HasSubstr("listen: 127.0.0.1:7700"));
}

TEST_F(ProcessTest, BadUsageIsExitCodeTwo) {
  EXPECT_EQ(Run({"--no-such-flag"}).first, 2);
  EXPECT_EQ(Run({"--lease-seconds", "0"}).first, 2);
  EXPECT_EQ(Run({"--config", dir_ / "none.yaml"}).first, 2);
  const auto open = Run({"--listen", "0.0.0.0:0", "--data-dir", dir_ / "data"});
  EXPECT_EQ(open.first, 2);
  EXPECT_THAT(open.second, HasSubstr("--insecure"));
}

TEST_F(ProcessTest, TakenPortsAndFoldersAreExitCodeTwo) {
  Serve();
  const auto port =
      Run({"--allow-anonymous", "--listen", absl::StrCat("127.0.0.1:", port_), "--http",
           "127.0.0.1:0", "--web", "127.0.0.1:0", "--data-dir", dir_ / "another"});
  EXPECT_EQ(port.first, 2);
  EXPECT_THAT(port.second, HasSubstr("port is taken"));
  const auto folder = Run({"--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--web",
                           "127.0.0.1:0", "--data-dir", dir_ / "data"});
  EXPECT_EQ(folder.first, 2);
  EXPECT_THAT(folder.second, HasSubstr("in use"));
}

TEST_F(ProcessTest, StopsCleanlyWithinSeconds) {
  Serve();
  // A stream that is open does not hold it.
  grpc::ClientContext context;
  v1::Dataset dataset;
  const auto writer = datasets_->UploadDataset(&context, &dataset);
  writer->Write({});
  const absl::Duration start = Clock::System()->Monotonic();
  const int status = Stop(SIGTERM);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_LT(Clock::System()->Monotonic() - start, absl::Seconds(10));
  context.TryCancel();
  writer->Finish();
}

TEST_F(ProcessTest, KilledAtRandomItKeepsWhatItAcknowledged) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  std::vector<std::string> acknowledged;
  int number = 0;
  for (int round = 0; round < 4; ++round) {
    Serve();
    for (const std::string& name : acknowledged) ASSERT_TRUE(Has(name)) << name;
    // The killer waits for a number of uploads, then strikes into the next.
    const int before = std::uniform_int_distribution<int>(1, 6)(random);
    const int delay_us = std::uniform_int_distribution<int>(0, 20'000)(random);
    std::thread killer;
    for (int i = 0;; ++i) {
      if (i == before) {
        killer = std::thread([this, delay_us] {
          usleep(static_cast<useconds_t>(delay_us));
          kill(pid_, SIGKILL);
        });
      }
      std::string name;
      if (!Upload(absl::StrCat("row ", number++, std::string(10'000, 'x')), &name)) break;
      acknowledged.push_back(name);
    }
    killer.join();
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  Serve();
  for (const std::string& name : acknowledged) EXPECT_TRUE(Has(name)) << name;
}

}  // namespace
}  // namespace tundra::coordinator
