// A service for tests of the client: a real gRPC server on loopback that answers
// as the test says.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "client/rpc_calls.h"

namespace tundra::client {

class ScriptedService : public tundra::v1::JobService::Service,
                        public tundra::v1::ArtifactService::Service,
                        public tundra::v1::BaseService::Service,
                        public tundra::v1::DatasetService::Service,
                        public tundra::v1::AccessService::Service,
                        public tundra::v1::FleetService::Service {
 public:
  using WatchWriter = grpc::ServerWriter<tundra::v1::WatchJobResponse>;
  using FileWriter = grpc::ServerWriter<tundra::v1::DownloadFileResponse>;

  ScriptedService() { Start(); }
  ~ScriptedService() override { Stop(); }

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  ::tundra::client::Service Open() const {
    AddressFlags flags;
    flags.address = address();
    return *::tundra::client::Service::Open(flags);
  }

  void Start() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address(), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<tundra::v1::JobService::Service*>(this));
    builder.RegisterService(static_cast<tundra::v1::ArtifactService::Service*>(this));
    builder.RegisterService(static_cast<tundra::v1::BaseService::Service*>(this));
    builder.RegisterService(static_cast<tundra::v1::DatasetService::Service*>(this));
    builder.RegisterService(static_cast<tundra::v1::AccessService::Service*>(this));
    builder.RegisterService(static_cast<tundra::v1::FleetService::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  void Stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }

  // The call's number, from 0, tells the script which try it is.
  std::function<grpc::Status(int call, grpc::ServerContext*, WatchWriter*)> watch;
  std::function<grpc::Status(int call, int64_t offset, FileWriter*)> download;
  // The jobs of a filter; unset: `job` alone, whatever the filter.
  std::function<tundra::v1::ListJobsResponse(const std::string& filter)> list_jobs;
  tundra::v1::Job job;
  tundra::v1::ListDatasetsResponse datasets;
  tundra::v1::Caller caller;
  tundra::v1::Tenant tenant;
  tundra::v1::ListWorkersResponse workers;
  // What the calls asked for.
  std::vector<int64_t> after_sequences;
  std::vector<int64_t> offsets;
  std::vector<std::string> filters;
  std::vector<std::string> cancelled;
  std::vector<std::string> drained;
  std::vector<tundra::v1::CreateTokenRequest> tokens;
  std::vector<std::string> deleted_tokens;

 private:
  grpc::Status WatchJob(grpc::ServerContext* context, const tundra::v1::WatchJobRequest* request,
                        WatchWriter* writer) override {
    after_sequences.push_back(request->after_sequence());
    return watch(static_cast<int>(after_sequences.size()) - 1, context, writer);
  }
  grpc::Status GetJob(grpc::ServerContext*, const tundra::v1::GetJobRequest*,
                      tundra::v1::Job* response) override {
    *response = job;
    return grpc::Status::OK;
  }
  grpc::Status ListJobs(grpc::ServerContext*, const tundra::v1::ListJobsRequest* request,
                        tundra::v1::ListJobsResponse* response) override {
    filters.push_back(request->filter());
    if (list_jobs) {
      *response = list_jobs(request->filter());
    } else {
      *response->add_jobs() = job;
    }
    return grpc::Status::OK;
  }
  grpc::Status CancelJob(grpc::ServerContext*, const tundra::v1::CancelJobRequest* request,
                         tundra::v1::Job* response) override {
    cancelled.push_back(request->name());
    response->set_name(request->name());
    return grpc::Status::OK;
  }
  grpc::Status ListDatasets(grpc::ServerContext*, const tundra::v1::ListDatasetsRequest*,
                            tundra::v1::ListDatasetsResponse* response) override {
    *response = datasets;
    return grpc::Status::OK;
  }
  grpc::Status GetCaller(grpc::ServerContext*, const tundra::v1::GetCallerRequest*,
                         tundra::v1::Caller* response) override {
    *response = caller;
    return grpc::Status::OK;
  }
  grpc::Status GetTenant(grpc::ServerContext*, const tundra::v1::GetTenantRequest*,
                         tundra::v1::Tenant* response) override {
    *response = tenant;
    return grpc::Status::OK;
  }
  // As the service does: the quota replaces the former.
  grpc::Status UpdateTenant(grpc::ServerContext*, const tundra::v1::UpdateTenantRequest* request,
                            tundra::v1::Tenant* response) override {
    *tenant.mutable_quota() = request->tenant().quota();
    *response = tenant;
    return grpc::Status::OK;
  }
  grpc::Status CreateToken(grpc::ServerContext*, const tundra::v1::CreateTokenRequest* request,
                           tundra::v1::Token* response) override {
    tokens.push_back(*request);
    *response = request->token();
    response->set_name("tokens/made");
    response->set_secret("secret");
    return grpc::Status::OK;
  }
  grpc::Status DeleteToken(grpc::ServerContext*, const tundra::v1::DeleteTokenRequest* request,
                           google::protobuf::Empty*) override {
    deleted_tokens.push_back(request->name());
    return grpc::Status::OK;
  }
  grpc::Status ListWorkers(grpc::ServerContext*, const tundra::v1::ListWorkersRequest*,
                           tundra::v1::ListWorkersResponse* response) override {
    *response = workers;
    return grpc::Status::OK;
  }
  grpc::Status DrainWorker(grpc::ServerContext*, const tundra::v1::DrainWorkerRequest* request,
                           tundra::v1::Worker* response) override {
    drained.push_back(request->name());
    response->set_name(request->name());
    return grpc::Status::OK;
  }
  grpc::Status DownloadFile(grpc::ServerContext*, const tundra::v1::DownloadFileRequest* request,
                            FileWriter* writer) override {
    offsets.push_back(request->offset());
    return download(static_cast<int>(offsets.size()) - 1, request->offset(), writer);
  }
  grpc::Status ListBases(grpc::ServerContext*, const tundra::v1::ListBasesRequest*,
                         tundra::v1::ListBasesResponse* response) override {
    response->add_bases()->set_worker_count(1);
    return grpc::Status::OK;
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace tundra::client
