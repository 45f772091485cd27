// A coordinator in this process, clients for all its services, and the few steps
// that most tests share.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/files.h"
#include "coordinator/coordinator.h"
#include "coordinator/testing/fake_worker.h"
#include "tundra/v1/access.grpc.pb.h"
#include "tundra/v1/artifact.grpc.pb.h"
#include "tundra/v1/base.grpc.pb.h"
#include "tundra/v1/dataset.grpc.pb.h"
#include "tundra/v1/fleet.grpc.pb.h"
#include "tundra/v1/generate.grpc.pb.h"
#include "tundra/v1/job.grpc.pb.h"

namespace tundra::coordinator {

class CoordinatorHarness : public ::testing::Test {
 protected:
  void SetUp() override { Start(); }
  void TearDown() override { coordinator_.reset(); }

  void Start();
  // As a new process on the same data folder.
  void Restart();
  int port() const { return coordinator_->grpc_port(); }

  // Uploads rows as a data set; its name. The base must be there to use it.
  std::string Upload(const std::string& rows, const std::string& request_id = "");
  grpc::Status TryUpload(const v1::UploadDatasetRequest::Metadata& metadata,
                         const std::string& bytes, v1::Dataset* dataset);
  // Uploads an adapter folder; its name.
  static grpc::Status TryUploadAdapter(v1::GenerateService::Stub& stub, const std::string& config,
                                       const std::string& weights, std::string* name);
  // A request for a job of `steps` steps on the fake base.
  v1::CreateJobRequest JobRequest(int64_t steps, int devices = 1);
  v1::Job Create(const v1::CreateJobRequest& request);
  grpc::Status TryCreate(const v1::CreateJobRequest& request, v1::Job* job);
  v1::Job Get(const std::string& name);
  grpc::Status Cancel(const std::string& name);
  grpc::Status Pause(const std::string& name);
  grpc::Status Resume(const std::string& name);
  // Waits by watching until the job is in the state. False after 60 s.
  bool WaitForState(const std::string& name, v1::JobState state);
  // All of a finished job's watch after a sequence number.
  std::vector<v1::WatchJobResponse> WatchToEnd(const std::string& name, int64_t after = 0);

  // A worker that has connected and whose text files have arrived.
  std::unique_ptr<FakeWorker> NewWorker(const std::string& id, int devices,
                                        const ClientSecurity& security = {});
  // From TRAINING to the acknowledged end, steps first to last.
  static void Finish(FakeWorker& worker, int64_t first, int64_t last);

  TempDir dir_;
  // Of the coordinator that Start() makes, and of the clients below.
  AuthOptions auth_{.allow_anonymous = true};
  TlsFiles tls_;
  ClientSecurity security_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::DatasetService::Stub> datasets_;
  std::unique_ptr<v1::BaseService::Stub> bases_;
  std::unique_ptr<v1::ArtifactService::Stub> artifacts_;
  std::unique_ptr<v1::GenerateService::Stub> generate_;
  std::unique_ptr<v1::AccessService::Stub> access_;
  std::unique_ptr<v1::FleetService::Stub> fleet_;
  std::shared_ptr<grpc::Channel> channel_;
  // Fake workers send no heartbeats: a slow machine must not lose them. Tests that
  // are about losing one set it lower.
  absl::Duration lease_ = absl::Minutes(10);
};

// The violated fields of a BadRequest in the status's details.
std::vector<std::string> ViolatedFields(const grpc::Status& status);

}  // namespace tundra::coordinator
