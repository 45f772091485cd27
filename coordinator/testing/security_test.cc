// Who may call what, asked of a running server: every method of every service
// against every kind of credentials, and every resource against another tenant.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/generic/generic_stub.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/secret.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/api/refusal_limit.h"
#include "coordinator/testing/harness.h"
#include "tundra/v1/fleet.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kWorkerRole[] = "worker";
// The smallest role for each method, once more and by hand: what the service's own table must
// agree with.
const std::map<std::string, std::string>& Roles() {
  static const auto* const roles = new std::map<std::string, std::string>{
      {"JobService/CreateJob", "user"},
      {"JobService/GetJob", "viewer"},
      {"JobService/ListJobs", "viewer"},
      {"JobService/CancelJob", "user"},
      {"JobService/PauseJob", "user"},
      {"JobService/ResumeJob", "user"},
      {"JobService/DeleteJob", "user"},
      {"JobService/WatchJob", "viewer"},
      {"JobService/ListMetrics", "viewer"},
      {"JobService/ListEvents", "viewer"},
      {"DatasetService/UploadDataset", "user"},
      {"DatasetService/GetDataset", "viewer"},
      {"DatasetService/ListDatasets", "viewer"},
      {"DatasetService/DeleteDataset", "user"},
      {"DatasetService/ValidateDataset", "user"},
      {"BaseService/ListBases", "viewer"},
      {"BaseService/GetBase", "viewer"},
      {"ArtifactService/ListCheckpoints", "viewer"},
      {"ArtifactService/ListAdapters", "viewer"},
      {"ArtifactService/DownloadFile", "viewer"},
      {"GenerateService/Generate", "user"},
      {"GenerateService/UploadAdapter", "user"},
      {"FleetService/ListWorkers", "viewer"},
      {"FleetService/ListGroups", "viewer"},
      {"FleetService/DrainWorker", "admin"},
      {"FleetService/UndrainWorker", "admin"},
      {"AccessService/GetCaller", "viewer"},
      {"AccessService/CreateTenant", "admin"},
      {"AccessService/GetTenant", "viewer"},
      {"AccessService/ListTenants", "viewer"},
      {"AccessService/UpdateTenant", "admin"},
      {"AccessService/DeleteTenant", "admin"},
      {"AccessService/CreateToken", "admin"},
      {"AccessService/ListTokens", "admin"},
      {"AccessService/DeleteToken", "admin"},
      {"AccessService/ListAuditEntries", "admin"},
      {"WorkerService/Session", kWorkerRole},
      {"WorkerService/FetchBlob", kWorkerRole},
      {"WorkerService/GetBlobUpload", kWorkerRole},
      {"WorkerService/PutBlob", kWorkerRole},
      {"WorkerService/DeliverGeneration", kWorkerRole},
  };
  return *roles;
}

// Every method of every service in proto/tundra/v1, found in the compiled descriptors.
std::vector<const google::protobuf::MethodDescriptor*> AllMethods() {
  std::vector<const google::protobuf::MethodDescriptor*> methods;
  for (const auto& file : absl::StrSplit(TUNDRA_PROTOS, ',')) {
    const auto* const found = google::protobuf::DescriptorPool::generated_pool()->FindFileByName(
        std::string(std::string_view(file.data(), file.size())));
    EXPECT_NE(found, nullptr) << std::string(file.data(), file.size());
    if (found == nullptr) continue;
    for (int i = 0; i < found->service_count(); ++i) {
      for (int j = 0; j < found->service(i)->method_count(); ++j) {
        methods.push_back(found->service(i)->method(j));
      }
    }
  }
  return methods;
}

std::string Name(const google::protobuf::MethodDescriptor* method) {
  return absl::StrCat(method->service()->name(), "/", method->name());
}

class SecurityTest : public CoordinatorHarness {
 protected:
  void SetUp() override {
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "admin", NewSecret()));
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "workers", NewSecret()));
    auth_ = {.allow_anonymous = false,
             .bootstrap_token_file = dir_ / "admin",
             .worker_token_file = dir_ / "workers"};
    tokens_["admin"] = *ReadSecretFile(dir_ / "admin");
    tokens_[kWorkerRole] = *ReadSecretFile(dir_ / "workers");
    security_.token_file = dir_ / "admin";
    Start();
    for (const char* const tenant : {"red", "blue"}) {
      grpc::ClientContext context;
      v1::CreateTenantRequest request;
      request.set_tenant_id(tenant);
      v1::Tenant made;
      ASSERT_TRUE(access_->CreateTenant(&context, request, &made).ok());
    }
    tokens_["viewer"] = MakeToken("red", v1::ROLE_VIEWER).secret();
    tokens_["user"] = MakeToken("red", v1::ROLE_USER).secret();
    tokens_["blue"] = MakeToken("blue", v1::ROLE_USER).secret();
  }

  v1::Token MakeToken(const std::string& tenant, v1::Role role) {
    grpc::ClientContext context;
    v1::CreateTokenRequest request;
    request.mutable_token()->set_display_name("test");
    request.mutable_token()->set_tenant("tenants/" + tenant);
    request.mutable_token()->set_role(role);
    v1::Token token;
    const grpc::Status status = access_->CreateToken(&context, request, &token);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return token;
  }

  // Clients of a token.
  std::shared_ptr<grpc::Channel> As(const std::string& who) {
    ClientSecurity security;
    security.token = tokens_.at(who);
    return (*ChannelSource::Open(absl::StrCat("127.0.0.1:", port()), security))->Get();
  }

  // Calls any method with one request and any header; its status.
  grpc::Status Call(const google::protobuf::MethodDescriptor* method,
                    const std::vector<std::string>& headers, const std::string& json = "{}") {
    const auto channel = ChannelSource::Plain(absl::StrCat("127.0.0.1:", port()))->Get();
    grpc::GenericStub stub(channel);
    google::protobuf::DynamicMessageFactory factory;
    const std::unique_ptr<google::protobuf::Message> request(
        factory.GetPrototype(method->input_type())->New());
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, request.get()).ok()) << json;
    grpc::Slice slice(request->SerializeAsString());
    const grpc::ByteBuffer bytes(&slice, 1);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    for (const std::string& header : headers) context.AddMetadata("authorization", header);
    grpc::CompletionQueue queue;
    const auto stream = stub.PrepareCall(
        &context, absl::StrCat("/", method->service()->full_name(), "/", method->name()), &queue);
    const auto step = [&] {
      void* tag = nullptr;
      bool ok = false;
      queue.Next(&tag, &ok);
      return ok;
    };
    stream->StartCall(nullptr);
    step();
    stream->WriteLast(bytes, grpc::WriteOptions(), nullptr);
    step();
    grpc::ByteBuffer answer;
    do {
      stream->Read(&answer, nullptr);
    } while (step());
    grpc::Status status;
    stream->Finish(&status, nullptr);
    step();
    return status;
  }

  std::vector<v1::AuditEntry> Audit() {
    grpc::ClientContext context;
    v1::ListAuditEntriesRequest request;
    request.set_page_size(1000);
    v1::ListAuditEntriesResponse response;
    EXPECT_TRUE(access_->ListAuditEntries(&context, request, &response).ok());
    return {response.entries().begin(), response.entries().end()};
  }

  // A base, and for the tenant red: a data set, a job that has ended with its adapter, an upload.
  void MakeRedResources() {
    ClientSecurity security;
    security.token_file = dir_ / "workers";
    worker_ = NewWorker("worker-1", 1, security);
    datasets_ = v1::DatasetService::NewStub(As("user"));
    jobs_ = v1::JobService::NewStub(As("user"));
    const v1::CreateJobRequest request = JobRequest(2);
    dataset_ = request.job().spec().dataset().train();
    job_ = Create(request).name();
    ASSERT_TRUE(worker_->JoinGroup(1));
    Finish(*worker_, 1, 2);
    ASSERT_TRUE(WaitForState(job_, v1::SUCCEEDED));
    ASSERT_TRUE(
        TryUploadAdapter(*v1::GenerateService::NewStub(As("user")), "{}", "{}", &upload_).ok());
  }

  std::map<std::string, std::string> tokens_;
  std::unique_ptr<FakeWorker> worker_;
  std::string dataset_, job_, upload_;
};

TEST_F(SecurityTest, EveryMethodIsInTheTableOfRoles) {
  std::map<std::string, std::string> left = Roles();
  for (const auto* const method : AllMethods()) {
    EXPECT_EQ(left.erase(Name(method)), 1u)
        << Name(method) << " is new: say here, and in access/policy.cc, who may call it";
  }
  EXPECT_THAT(left, IsEmpty());
}

TEST_F(SecurityTest, EveryMethodRefusesWhoeverMayNot) {
  const v1::Token gone = MakeToken("red", v1::ROLE_ADMIN);
  {
    grpc::ClientContext context;
    v1::DeleteTokenRequest request;
    request.set_name(gone.name());
    google::protobuf::Empty empty;
    ASSERT_TRUE(access_->DeleteToken(&context, request, &empty).ok());
  }
  const std::vector<std::string> order = {"viewer", "user", "admin"};
  for (const auto* const method : AllMethods()) {
    const std::string name = Name(method);
    const auto needed = Roles().find(name);
    if (needed == Roles().end()) continue;  // the test above says so
    const std::string& user = tokens_.at("user");
    for (const std::vector<std::string>& headers : std::vector<std::vector<std::string>>{
             {},
             {""},
             {"Bearer"},
             {"Bearer "},
             {"Basic " + user},
             {user},
             {"Bearer " + user, "Bearer " + tokens_.at("admin")}}) {
      EXPECT_EQ(Call(method, headers).error_code(), grpc::StatusCode::UNAUTHENTICATED) << name;
    }
    for (const std::string& token : {user.substr(0, user.size() - 1), user + "x",
                                     Sha256Hex(tokens_.at("admin")), gone.secret()}) {
      const grpc::StatusCode code = Call(method, {"Bearer " + token}).error_code();
      // To workers' methods a wrong secret is one that is not theirs, whatever else it is.
      EXPECT_EQ(code, needed->second == kWorkerRole ? grpc::StatusCode::PERMISSION_DENIED
                                                    : grpc::StatusCode::UNAUTHENTICATED)
          << name;
    }
    const auto denied = [&](const std::string& who) {
      const grpc::StatusCode code = Call(method, {"Bearer " + tokens_.at(who)}).error_code();
      EXPECT_NE(code, grpc::StatusCode::UNAUTHENTICATED) << name << " as " << who;
      return code == grpc::StatusCode::PERMISSION_DENIED;
    };
    const auto rank = std::find(order.begin(), order.end(), needed->second);
    for (auto role = order.begin(); role != order.end(); ++role) {
      EXPECT_EQ(denied(*role), role < rank) << name << " as " << *role;
    }
    EXPECT_EQ(denied(kWorkerRole), needed->second != kWorkerRole) << name << " as a worker";
  }
}

TEST_F(SecurityTest, WhatIsAnotherTenantsDoesNotExist) {
  MakeRedResources();
  // A request on red's things for each method that takes a name of them.
  const std::map<std::string, std::string> requests = {
      {"JobService/GetJob", R"({"name": "JOB"})"},
      {"JobService/CancelJob", R"({"name": "JOB"})"},
      {"JobService/PauseJob", R"({"name": "JOB"})"},
      {"JobService/ResumeJob", R"({"name": "JOB"})"},
      {"JobService/DeleteJob", R"({"name": "JOB"})"},
      {"JobService/WatchJob", R"({"name": "JOB"})"},
      {"JobService/ListMetrics", R"({"parent": "JOB"})"},
      {"JobService/ListEvents", R"({"parent": "JOB"})"},
      {"JobService/CreateJob",
       R"({"job": {"display_name": "x", "spec": {"base": "tiny", "dataset": {"train": "DATA"},
           "training": {"max_steps": 1}}}})"},
      {"DatasetService/GetDataset", R"({"name": "DATA"})"},
      {"DatasetService/DeleteDataset", R"({"name": "DATA"})"},
      {"DatasetService/ValidateDataset", R"({"name": "DATA", "base": "tiny"})"},
      {"ArtifactService/ListCheckpoints", R"({"parent": "JOB"})"},
      {"ArtifactService/DownloadFile",
       R"({"name": "JOB/adapter", "filename": "adapter_config.json"})"},
      {"GenerateService/Generate", R"({"base": "tiny", "prompt": "x", "adapter": "UPLOAD"})"},
      {"AccessService/GetTenant", R"({"name": "tenants/red"})"},
  };
  // What takes no name, names what belongs to no tenant, or is for admins or workers.
  const std::set<std::string> others = {
      "JobService/ListJobs",           "DatasetService/UploadDataset",
      "DatasetService/ListDatasets",   "BaseService/ListBases",
      "BaseService/GetBase",           "ArtifactService/ListAdapters",
      "GenerateService/UploadAdapter", "FleetService/ListWorkers",
      "FleetService/ListGroups",       "AccessService/GetCaller",
      "AccessService/ListTenants"};
  const auto fill = [&](std::string text, const std::string& suffix) {
    return absl::StrReplaceAll(text, {{"JOB", job_ + suffix},
                                      {"DATA", dataset_ + suffix},
                                      {"UPLOAD", upload_ + suffix},
                                      {"tenants/red", "tenants/red" + suffix}});
  };
  for (const auto* const method : AllMethods()) {
    const std::string name = Name(method);
    const auto role = Roles().find(name);
    if (role == Roles().end() || role->second == "admin" || role->second == kWorkerRole ||
        others.contains(name)) {
      continue;
    }
    ASSERT_TRUE(requests.contains(name)) << name << " is new: say here what it names";
    const std::string& text = requests.at(name);
    const grpc::Status theirs = Call(method, {"Bearer " + tokens_.at("blue")}, fill(text, ""));
    const grpc::Status nobodys = Call(method, {"Bearer " + tokens_.at("blue")}, fill(text, "x"));
    EXPECT_EQ(theirs.error_code(), name == "JobService/CreateJob"
                                       ? grpc::StatusCode::INVALID_ARGUMENT
                                       : grpc::StatusCode::NOT_FOUND)
        << name << ": " << theirs.error_message();
    // In the same words, so that nothing is given away.
    EXPECT_EQ(
        absl::StrReplaceAll(theirs.error_message(),
                            {{job_, "?"}, {dataset_, "?"}, {upload_, "?"}, {"s/red", "?"}}),
        absl::StrReplaceAll(
            nobodys.error_message(),
            {{job_ + "x", "?"}, {dataset_ + "x", "?"}, {upload_ + "x", "?"}, {"s/redx", "?"}}))
        << name;
    EXPECT_EQ(theirs.error_code(), nobodys.error_code()) << name;
  }
  // After all that, everything of red's is there, and red's own.
  EXPECT_EQ(Get(job_).state(), v1::SUCCEEDED);
  EXPECT_EQ(Get(job_).tenant(), "tenants/red");
}

TEST_F(SecurityTest, ListsShowATenantItsOwnAndAnAdminAll) {
  MakeRedResources();
  const auto count = [&](const std::string& who) {
    const auto channel = As(who);
    v1::ListJobsResponse jobs;
    v1::ListDatasetsResponse datasets;
    v1::ListAdaptersResponse adapters;
    v1::ListTenantsResponse tenants;
    grpc::ClientContext a, b, c, d;
    EXPECT_TRUE(v1::JobService::NewStub(channel)->ListJobs(&a, {}, &jobs).ok());
    EXPECT_TRUE(v1::DatasetService::NewStub(channel)->ListDatasets(&b, {}, &datasets).ok());
    EXPECT_TRUE(v1::ArtifactService::NewStub(channel)->ListAdapters(&c, {}, &adapters).ok());
    EXPECT_TRUE(v1::AccessService::NewStub(channel)->ListTenants(&d, {}, &tenants).ok());
    return std::vector<int>{jobs.jobs_size(), datasets.datasets_size(), adapters.adapters_size(),
                            tenants.tenants_size()};
  };
  EXPECT_EQ(count("viewer"), (std::vector<int>{1, 1, 1, 1}));
  EXPECT_EQ(count("blue"), (std::vector<int>{0, 0, 0, 1}));
  EXPECT_EQ(count("admin"), (std::vector<int>{1, 1, 1, 3}));
  // The same bytes and request ids are each tenant's own.
  datasets_ = v1::DatasetService::NewStub(As("blue"));
  EXPECT_NE(Upload("one\ntwo\nthree\n", "same"), dataset_);
  datasets_ = v1::DatasetService::NewStub(As("user"));
  EXPECT_EQ(Upload("one\ntwo\nthree\n", "same"), dataset_);
}

TEST_F(SecurityTest, TokensAreKeptAsHashesAndOutliveARestart) {
  const v1::Token token = MakeToken("red", v1::ROLE_USER);
  EXPECT_EQ(token.secret().size(), 50u);
  coordinator_.reset();
  bool anywhere = false;
  for (const char* const file : {"data/tundra.db", "data/tundra.db-wal"}) {
    const auto bytes = ReadFile(dir_ / file);
    if (!bytes.ok()) continue;
    anywhere |= bytes->find(Sha256Hex(token.secret())) != std::string::npos;
    EXPECT_EQ(bytes->find(token.secret()), std::string::npos) << file;
    EXPECT_EQ(bytes->find(tokens_.at("admin")), std::string::npos) << file;
  }
  EXPECT_TRUE(anywhere) << "the test looks in the wrong place";
  // The bootstrap file counts only while there is no admin.
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "admin2", NewSecret()));
  auth_.bootstrap_token_file = dir_ / "admin2";
  Start();
  tokens_["kept"] = token.secret();
  tokens_["late"] = *ReadSecretFile(dir_ / "admin2");
  const auto whoami = [&](const std::string& who) {
    grpc::ClientContext context;
    v1::Caller caller;
    return v1::AccessService::NewStub(As(who))->GetCaller(&context, {}, &caller).error_code();
  };
  EXPECT_EQ(whoami("kept"), grpc::StatusCode::OK);
  EXPECT_EQ(whoami("admin"), grpc::StatusCode::OK);
  EXPECT_EQ(whoami("late"), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SecurityTest, TheLastAdminsTokenStays) {
  grpc::ClientContext list_context;
  v1::ListTokensResponse tokens;
  ASSERT_TRUE(access_->ListTokens(&list_context, {}, &tokens).ok());
  const auto remove = [&](const std::string& name) {
    grpc::ClientContext context;
    v1::DeleteTokenRequest request;
    request.set_name(name);
    google::protobuf::Empty empty;
    return access_->DeleteToken(&context, request, &empty).error_code();
  };
  for (const v1::Token& token : tokens.tokens()) {
    EXPECT_THAT(token.secret(), IsEmpty());
    if (token.role() != v1::ROLE_ADMIN) continue;
    EXPECT_EQ(remove(token.name()), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(remove(token.name() + "x"), grpc::StatusCode::NOT_FOUND);
  }
}

TEST_F(SecurityTest, AQuotaBoundsJobs) {
  MakeRedResources();
  const auto set = [&](int jobs) {
    grpc::ClientContext context;
    v1::UpdateTenantRequest request;
    request.mutable_tenant()->set_name("tenants/red");
    request.mutable_tenant()->mutable_quota()->set_active_jobs(jobs);
    v1::Tenant tenant;
    EXPECT_TRUE(access_->UpdateTenant(&context, request, &tenant).ok());
  };
  set(1);
  const v1::CreateJobRequest request = JobRequest(2);
  v1::Job job;
  EXPECT_TRUE(TryCreate(request, &job).ok()) << "the one that has ended does not count";
  const grpc::Status second = TryCreate(request, &job);
  EXPECT_EQ(second.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(second.error_message(), HasSubstr("at most 1"));
}

TEST_F(SecurityTest, EveryChangeAndEveryRefusedOneIsAudited) {
  MakeRedResources();
  v1::Job job;
  grpc::ClientContext denied;
  v1::CancelJobRequest request;
  request.set_name(job_);
  EXPECT_EQ(v1::JobService::NewStub(As("viewer"))->CancelJob(&denied, request, &job).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Cancel(job_).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  const auto find = [&](const std::string& method, int code) -> std::optional<v1::AuditEntry> {
    for (const v1::AuditEntry& entry : Audit()) {
      if (entry.method() == method && entry.code() == code) return entry;
    }
    return std::nullopt;
  };
  const auto create = find("CreateJob", 0);
  ASSERT_TRUE(create.has_value());
  EXPECT_EQ(create->resource(), job_);
  EXPECT_EQ(create->tenant(), "tenants/red");
  EXPECT_EQ(create->role(), v1::ROLE_USER);
  EXPECT_THAT(create->actor(), HasSubstr("tokens/token-"));
  EXPECT_THAT(create->peer(), HasSubstr("127.0.0.1"));
  for (const char* const method : {"UploadDataset", "UploadAdapter", "CreateTenant", "CreateToken"})
    EXPECT_TRUE(find(method, 0).has_value()) << method;
  // Refusals are written after the answer.
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while ((!find("CancelJob", 7) || !find("CancelJob", 9)) && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  ASSERT_TRUE(find("CancelJob", 7).has_value());
  EXPECT_EQ(find("CancelJob", 7)->role(), v1::ROLE_VIEWER);
  ASSERT_TRUE(find("CancelJob", 9).has_value());
  EXPECT_THAT(find("CancelJob", 9)->message(), HasSubstr("has ended"));
  for (const v1::AuditEntry& entry : Audit()) {
    EXPECT_THAT(entry.DebugString(), Not(HasSubstr(tokens_.at("user"))));
  }
}

TEST_F(SecurityTest, NoNameInARefusedCallHidesTheAuditLog) {
  v1::DeleteJobRequest request;
  google::protobuf::Empty empty;
  // Cut after 200 bytes, an umlaut would be cut in two.
  for (const std::string& name :
       {"jobs/" + std::string(194, 'x') + "\u00e9", std::string("jobs/a\nb")}) {
    grpc::ClientContext context;
    request.set_name(name);
    EXPECT_EQ(
        v1::JobService::NewStub(As("viewer"))->DeleteJob(&context, request, &empty).error_code(),
        grpc::StatusCode::PERMISSION_DENIED);
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  const auto refused = [&] {
    int count = 0;
    for (const v1::AuditEntry& entry : Audit()) count += entry.method() == "DeleteJob" ? 1 : 0;
    return count;
  };
  while (refused() < 2 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(refused(), 2);
  // However often somebody is refused, what was done stays in sight.
  for (int i = 0; i < 3 * RefusalLimit::kMostAMinute; ++i) {
    grpc::ClientContext context;
    v1::JobService::NewStub(As("viewer"))->DeleteJob(&context, request, &empty);
  }
  EXPECT_LE(refused(), 2 * RefusalLimit::kMostAMinute);
}

TEST_F(SecurityTest, AStreamEndsWithTheTokenThatOpenedIt) {
  MakeRedResources();
  const std::string job = Create(JobRequest(1000, 4)).name();
  const v1::Token token = MakeToken("red", v1::ROLE_VIEWER);
  tokens_["short"] = token.secret();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  v1::WatchJobRequest watch;
  watch.set_name(job);
  const auto stub = v1::JobService::NewStub(As("short"));
  const auto reader = stub->WatchJob(&context, watch);
  v1::WatchJobResponse message;
  ASSERT_TRUE(reader->Read(&message));
  grpc::ClientContext delete_context;
  v1::DeleteTokenRequest request;
  request.set_name(token.name());
  google::protobuf::Empty empty;
  ASSERT_TRUE(access_->DeleteToken(&delete_context, request, &empty).ok());
  ASSERT_TRUE(Pause(job).ok());  // something to tell
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SecurityTest, ADrainedWorkerGetsNoWorkUntilItIsUndrained) {
  MakeRedResources();
  const auto fleet = v1::FleetService::NewStub(As("admin"));
  const auto drain = [&](const std::string& name, bool on) {
    grpc::ClientContext context;
    v1::Worker worker;
    v1::DrainWorkerRequest request;
    request.set_name(name);
    v1::UndrainWorkerRequest undo;
    undo.set_name(name);
    const grpc::Status status = on ? fleet->DrainWorker(&context, request, &worker)
                                   : fleet->UndrainWorker(&context, undo, &worker);
    EXPECT_EQ(worker.drained(), on && status.ok());
    return status.error_code();
  };
  EXPECT_EQ(drain("workers/nobody", true), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(drain("workers/worker-1", true), grpc::StatusCode::OK);
  const std::string job = Create(JobRequest(2)).name();
  // Also after a restart of the coordinator.
  worker_->Disconnect();
  coordinator_.reset();
  Start();
  ClientSecurity security;
  security.token_file = dir_ / "workers";
  worker_->Connect(port(), security);
  const auto admin_fleet = v1::FleetService::NewStub(As("admin"));
  v1::ListWorkersResponse workers;
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while ((workers.workers_size() == 0 || workers.workers(0).state() != v1::DRAINING) &&
         absl::Now() < deadline) {
    grpc::ClientContext context;
    ASSERT_TRUE(admin_fleet->ListWorkers(&context, {}, &workers).ok());
  }
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).state(), v1::DRAINING);
  EXPECT_TRUE(workers.workers(0).drained());
  EXPECT_EQ(workers.workers(0).devices_size(), 1);
  EXPECT_EQ(workers.workers(0).bases_size(), 1);
  EXPECT_EQ(Get(job).state(), v1::QUEUED);
  grpc::ClientContext context;
  v1::UndrainWorkerRequest request;
  request.set_name("workers/worker-1");
  v1::Worker worker;
  EXPECT_TRUE(admin_fleet->UndrainWorker(&context, request, &worker).ok());
  EXPECT_TRUE(worker_->JoinGroup(1));
  // Whose job a group trains is shown to its tenant and to admins.
  for (const auto& [who, sees] : {std::pair{"viewer", true}, {"blue", false}, {"admin", true}}) {
    grpc::ClientContext list_context;
    v1::ListGroupsResponse groups;
    ASSERT_TRUE(v1::FleetService::NewStub(As(who))->ListGroups(&list_context, {}, &groups).ok());
    ASSERT_EQ(groups.groups_size(), 1);
    EXPECT_EQ(groups.groups(0).job(), sees ? job : "") << who;
    EXPECT_TRUE(groups.groups(0).busy());
    EXPECT_EQ(groups.groups(0).ranks_size(), 1);
  }
}

}  // namespace
}  // namespace tundra::coordinator
