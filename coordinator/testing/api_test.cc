// What clients see: bad inputs, idempotency, lists, probes, addresses.
#include <httplib.h>

#include <cmath>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

class ApiTest : public CoordinatorHarness {
 protected:
  v1::UploadDatasetRequest::Metadata Metadata(const std::string& bytes) {
    v1::UploadDatasetRequest::Metadata m;
    m.set_display_name("train.jsonl");
    m.set_size_bytes(static_cast<int64_t>(bytes.size()));
    m.set_sha256(Sha256Hex(bytes));
    return m;
  }
};

TEST_F(ApiTest, NamesAllFaultsOfAJobAtOnce) {
  const auto worker = NewWorker("worker-1", 1);
  v1::CreateJobRequest request;
  v1::JobSpec* const spec = request.mutable_job()->mutable_spec();
  spec->set_base("tiny");
  spec->mutable_dataset()->set_train("datasets/none");
  spec->mutable_lora()->set_rank(0);
  spec->mutable_lora()->add_target_modules("w_proj");
  spec->mutable_training()->set_learning_rate(std::nan(""));
  spec->mutable_training()->set_max_seq_length(513);
  spec->mutable_training()->set_micro_batch_tokens(100);
  spec->mutable_resources()->set_device_count(3);
  spec->mutable_resources()->set_shards(2);
  spec->mutable_checkpoint()->set_keep(0);
  spec->mutable_eval()->set_every_steps(5);
  v1::Job job;
  const grpc::Status status = TryCreate(request, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(
      ViolatedFields(status),
      ElementsAre("job.display_name", "job.spec.checkpoint.keep", "job.spec.dataset.train",
                  "job.spec.eval.every_steps", "job.spec.lora.rank", "job.spec.lora.target_modules",
                  "job.spec.resources.shards", "job.spec.training.learning_rate",
                  "job.spec.training.max_seq_length", "job.spec.training.micro_batch_tokens",
                  "job.spec.training.micro_batch_tokens"));
  EXPECT_THAT(status.error_message(), HasSubstr("it has q_proj, v_proj"));
}

TEST_F(ApiTest, AMissingBaseNamesThoseThereAre) {
  v1::Job job;
  v1::CreateJobRequest request = JobRequest(1);
  EXPECT_THAT(TryCreate(request, &job).error_message(), HasSubstr("no worker has brought a base"));
  const auto worker = NewWorker("worker-1", 1);
  request.mutable_job()->mutable_spec()->set_base("tony");
  EXPECT_THAT(TryCreate(request, &job).error_message(), HasSubstr("there are: tiny"));
  request.mutable_job()->mutable_spec()->set_base(FakeBase().base().name());
  EXPECT_TRUE(TryCreate(request, &job).ok());
}

TEST_F(ApiTest, ADataSetWithErrorsIsNoJob) {
  const auto worker = NewWorker("worker-1", 1);
  v1::CreateJobRequest request = JobRequest(1);
  request.mutable_job()->mutable_spec()->mutable_dataset()->set_train(Upload("fine\nBAD\n"));
  v1::Job job;
  const grpc::Status status = TryCreate(request, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("line 2: a bad row; drop it"));
}

TEST_F(ApiTest, StepsFollowFromRowsAndBatches) {
  const auto worker = NewWorker("worker-1", 1);
  v1::CreateJobRequest request = JobRequest(1);
  request.set_validate_only(true);
  v1::TrainingSpec* const training = request.mutable_job()->mutable_spec()->mutable_training();
  training->set_epochs(3);
  training->set_batch_size(2);  // three rows: two steps an epoch
  v1::Job job = Create(request);
  EXPECT_EQ(job.total_steps(), 6);
  EXPECT_TRUE(job.name().empty());
  EXPECT_EQ(job.spec().training().micro_batch_tokens(), 1024);
  EXPECT_EQ(job.spec().training().max_seq_length(), 512) << "what the base supports";
  grpc::ClientContext context;
  v1::ListJobsResponse list;
  EXPECT_TRUE(jobs_->ListJobs(&context, {}, &list).ok());
  EXPECT_EQ(list.jobs_size(), 0) << "validate_only keeps nothing";
}

TEST_F(ApiTest, ARequestIdMakesOneJobAlsoAcrossARestart) {
  const auto worker = NewWorker("worker-1", 1);
  v1::CreateJobRequest request = JobRequest(1, 8);
  (*request.mutable_job()->mutable_labels())["a"] = "1";
  (*request.mutable_job()->mutable_labels())["b"] = "2";
  request.set_request_id("mine");
  const v1::Job first = Create(request);
  EXPECT_EQ(Create(request).name(), first.name());
  Restart();
  EXPECT_EQ(Create(request).name(), first.name());
  request.mutable_job()->set_display_name("another");
  v1::Job job;
  EXPECT_EQ(TryCreate(request, &job).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  const std::string data = Upload("rows\n", "upload-1");
  EXPECT_EQ(Upload("rows\n", "upload-1"), data);
}

TEST_F(ApiTest, TheSameBytesUnderOneFileNameAreOneDataSet) {
  const std::string data = Upload("rows\n");
  EXPECT_EQ(Upload("rows\n", "upload-2"), data);
  EXPECT_NE(Upload("other rows\n"), data);
  v1::UploadDatasetRequest::Metadata renamed = Metadata("rows\n");
  renamed.set_display_name("val.jsonl");
  v1::Dataset dataset;
  ASSERT_TRUE(TryUpload(renamed, "rows\n", &dataset).ok());
  EXPECT_NE(dataset.name(), data);
  EXPECT_EQ(dataset.display_name(), "val.jsonl");
  grpc::ClientContext context;
  v1::DeleteDatasetRequest request;
  request.set_name(data);
  google::protobuf::Empty empty;
  ASSERT_TRUE(datasets_->DeleteDataset(&context, request, &empty).ok());
  EXPECT_NE(Upload("rows\n"), data);  // a deleted one is not found again
}

TEST_F(ApiTest, ListsInPagesWithAFilter) {
  const auto worker = NewWorker("worker-1", 1);
  for (int i = 0; i < 5; ++i) {
    v1::CreateJobRequest request = JobRequest(1, 8);
    request.mutable_job()->set_display_name(absl::StrCat("job ", i));
    (*request.mutable_job()->mutable_labels())["odd"] = i % 2 == 1 ? "yes" : "no";
    Create(request);
  }
  v1::ListJobsRequest request;
  request.set_page_size(2);
  std::string names;
  do {
    grpc::ClientContext context;
    v1::ListJobsResponse response;
    ASSERT_TRUE(jobs_->ListJobs(&context, request, &response).ok());
    for (const v1::Job& job : response.jobs()) names += job.display_name().substr(4);
    names += "|";
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names, "43|21|0|");
  const auto list = [&](const std::string& filter, const std::string& token = "") {
    request.set_filter(filter);
    request.set_page_token(token);
    grpc::ClientContext context;
    v1::ListJobsResponse response;
    const grpc::Status status = jobs_->ListJobs(&context, request, &response);
    return std::make_pair(status, response);
  };
  EXPECT_EQ(list("labels.odd = yes AND state = QUEUED").second.jobs_size(), 2);
  EXPECT_EQ(list("display_name = \"job 3\"").second.jobs_size(), 1);
  EXPECT_EQ(list("base != tiny").second.jobs_size(), 0);
  EXPECT_EQ(list("display_name : \"B 3\"").second.jobs_size(), 1);
  EXPECT_EQ(list("display_name:JOB AND labels.odd = yes").second.jobs_size(), 2);
  for (const char* const bad : {"state = SLEEPING", "colour = red", "state", "state = QUEUED OR",
                                "display_name = \"open", "labels. = x", "state : QUEUED"}) {
    EXPECT_THAT(ViolatedFields(list(bad).first), ElementsAre("filter")) << bad;
  }
  EXPECT_THAT(ViolatedFields(list("", "forged").first), ElementsAre("page_token"));
  const std::string token = list("").second.next_page_token();
  EXPECT_THAT(ViolatedFields(list("base = tiny", token).first), ElementsAre("page_token"))
      << "a token of another filter";
  request.set_page_size(1001);
  EXPECT_THAT(ViolatedFields(list("").first), ElementsAre("page_size"));
}

TEST_F(ApiTest, UploadsAreCheckedAndNothingOfABadOneIsKept) {
  v1::Dataset dataset;
  v1::UploadDatasetRequest::Metadata m = Metadata("rows\n");
  EXPECT_EQ(TryUpload(m, "raws\n", &dataset).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(TryUpload(m, "row", &dataset).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(TryUpload(m, "rows\nand more", &dataset).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  m.set_size_bytes(0);
  m.set_sha256("../../etc/passwd");
  m.set_display_name("virus.exe");
  EXPECT_THAT(ViolatedFields(TryUpload(m, "", &dataset)),
              ElementsAre("metadata.display_name", "metadata.sha256", "metadata.size_bytes"));
  grpc::ClientContext context;
  v1::ListDatasetsResponse list;
  EXPECT_TRUE(datasets_->ListDatasets(&context, {}, &list).ok());
  EXPECT_EQ(list.datasets_size(), 0);
}

TEST_F(ApiTest, ADataSetInUseIsNotDeleted) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job job = Create(JobRequest(1, 8));
  v1::DeleteDatasetRequest request;
  request.set_name(job.spec().dataset().train());
  const auto remove = [&] {
    grpc::ClientContext context;
    google::protobuf::Empty empty;
    return datasets_->DeleteDataset(&context, request, &empty);
  };
  EXPECT_EQ(remove().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(remove().error_message(), HasSubstr(job.name()));
  ASSERT_TRUE(Cancel(job.name()).ok());
  ASSERT_TRUE(WaitForState(job.name(), v1::CANCELLED));
  EXPECT_TRUE(remove().ok());
  EXPECT_EQ(remove().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApiTest, ValidatesAgainstABaseAndCachesTheReport) {
  v1::ValidateDatasetRequest request;
  request.set_name(Upload("one\nBAD\n"));
  request.set_base("tiny");
  v1::ValidationReport report;
  const auto validate = [&] {
    grpc::ClientContext context;
    return datasets_->ValidateDataset(&context, request, &report);
  };
  EXPECT_EQ(validate().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  const auto worker = NewWorker("worker-1", 1);
  ASSERT_TRUE(validate().ok());
  EXPECT_FALSE(report.valid());
  EXPECT_EQ(report.errors(0).line(), 2);
  Restart();  // the worker is away, and the report is there
  EXPECT_TRUE(validate().ok());
  request.set_max_seq_length(513);
  EXPECT_THAT(ViolatedFields(validate()), ElementsAre("max_seq_length"));
}

TEST_F(ApiTest, LongValidationsHoldUpNobodyAndEndWithTheirCallers) {
  const auto worker = NewWorker("worker-1", 1);
  v1::CreateJobRequest endless = JobRequest(1);
  endless.mutable_job()->mutable_spec()->mutable_dataset()->set_train(Upload("ENDLESS\n"));
  const std::string good = Upload("one\n");
  v1::CreateJobRequest before = JobRequest(1);
  before.mutable_job()->mutable_spec()->mutable_dataset()->set_train(good);
  Create(before);
  v1::ValidateDatasetRequest validate;
  validate.set_name(good);
  validate.set_base("tiny");
  {
    grpc::ClientContext context;
    v1::ValidationReport report;
    EXPECT_TRUE(datasets_->ValidateDataset(&context, validate, &report).ok());
  }
  // More than there are threads of any kind.
  constexpr int kCallers = 20;
  std::vector<grpc::ClientContext> contexts(kCallers);
  std::vector<std::thread> callers;
  for (grpc::ClientContext& context : contexts) {
    callers.emplace_back([&] {
      v1::Job job;
      EXPECT_EQ(jobs_->CreateJob(&context, endless, &job).error_code(),
                grpc::StatusCode::CANCELLED);
    });
  }
  // Everything else goes on, jobs and validations of data sets that are known included.
  v1::CreateJobRequest known = JobRequest(1);
  known.mutable_job()->mutable_spec()->mutable_dataset()->set_train(good);
  Create(known);
  v1::ValidationReport report;
  {
    grpc::ClientContext context;
    EXPECT_TRUE(datasets_->ValidateDataset(&context, validate, &report).ok());
  }
  v1::ListJobsResponse list;
  for (int i = 0; i < 10; ++i) {
    grpc::ClientContext context;
    EXPECT_TRUE(jobs_->ListJobs(&context, {}, &list).ok());
  }
  for (grpc::ClientContext& context : contexts) context.TryCancel();
  for (std::thread& caller : callers) caller.join();
  // The threads are free again.
  const v1::Job job = Create(JobRequest(1));
  // And one that still runs doesn't hold up the stop.
  const auto stub = v1::JobService::NewStub(channel_);
  std::thread last([&] {
    grpc::ClientContext context;
    v1::Job made;
    EXPECT_FALSE(stub->CreateJob(&context, endless, &made).ok());
  });
  Restart();
  last.join();
  EXPECT_EQ(Get(job.name()).name(), job.name());
}

TEST_F(ApiTest, ListsBasesWithTheirWorkers) {
  auto worker = NewWorker("worker-1", 1);
  const auto get = [&](const std::string& name, v1::Base* base) {
    grpc::ClientContext context;
    v1::GetBaseRequest request;
    request.set_name(name);
    return bases_->GetBase(&context, request, base);
  };
  v1::Base base;
  ASSERT_TRUE(get("bases/tiny", &base).ok());
  EXPECT_EQ(base.worker_count(), 1);
  EXPECT_EQ(base.max_seq_length(), 512);
  EXPECT_EQ(get("bases/none", &base).error_code(), grpc::StatusCode::NOT_FOUND);
  const std::string hash = base.name().substr(6);
  EXPECT_TRUE(get("bases/" + hash.substr(0, 12), &base).ok());  // as lists show it
  EXPECT_EQ(base.name(), "bases/" + hash);
  EXPECT_EQ(get("bases/" + hash.substr(0, 7), &base).error_code(), grpc::StatusCode::NOT_FOUND);
  worker.reset();
  Restart();
  ASSERT_TRUE(get(FakeBase().base().name(), &base).ok());
  EXPECT_EQ(base.worker_count(), 0);
}

TEST_F(ApiTest, UploadsAnAdapterFolderForGeneration) {
  const auto worker = NewWorker("worker-1", 1);
  std::string name;
  const grpc::Status status = TryUploadAdapter(*generate_, "{}", "weights", &name);
  ASSERT_TRUE(status.ok()) << status.error_message();
  v1::GenerateRequest request;
  request.set_base("tiny");
  request.set_prompt("x");
  request.set_adapter(name);
  grpc::ClientContext generating;
  const auto reader = generate_->Generate(&generating, request);
  ASSERT_TRUE(
      worker->WaitFor([](const v1::WorkerAssignment& a) { return a.generate_size() == 1; }));
  const v1::AdapterFile file = worker->assignment().generate(0).adapter_files(1);
  EXPECT_EQ(*worker->Fetch(file.sha256()), "weights");
  generating.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ApiTest, GenerateWithoutAWorkerIsUnavailable) {
  { const auto worker = NewWorker("worker-1", 1); }
  v1::GenerateRequest request;
  request.set_base("tiny");
  request.set_prompt("x");
  v1::GenerateResponse response;
  {
    grpc::ClientContext context;
    const auto reader = generate_->Generate(&context, request);
    EXPECT_FALSE(reader->Read(&response));
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  request.set_temperature(-1);
  request.set_top_p(0);
  request.clear_prompt();
  grpc::ClientContext context;
  const auto reader = generate_->Generate(&context, request);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_THAT(ViolatedFields(reader->Finish()), ElementsAre("prompt", "temperature", "top_p"));
}

TEST_F(ApiTest, MalformedNamesAreInvalidAndUnknownOnesNotFound) {
  const auto code = [&](const std::string& name) {
    grpc::ClientContext context;
    v1::GetJobRequest request;
    request.set_name(name);
    v1::Job job;
    return jobs_->GetJob(&context, request, &job).error_code();
  };
  EXPECT_EQ(code("jobs/none"), grpc::StatusCode::NOT_FOUND);
  for (const char* const bad : {"", "none", "jobs/", "jobs/a/b", "datasets/x", "jobs"}) {
    EXPECT_EQ(code(bad), grpc::StatusCode::INVALID_ARGUMENT) << bad;
  }
  grpc::ClientContext context;
  v1::WatchJobRequest request;
  request.set_name("jobs/none");
  const auto reader = jobs_->WatchJob(&context, request);
  v1::WatchJobResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApiTest, ServesHealthAndMetrics) {
  const auto worker = NewWorker("worker-1", 1);
  Create(JobRequest(1, 8));
  httplib::Client client("127.0.0.1", coordinator_->http_port());
  EXPECT_EQ(client.Get("/healthz")->status, 200);
  EXPECT_EQ(client.Get("/readyz")->status, 200);
  const std::string metrics = client.Get("/metrics")->body;
  for (const char* const line :
       {"tundra_jobs{state=\"QUEUED\"} 1", "tundra_workers{state=\"connected\"} 1",
        "tundra_queue_devices{tenant=\"default\"} 8", "tundra_build_info{version=",
        "tundra_rpc_duration_seconds_count{code=\"OK\",method=\"CreateJob\"} 1",
        "tundra_db_commit_duration_seconds_count", "tundra_fenced_writes_total 0",
        "tundra_steps_total 0", "tundra_leader 1", "tundra_queue_oldest_seconds "}) {
    EXPECT_THAT(metrics, HasSubstr(line));
  }
  EXPECT_EQ(client.Get("/other")->status, 404);
}

CoordinatorOptions Options(const TempDir& dir) {
  CoordinatorOptions options;
  options.data_dir = dir / "other";
  options.listen = "127.0.0.1:0";
  options.http = "127.0.0.1:0";
  options.auth.allow_anonymous = true;
  options.web = "127.0.0.1:0";
  return options;
}

TEST_F(ApiTest, ATakenPortIsAClearError) {
  CoordinatorOptions options = Options(dir_);
  options.listen = absl::StrCat("127.0.0.1:", port());
  EXPECT_THAT(StartCoordinator(std::move(options)),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("--listen")));
  options = Options(dir_);
  options.http = absl::StrCat("127.0.0.1:", coordinator_->http_port());
  EXPECT_THAT(StartCoordinator(std::move(options)),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("--http")));
  options = Options(dir_);
  options.web = absl::StrCat("127.0.0.1:", coordinator_->web_port());
  EXPECT_THAT(StartCoordinator(std::move(options)),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("--web")));
}

TEST_F(ApiTest, AddressesBeyondLoopbackNeedInsecure) {
  for (const char* const address : {"0.0.0.0:0", "[::]:0", "192.0.2.1:7700", "example.com:1"}) {
    CoordinatorOptions options = Options(dir_);
    options.listen = address;
    options.auth.allow_anonymous = false;
    EXPECT_THAT(StartCoordinator(std::move(options)),
                StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("--insecure")))
        << address;
  }
  CoordinatorOptions options = Options(dir_);
  options.listen = "nonsense";
  EXPECT_THAT(StartCoordinator(std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("HOST:PORT")));
}

}  // namespace
}  // namespace tundra::coordinator
