// DatasetService over gRPC.
#include "coordinator/api/call.h"
#include "coordinator/api/datasets.h"
#include "coordinator/api/services.h"
#include "coordinator/api/streams.h"
#include "tundra/v1/dataset.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using google::protobuf::Empty;
using Call = grpc::CallbackServerContext;

class DatasetUpload : public UploadReactor<v1::UploadDatasetRequest, v1::Dataset> {
 public:
  DatasetUpload(const Context* context, Datasets* datasets, Call* call, v1::Dataset* response)
      : UploadReactor(context, "UploadDataset", call, response), datasets_(datasets) {}

 protected:
  absl::Status OnMessage(const v1::UploadDatasetRequest& request) override {
    if (request.has_metadata()) {
      if (upload_ != nullptr) return absl::InvalidArgumentError("metadata came twice");
      absl::StatusOr<std::unique_ptr<Datasets::Upload>> upload =
          datasets_->StartUpload(caller(), request.metadata());
      if (!upload.ok()) return upload.status();
      upload_ = *std::move(upload);
      return absl::OkStatus();
    }
    if (upload_ == nullptr) return absl::InvalidArgumentError("metadata must come first");
    return upload_->Append(request.chunk());
  }

  absl::Status OnEnd(v1::Dataset* response) override {
    if (upload_ == nullptr) return absl::InvalidArgumentError("metadata must come first");
    absl::StatusOr<v1::Dataset> dataset = upload_->Finish();
    upload_.reset();
    if (dataset.ok()) *response = *std::move(dataset);
    return dataset.status();
  }

 private:
  Datasets* const datasets_;
  std::unique_ptr<Datasets::Upload> upload_;
};

class DatasetServiceImpl : public v1::DatasetService::CallbackService {
 public:
  explicit DatasetServiceImpl(const Context* context) : context_(context), datasets_(context) {}

  grpc::ServerReadReactor<v1::UploadDatasetRequest>* UploadDataset(Call* call,
                                                                   v1::Dataset* out) override {
    return std::make_shared<DatasetUpload>(context_, &datasets_, call, out)->Begin();
  }
  grpc::ServerUnaryReactor* GetDataset(Call* call, const v1::GetDatasetRequest* in,
                                       v1::Dataset* out) override {
    return RunUnary(context_, "GetDataset", call, in, out, &datasets_, &Datasets::Get);
  }
  grpc::ServerUnaryReactor* ListDatasets(Call* call, const v1::ListDatasetsRequest* in,
                                         v1::ListDatasetsResponse* out) override {
    return RunUnary(context_, "ListDatasets", call, in, out, &datasets_, &Datasets::List);
  }
  grpc::ServerUnaryReactor* DeleteDataset(Call* call, const v1::DeleteDatasetRequest* in,
                                          Empty* out) override {
    return RunUnary(context_, "DeleteDataset", call, in, out, &datasets_, &Datasets::Delete);
  }
  grpc::ServerUnaryReactor* ValidateDataset(Call* call, const v1::ValidateDatasetRequest* in,
                                            v1::ValidationReport* out) override {
    return RunMaybeValidating(context_, "ValidateDataset", call, in, out, &datasets_,
                              &Datasets::Validate);
  }

 private:
  const Context* const context_;
  Datasets datasets_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewDatasetService(const Context* context) {
  return std::make_unique<DatasetServiceImpl>(context);
}

}  // namespace tundra::coordinator
