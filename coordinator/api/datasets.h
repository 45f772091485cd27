// Data sets and their validation: what DatasetService does, without gRPC.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/sha256.h"
#include "coordinator/api/context.h"
#include "tundra/v1/dataset.pb.h"

namespace tundra::coordinator {

struct ValidationOptions {
  int32_t max_seq_length = 0;
  bool truncate = false;
  v1::LossOn loss_on = v1::ASSISTANT;
  int32_t preview_rows = 0;
  // Whether a report that is not in the cache is made, which may take long, or refused with
  // an error that NeedsValidation() knows.
  bool may_validate = true;
};

bool NeedsValidation(const absl::Status& status);

class Datasets {
 public:
  explicit Datasets(const Context* context) : context_(context) {}

  // One upload: the writer of its bytes, then Finish.
  class Upload {
   public:
    absl::Status Append(std::string_view chunk);
    absl::StatusOr<v1::Dataset> Finish();

   private:
    friend class Datasets;
    const Context* context_ = nullptr;
    Caller caller_;
    v1::UploadDatasetRequest::Metadata metadata_;
    // Set when the request id was used before: bytes are let pass by.
    std::optional<v1::Dataset> repeated_;
    // In this order: the room is given back after a refused file has gone.
    UploadRoom::Share share_;
    // Null when the tenant has the file already: bytes are compared with the hash alone.
    std::unique_ptr<BlobWriter> writer_;
    Sha256 hash_;
  };
  absl::StatusOr<std::unique_ptr<Upload>> StartUpload(
      const Caller& caller, const v1::UploadDatasetRequest::Metadata& metadata);

  absl::StatusOr<v1::Dataset> Get(const Caller& caller, const v1::GetDatasetRequest& request);
  absl::StatusOr<v1::ListDatasetsResponse> List(const Caller& caller,
                                                const v1::ListDatasetsRequest& request);
  absl::Status Delete(const Caller& caller, const v1::DeleteDatasetRequest& request);
  // may_validate as in ValidationOptions.
  absl::StatusOr<v1::ValidationReport> Validate(const Caller& caller,
                                                const v1::ValidateDatasetRequest& request,
                                                bool may_validate);

  // The report of a data set against a base, from the cache or made now.
  // Errors: kUnavailable while the base's text files are on their way.
  absl::StatusOr<v1::ValidationReport> Report(const DatasetRecord& dataset, const BaseRecord& base,
                                              const ValidationOptions& options);

 private:
  absl::StatusOr<std::map<std::string, std::string>> TextFiles(const BaseRecord& base);

  const Context* const context_;
};

}  // namespace tundra::coordinator
