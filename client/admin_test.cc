// What names reach, and the admin's commands: tokens, quotas and workers by name, against a
// scripted service.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "client/commands.h"
#include "client/output.h"
#include "client/scripted_service.h"
#include "common/files.h"
#include "common/status_test_util.h"

namespace tundra::client {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::tundra::testing::StatusIs;

class CommandTest : public ::testing::Test {
 protected:
  CommandTest() { service_.caller.set_tenant("tenants/mine"); }
  // Exit code of `tundra WORDS`; `out_` and `err_` are what it printed.
  int Tundra(std::vector<std::string> words) {
    CLI::App app;
    CommonFlags common;
    client::Run run;
    AddJobCommands(app, common, &run);
    AddDataCommands(app, common, &run);
    AddAdmin(app, common, &run);
    words.insert(words.end(), {"--address", service_.address()});
    std::reverse(words.begin(), words.end());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    int code = kBadInput;
    std::string fault;
    try {
      app.parse(words);
      code = run();
    } catch (const CLI::ParseError& error) {
      fault = error.what();
    }
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr() + fault;
    return code;
  }
  static tundra::v1::Job JobOf(const std::string& id, const std::string& tenant) {
    tundra::v1::Job job;
    job.set_name("jobs/" + id);
    job.set_display_name("victim");
    job.set_tenant(tenant);
    return job;
  }

  ScriptedService service_;
  TempDir dir_;
  std::string out_;
  std::string err_;
};

TEST_F(CommandTest, AnAdminsNameNeverReachesAnotherTenantsJob) {
  service_.caller.set_role(tundra::v1::ROLE_ADMIN);
  bool own = false;
  service_.list_jobs = [&](const std::string& filter) {
    tundra::v1::ListJobsResponse list;
    const bool all = filter.find("tenant") == std::string::npos;
    if (all) *list.add_jobs() = JobOf("job-theirs", "tenants/search");
    if (own) *list.add_jobs() = JobOf("job-mine", "tenants/mine");
    return list;
  };
  EXPECT_EQ(Tundra({"cancel", "victim"}), kBadInput);
  EXPECT_THAT(service_.cancelled, IsEmpty());
  EXPECT_THAT(err_,
              AllOf(HasSubstr("tenants/mine"), HasSubstr("jobs/job-theirs of tenants/search")));
  own = true;  // though the other tenant's is newer
  EXPECT_EQ(Tundra({"cancel", "victim"}), kOk);
  EXPECT_EQ(Tundra({"cancel", "jobs/job-theirs"}), kOk);
  EXPECT_THAT(service_.cancelled, ElementsAre("jobs/job-mine", "jobs/job-theirs"));
}

TEST_F(CommandTest, OtherCallersAreNotAskedBeyondTheirTenant) {
  service_.caller.set_role(tundra::v1::ROLE_USER);
  service_.list_jobs = [](const std::string&) { return tundra::v1::ListJobsResponse(); };
  EXPECT_THAT(service_.Open().JobName("victim"), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(service_.filters, ElementsAre(HasSubstr("tenant = \"mine\"")));
}

TEST_F(CommandTest, ListsSayWhoseRowsAreWhereTheyAreOfOthers) {
  service_.job = JobOf("job-1", "tenants/mine");
  ASSERT_EQ(Tundra({"jobs"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("victim"), Not(HasSubstr("TENANT"))));
  service_.job.set_tenant("tenants/search");
  ASSERT_EQ(Tundra({"jobs"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("TENANT"), HasSubstr("tenants/search")));

  auto& dataset = *service_.datasets.add_datasets();
  dataset.set_name("datasets/1");
  dataset.set_tenant("tenants/mine");
  ASSERT_EQ(Tundra({"datasets"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("datasets/1"), Not(HasSubstr("TENANT"))));
  dataset.set_tenant("tenants/search");
  ASSERT_EQ(Tundra({"datasets"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("TENANT"), HasSubstr("tenants/search")));
}

TEST_F(CommandTest, NamesOfOthersDoNothingToATerminal) {
  service_.job = JobOf("job-0123456789abcdefghij", "tenants/mine");
  service_.job.set_display_name("a\x1b[2J");
  (*service_.job.mutable_labels())["k\x1b"] = "v\x1b";
  service_.job.mutable_failure()->set_message("m\x1b");
  service_.caller.set_token("tokens/1");
  service_.caller.set_display_name("c\x1b");
  for (const auto& words :
       {std::vector<std::string>{"jobs"}, {"get", "job-0123456789abcdefghij"}, {"whoami"}}) {
    ASSERT_EQ(Tundra(words), kOk);
    EXPECT_THAT(out_, AllOf(HasSubstr("\\x1b"), Not(HasSubstr("\x1b")))) << words[0];
  }
}

TEST_F(CommandTest, ATokensLifetimeIsPositive) {
  for (const char* wrong : {"-5d", "0d", "0m", "-1m", "5", "99999d"}) {
    EXPECT_EQ(Tundra({"admin", "tokens", "create", "t", "--expires-in", wrong}), kBadInput);
    EXPECT_THAT(err_, HasSubstr("--expires-in")) << wrong;
  }
  EXPECT_THAT(service_.tokens, IsEmpty());
  ASSERT_EQ(Tundra({"admin", "tokens", "create", "t", "--expires-in", "5d"}), kOk);
  ASSERT_EQ(Tundra({"admin", "tokens", "create", "t"}), kOk);
  ASSERT_EQ(service_.tokens.size(), 2u);
  EXPECT_EQ(service_.tokens[0].lifetime().seconds(), 5 * 86'400);
  EXPECT_FALSE(service_.tokens[1].has_lifetime());
}

TEST_F(CommandTest, ATokenWhoseSecretCannotBeKeptIsNotLeftBehind) {
  const auto create = [&](const std::string& to) {
    return Tundra({"admin", "tokens", "create", "t", "--to", to});
  };
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "old", "old"));
  EXPECT_EQ(create(dir_ / "old"), kBadInput);
  EXPECT_EQ(create(dir_ / "none/new"), kBadInput);
  EXPECT_THAT(service_.tokens, IsEmpty()) << "the file is made first";
  EXPECT_EQ(*ReadFile(dir_ / "old"), "old");

  // A disk that is full once the token is made.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit nothing{0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &nothing), 0);
  EXPECT_EQ(create(dir_ / "new"), kUnreachable);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(service_.deleted_tokens, ElementsAre("tokens/made"));
  EXPECT_FALSE(FileExists(dir_ / "new"));

  ASSERT_EQ(create(dir_ / "new"), kOk);
  EXPECT_EQ(*ReadFile(dir_ / "new"), "secret\n");
  EXPECT_THAT(out_, Not(HasSubstr("secret")));
}

TEST_F(CommandTest, QuotasThatAreNotGivenStay) {
  service_.tenant.set_name("tenants/search");
  service_.tenant.mutable_quota()->set_active_jobs(3);
  service_.tenant.mutable_quota()->set_dataset_bytes(1000);
  ASSERT_EQ(Tundra({"admin", "tenants", "set", "search", "--devices", "2"}), kOk);
  const auto& quota = service_.tenant.quota();
  EXPECT_EQ(quota.devices(), 2);
  EXPECT_EQ(quota.active_jobs(), 3);
  EXPECT_EQ(quota.dataset_bytes(), 1000);
  ASSERT_EQ(Tundra({"admin", "tenants", "set", "search", "--unbounded", "active-jobs",
                    "--dataset-bytes", "2kB"}),
            kOk);
  EXPECT_EQ(quota.devices(), 2);
  EXPECT_FALSE(quota.has_active_jobs());
  EXPECT_EQ(quota.dataset_bytes(), 2000);
  for (const auto& wrong : {std::vector<std::string>{},
                            {"--unbounded", "luck"},
                            {"--devices", "1", "--unbounded", "devices"}}) {
    std::vector<std::string> words = {"admin", "tenants", "set", "search"};
    words.insert(words.end(), wrong.begin(), wrong.end());
    EXPECT_EQ(Tundra(words), kBadInput);
  }
  EXPECT_EQ(quota.devices(), 2);
}

TEST_F(CommandTest, AWorkerIsDrainedByTheHostThatItAloneHas) {
  for (const auto& [name, host] : {std::pair("workers/a", "gpu-1"), std::pair("workers/b", "gpu-2"),
                                   std::pair("workers/c", "gpu-2")}) {
    auto& worker = *service_.workers.add_workers();
    worker.set_name(name);
    worker.set_display_name(host);
  }
  EXPECT_EQ(Tundra({"admin", "workers", "drain", "gpu-1"}), kOk);
  EXPECT_EQ(Tundra({"admin", "workers", "drain", "c"}), kOk);
  EXPECT_EQ(Tundra({"admin", "workers", "drain", "gpu-2"}), kBadInput);
  EXPECT_THAT(err_, HasSubstr("workers/b, workers/c"));
  EXPECT_EQ(Tundra({"admin", "workers", "drain", "gpu-3"}), kBadInput);
  EXPECT_THAT(service_.drained, ElementsAre("workers/a", "workers/c"));
}

}  // namespace
}  // namespace tundra::client
