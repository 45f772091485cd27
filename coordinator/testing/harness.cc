#include "coordinator/testing/harness.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/interrupt.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "google/rpc/status.pb.h"

namespace tundra::coordinator {
namespace {

// Every line is a row; a line with BAD in it is an error. One with ENDLESS takes until nobody
// waits for it.
class LineValidator : public DatasetValidator {
 public:
  absl::StatusOr<v1::ValidationReport> Validate(const ValidationInput& input) override {
    if (input.base_files.at("tokenizer.json") != kFakeTokenizer) {
      return absl::InvalidArgumentError("a wrong tokenizer");
    }
    if (input.bytes.find("ENDLESS") != std::string_view::npos) {
      while (!Interrupted()) absl::SleepFor(absl::Milliseconds(1));
      return InterruptedError();
    }
    v1::ValidationReport report;
    report.set_format("text");
    int64_t line = 0;
    size_t start = 0;
    while (start < input.bytes.size()) {
      const size_t end = std::min(input.bytes.find('\n', start), input.bytes.size());
      ++line;
      if (input.bytes.substr(start, end - start).find("BAD") != std::string_view::npos) {
        v1::Finding* const finding = report.add_errors();
        finding->set_line(line);
        finding->set_message("a bad row; drop it");
      }
      start = end + 1;
    }
    report.set_error_count(report.errors_size());
    report.set_rows(line);
    report.set_valid(line > 0 && report.errors().empty());
    return report;
  }
};

std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + std::chrono::seconds(60);
}

}  // namespace

void CoordinatorHarness::Start() {
  CoordinatorOptions options;
  options.data_dir = dir_ / "data";
  options.listen = "127.0.0.1:0";
  options.http = "127.0.0.1:0";
  options.auth = auth_;
  options.tls = tls_;
  options.web = "127.0.0.1:0";
  options.heartbeat_interval = absl::Milliseconds(500);
  options.lease = lease_;
  options.validator = std::make_unique<LineValidator>();
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = StartCoordinator(std::move(options));
  TUNDRA_ASSERT_OK(coordinator);
  coordinator_ = *std::move(coordinator);
  const auto channels = ChannelSource::Open(absl::StrCat("127.0.0.1:", port()), security_);
  TUNDRA_ASSERT_OK(channels);
  channel_ = (*channels)->Get();
  jobs_ = v1::JobService::NewStub(channel_);
  datasets_ = v1::DatasetService::NewStub(channel_);
  bases_ = v1::BaseService::NewStub(channel_);
  artifacts_ = v1::ArtifactService::NewStub(channel_);
  generate_ = v1::GenerateService::NewStub(channel_);
  access_ = v1::AccessService::NewStub(channel_);
  fleet_ = v1::FleetService::NewStub(channel_);
}

void CoordinatorHarness::Restart() {
  coordinator_.reset();
  Start();
}

grpc::Status CoordinatorHarness::TryUpload(const v1::UploadDatasetRequest::Metadata& metadata,
                                           const std::string& bytes, v1::Dataset* dataset) {
  grpc::ClientContext context;
  const auto writer = datasets_->UploadDataset(&context, dataset);
  v1::UploadDatasetRequest request;
  *request.mutable_metadata() = metadata;
  writer->Write(request);
  for (size_t at = 0; at < bytes.size(); at += 5) {
    request.set_chunk(bytes.substr(at, 5));
    if (!writer->Write(request)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

std::string CoordinatorHarness::Upload(const std::string& rows, const std::string& request_id) {
  v1::UploadDatasetRequest::Metadata metadata;
  metadata.set_display_name("train.jsonl");
  metadata.set_size_bytes(static_cast<int64_t>(rows.size()));
  metadata.set_sha256(Sha256Hex(rows));
  metadata.set_request_id(request_id);
  v1::Dataset dataset;
  const grpc::Status status = TryUpload(metadata, rows, &dataset);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return dataset.name();
}

grpc::Status CoordinatorHarness::TryUploadAdapter(v1::GenerateService::Stub& stub,
                                                  const std::string& config,
                                                  const std::string& weights, std::string* name) {
  grpc::ClientContext context;
  v1::UploadAdapterResponse response;
  const auto writer = stub.UploadAdapter(&context, &response);
  for (const auto& [filename, bytes] : {std::pair("adapter_config.json", config),
                                        std::pair("adapter_model.safetensors", weights)}) {
    v1::UploadAdapterRequest request;
    request.mutable_metadata()->set_filename(filename);
    request.mutable_metadata()->set_size_bytes(static_cast<int64_t>(bytes.size()));
    request.mutable_metadata()->set_sha256(Sha256Hex(bytes));
    writer->Write(request);
    request.set_chunk(bytes);
    writer->Write(request);
  }
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  *name = response.name();
  return status;
}

v1::CreateJobRequest CoordinatorHarness::JobRequest(int64_t steps, int devices) {
  v1::CreateJobRequest request;
  request.mutable_job()->set_display_name("test");
  v1::JobSpec* const spec = request.mutable_job()->mutable_spec();
  spec->set_base("tiny");
  spec->mutable_dataset()->set_train(Upload("one\ntwo\nthree\n"));
  spec->mutable_training()->set_max_steps(steps);
  spec->mutable_resources()->set_device_count(devices);
  return request;
}

grpc::Status CoordinatorHarness::TryCreate(const v1::CreateJobRequest& request, v1::Job* job) {
  grpc::ClientContext context;
  return jobs_->CreateJob(&context, request, job);
}

v1::Job CoordinatorHarness::Create(const v1::CreateJobRequest& request) {
  v1::Job job;
  const grpc::Status status = TryCreate(request, &job);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return job;
}

v1::Job CoordinatorHarness::Get(const std::string& name) {
  grpc::ClientContext context;
  v1::GetJobRequest request;
  request.set_name(name);
  v1::Job job;
  const grpc::Status status = jobs_->GetJob(&context, request, &job);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return job;
}

grpc::Status CoordinatorHarness::Cancel(const std::string& name) {
  grpc::ClientContext context;
  v1::CancelJobRequest request;
  request.set_name(name);
  v1::Job job;
  return jobs_->CancelJob(&context, request, &job);
}

grpc::Status CoordinatorHarness::Pause(const std::string& name) {
  grpc::ClientContext context;
  v1::PauseJobRequest request;
  request.set_name(name);
  v1::Job job;
  return jobs_->PauseJob(&context, request, &job);
}

grpc::Status CoordinatorHarness::Resume(const std::string& name) {
  grpc::ClientContext context;
  v1::ResumeJobRequest request;
  request.set_name(name);
  v1::Job job;
  return jobs_->ResumeJob(&context, request, &job);
}

bool CoordinatorHarness::WaitForState(const std::string& name, v1::JobState state) {
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  v1::WatchJobRequest request;
  request.set_name(name);
  const auto reader = jobs_->WatchJob(&context, request);
  v1::WatchJobResponse message;
  while (reader->Read(&message)) {
    if (!message.has_job() || message.job().state() != state) continue;
    context.TryCancel();
    return true;
  }
  ADD_FAILURE() << name << " is " << v1::JobState_Name(Get(name).state()) << ", not "
                << v1::JobState_Name(state) << ": " << Get(name).failure().message();
  return false;
}

std::vector<v1::WatchJobResponse> CoordinatorHarness::WatchToEnd(const std::string& name,
                                                                 int64_t after) {
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  v1::WatchJobRequest request;
  request.set_name(name);
  request.set_after_sequence(after);
  const auto reader = jobs_->WatchJob(&context, request);
  std::vector<v1::WatchJobResponse> messages;
  v1::WatchJobResponse message;
  while (reader->Read(&message)) messages.push_back(message);
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return messages;
}

std::unique_ptr<FakeWorker> CoordinatorHarness::NewWorker(const std::string& id, int devices,
                                                          const ClientSecurity& security) {
  auto worker = std::make_unique<FakeWorker>(id, devices);
  worker->Connect(port(), security);
  EXPECT_TRUE(
      worker->WaitFor([](const v1::WorkerAssignment& a) { return a.has_heartbeat_interval(); }));
  if (worker->assignment().wanted_blobs_size() > 0) {
    EXPECT_TRUE(worker->Put(kFakeTokenizer).ok());
    EXPECT_TRUE(
        worker->WaitFor([](const v1::WorkerAssignment& a) { return a.wanted_blobs().empty(); }));
  }
  return worker;
}

void CoordinatorHarness::Finish(FakeWorker& worker, int64_t first, int64_t last) {
  worker.job().set_phase(v1::TRAINING);
  worker.Send();
  worker.AddSteps(first, last);
  worker.AddCheckpoint(last, /*final=*/true);
  worker.job().set_phase(v1::FINISHED);
  worker.Send();
  EXPECT_TRUE(worker.WaitForAck([](const v1::JobAck& ack) { return ack.done(); }));
}

std::vector<std::string> ViolatedFields(const grpc::Status& status) {
  google::rpc::Status details;
  std::vector<std::string> fields;
  if (!details.ParseFromString(status.error_details())) return fields;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::BadRequest bad;
    if (!any.UnpackTo(&bad)) continue;
    for (const auto& violation : bad.field_violations()) fields.push_back(violation.field());
  }
  std::sort(fields.begin(), fields.end());
  return fields;
}

}  // namespace tundra::coordinator
