// Who gets in over TLS, workers by their certificates, certificates that are replaced under load,
// and settings that would not be safe.
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/certificates_test_util.h"
#include "common/secret.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using ::testing::HasSubstr;
using testing::TestCertificate;

// With TLS: the server's certificate and the workers' of one authority.
class TlsTest : public CoordinatorHarness {
 protected:
  void SetUp() override {
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "admin", NewSecret()));
    Put("ca.pem", ca_.cert());
    PutPair("server", ca_.Issue("coordinator"));
    PutPair("w1", ca_.Issue("worker-one"));
    PutPair("w2", ca_.Issue("worker-two"));
    PutPair("stranger", TestCertificate::Authority("other").Issue("worker-one"));
    auth_ = {.allow_anonymous = false, .bootstrap_token_file = dir_ / "admin"};
    tls_ = {dir_ / "server.pem", dir_ / "server.key", dir_ / "ca.pem"};
    security_.tls = true;
    security_.files.ca = dir_ / "ca.pem";
    security_.token_file = dir_ / "admin";
    Start();
  }
  void Put(const std::string& name, const std::string& text) {
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / name, text));
  }
  void PutPair(const std::string& name, const TestCertificate& pair) {
    Put(name + ".key", pair.key());
    Put(name + ".pem", pair.cert());
  }
  ClientSecurity WorkerSecurity(const std::string& name) {
    ClientSecurity security;
    security.tls = true;
    security.files = {dir_ / (name + ".pem"), dir_ / (name + ".key"), dir_ / "ca.pem"};
    return security;
  }
  grpc::Status Try(const ClientSecurity& security) {
    const auto channels = ChannelSource::Open(absl::StrCat("localhost:", port()), security);
    EXPECT_TRUE(channels.ok()) << channels.status();
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::ListJobsResponse response;
    return v1::JobService::NewStub((*channels)->Get())->ListJobs(&context, {}, &response);
  }

  const TestCertificate ca_ = TestCertificate::Authority("ca");
};

TEST_F(TlsTest, OnlyWhoTrustsTheServerAndSpeaksTlsGetsIn) {
  EXPECT_TRUE(Try(security_).ok());
  ClientSecurity plain;
  plain.token_file = dir_ / "admin";
  EXPECT_EQ(Try(plain).error_code(), grpc::StatusCode::UNAVAILABLE);
  ClientSecurity wrong = security_;
  wrong.files.ca = dir_ / "stranger.pem";
  EXPECT_EQ(Try(wrong).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Try(WorkerSecurity("stranger")).error_code(), grpc::StatusCode::UNAVAILABLE);
  ClientSecurity nobody = security_;
  nobody.token_file.clear();
  EXPECT_EQ(Try(nobody).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  // A worker's certificate is no user's token.
  EXPECT_EQ(Try(WorkerSecurity("w1")).error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(TlsTest, WithoutAClientAuthorityUsersGetInAndWorkersDoNot) {
  coordinator_.reset();
  tls_.ca.clear();
  Start();
  EXPECT_TRUE(Try(security_).ok());
  FakeWorker worker("worker-a", 1);
  worker.Connect(port(), WorkerSecurity("w1"));
  EXPECT_EQ(worker.WaitForEnd(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(TlsTest, ASessionIsOfOneWorker) {
  auto worker = NewWorker("worker-a", 1, WorkerSecurity("w1"));
  worker->report().set_worker_id("worker-b");
  worker->Send();
  EXPECT_EQ(worker->WaitForEnd(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(TlsTest, ACertificateOwnsTheWorkersThatItBrought) {
  auto worker = NewWorker("worker-a", 1, WorkerSecurity("w1"));
  {
    grpc::ClientContext context;
    v1::ListAuditEntriesResponse audit;
    ASSERT_TRUE(access_->ListAuditEntries(&context, {}, &audit).ok());
    ASSERT_GE(audit.entries_size(), 1);
    EXPECT_EQ(audit.entries(0).method(), "Session");
    EXPECT_EQ(audit.entries(0).actor(), "workers/worker-one");
    EXPECT_EQ(audit.entries(0).resource(), "workers/worker-a");
  }
  FakeWorker thief("worker-a", 1);
  thief.Connect(port(), WorkerSecurity("w2"));
  EXPECT_EQ(thief.WaitForEnd(), grpc::StatusCode::PERMISSION_DENIED);
  FakeWorker nobody("worker-b", 1);
  nobody.Connect(port(), security_);
  EXPECT_EQ(nobody.WaitForEnd(), grpc::StatusCode::PERMISSION_DENIED) << "an admin is no worker";
  // Nor may it speak for another in the other calls.
  auto second = NewWorker("worker-c", 1, WorkerSecurity("w2"));
  v1::GetBlobUploadRequest request;
  request.set_worker_id("worker-a");
  request.set_sha256(Sha256Hex("x"));
  v1::GetBlobUploadResponse response;
  grpc::ClientContext theirs, own;
  EXPECT_EQ(second->stub().GetBlobUpload(&theirs, request, &response).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(worker->stub().GetBlobUpload(&own, request, &response).ok());
  // It stays so over a restart.
  worker->Disconnect();
  second->Disconnect();
  Restart();
  FakeWorker again("worker-a", 1);
  again.Connect(port(), WorkerSecurity("w2"));
  EXPECT_EQ(again.WaitForEnd(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(TlsTest, ASessionEndsWithTheAuthorityBehindItsCertificate) {
  auto worker = NewWorker("worker-a", 1, WorkerSecurity("w1"));
  // The former authority's server certificate goes on: only who may come in changes.
  const TestCertificate next = TestCertificate::Authority("next");
  Put("ca.pem", next.cert());
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  grpc::Status status;
  v1::GetBlobUploadRequest request;
  request.set_worker_id("worker-a");
  request.set_sha256(Sha256Hex("x"));
  while (status.ok() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
    grpc::ClientContext context;  // over the connection that is open
    v1::GetBlobUploadResponse response;
    status = worker->stub().GetBlobUpload(&context, request, &response);
  }
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(status.error_message(), HasSubstr("certificate is not good"));
  worker->Send();
  EXPECT_EQ(worker->WaitForEnd(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(TlsTest, AWorkerMaySendTheCertificatesBetweenItAndTheAuthority) {
  const TestCertificate between = ca_.IssueAuthority("between");
  const TestCertificate leaf = between.Issue("worker-three");
  Put("w3.key", leaf.key());
  for (const std::string& rest : {between.cert(), between.cert() + ca_.cert()}) {
    Put("w3.pem", leaf.cert() + rest);
    FakeWorker worker("worker-a", 1);
    worker.Connect(port(), WorkerSecurity("w3"));
    EXPECT_TRUE(
        worker.WaitFor([](const v1::WorkerAssignment& a) { return a.has_heartbeat_interval(); }));
  }
  // The authority itself after the own certificate, as some tools write it.
  PutPair("w4", ca_.Issue("worker-four"));
  Put("w4.pem", *ReadFile(dir_ / "w4.pem", 1 << 20) + ca_.cert());
  FakeWorker worker("worker-b", 1);
  worker.Connect(port(), WorkerSecurity("w4"));
  EXPECT_TRUE(
      worker.WaitFor([](const v1::WorkerAssignment& a) { return a.has_heartbeat_interval(); }));
}

TEST_F(TlsTest, AHashAloneGivesAWorkerNothing) {
  auto worker = NewWorker("worker-a", 1, WorkerSecurity("w1"));
  auto other = NewWorker("worker-b", 1, WorkerSecurity("w2"));
  const std::string rows = "rows of somebody else\n";
  Upload(rows);
  const auto ask = [&](FakeWorker& who) {
    v1::GetBlobUploadRequest request;
    request.set_worker_id(who.id());
    request.set_sha256(Sha256Hex(rows));
    v1::GetBlobUploadResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(who.stub().GetBlobUpload(&context, request, &response).ok());
    return response;
  };
  EXPECT_FALSE(ask(*worker).complete()) << "whether it is there is not its business";
  EXPECT_EQ(ask(*worker).received_bytes(), 0);
  // Nor may a job be said to have made it.
  const std::string job = Create(JobRequest(2)).name();
  FakeWorker& leader =
      worker->WaitFor([](const auto& a) { return a.groups_size() > 0; }) ? *worker : *other;
  ASSERT_TRUE(leader.JoinGroup(1));
  leader.job().set_phase(v1::TRAINING);
  leader.AddSteps(1, 2);
  leader.AddCheckpoint(2, /*final=*/true);
  v1::AdapterFile* const file = leader.job().mutable_checkpoints(0)->mutable_adapter_files(0);
  file->set_sha256(Sha256Hex(rows));
  leader.job().set_phase(v1::FINISHED);
  leader.Send();
  ASSERT_TRUE(leader.WaitFor([&](const v1::WorkerAssignment& a) {
    return std::count(a.wanted_blobs().begin(), a.wanted_blobs().end(), Sha256Hex(rows)) == 1;
  }));
  EXPECT_NE(Get(job).state(), v1::SUCCEEDED);
  // Who has the bytes may send them, and is heard then.
  EXPECT_TRUE(leader.Put(rows).ok());
  EXPECT_TRUE(ask(leader).complete());
  leader.Send();
  EXPECT_TRUE(WaitForState(job, v1::SUCCEEDED));
}

TEST_F(TlsTest, CertificatesAreReplacedUnderLoadWithoutAFailedCall) {
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0}, failed{0};
  std::string first_error;
  absl::Mutex mu;
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) {
    // Two make a connection for each call, one keeps its own.
    clients.emplace_back([&, fresh = i < 2] {
      auto channels = *ChannelSource::Open(absl::StrCat("127.0.0.1:", port()), security_);
      while (!stop) {
        if (fresh) channels = *ChannelSource::Open(absl::StrCat("127.0.0.1:", port()), security_);
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
        v1::ListJobsResponse response;
        const grpc::Status status =
            v1::JobService::NewStub(channels->Get())->ListJobs(&context, {}, &response);
        ++calls;
        if (status.ok()) continue;
        ++failed;
        absl::MutexLock lock(&mu);
        if (first_error.empty()) first_error = status.error_message();
      }
    });
  }
  const auto await_calls = [&](int more) {
    const int before = calls;
    while (calls < before + more) absl::SleepFor(absl::Milliseconds(5));
  };
  // The certificate that new connections are shown.
  const auto shown = [&](const TestCertificate& wanted) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = wanted.cert();  // trusts exactly this one
    const auto channel =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port()), grpc::SslCredentials(options));
    return channel->WaitForConnected(std::chrono::system_clock::now() +
                                     std::chrono::milliseconds(500));
  };
  for (int round = 0; round < 4; ++round) {
    const TestCertificate next = TestCertificate::Authority("coordinator");
    const TestCertificate signed_next = ca_.Issue("coordinator");
    // Half of the pair, then nonsense: connections go on with the last good one.
    Put("server.key", signed_next.key());
    await_calls(10);
    Put("server.pem", "nonsense");
    await_calls(10);
    Put("server.pem", signed_next.cert());
    await_calls(10);
    EXPECT_FALSE(shown(next)) << "the test's own look must be able to fail";
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed, 0) << first_error;
  EXPECT_GT(calls, 100);
  // The last one did arrive: a server that never looked again would pass all of the above.
  const TestCertificate other = TestCertificate::Authority("another");
  PutPair("server", other.Issue("coordinator"));
  Put("ca2.pem", other.cert());
  ClientSecurity trusting = security_;
  trusting.files.ca = dir_ / "ca2.pem";
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (!Try(trusting).ok() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_TRUE(Try(trusting).ok());
}

TEST(SafetyTest, UnsafeSettingsAreRefused) {
  TempDir dir;
  const TestCertificate ca = TestCertificate::Authority("ca");
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "pem", ca.Issue("c").cert()));
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "token", NewSecret()));
  const auto refused = [&](const std::function<void(CoordinatorOptions&)>& change) {
    CoordinatorOptions options;
    options.data_dir = dir / "data";
    options.listen = options.http = options.web = "127.0.0.1:0";
    options.auth.bootstrap_token_file = dir / "token";
    change(options);
    const auto started = StartCoordinator(std::move(options));
    return started.ok() ? "" : std::string(started.status().message());
  };
  EXPECT_EQ(refused([](CoordinatorOptions&) {}), "");
  EXPECT_THAT(refused([](auto& o) { o.listen = "0.0.0.0:0"; }), HasSubstr("--tls-cert"));
  EXPECT_THAT(refused([](auto& o) { o.web = "0.0.0.0:0"; }), HasSubstr("--web"));
  EXPECT_EQ(refused([](auto& o) { o.http = "0.0.0.0:0"; }), "");
  EXPECT_EQ(refused([](auto& o) {
              o.listen = "0.0.0.0:0";
              o.insecure = true;
            }),
            "");
  EXPECT_THAT(refused([](auto& o) {
                o.listen = "0.0.0.0:0";
                o.insecure = true;
                o.auth.allow_anonymous = true;
              }),
              HasSubstr("--allow-anonymous"));
  EXPECT_THAT(refused([&](auto& o) { o.tls.ca = dir / "pem"; }), HasSubstr("--tls-cert"));
  EXPECT_THAT(refused([&](auto& o) { o.tls.cert = dir / "pem"; }), HasSubstr("--tls-key"));
  EXPECT_THAT(refused([&](auto& o) { o.auth.worker_token_file = dir / "none"; }),
              HasSubstr("none"));
  EXPECT_THAT(refused([&](auto& o) {
                o.data_dir = dir / "fresh";
                o.auth.bootstrap_token_file.clear();
              }),
              HasSubstr("--bootstrap-token-file"));
}

}  // namespace
}  // namespace tundra::coordinator
