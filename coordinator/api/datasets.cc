#include "coordinator/api/datasets.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/printable.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/catalog.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/names.h"
#include "coordinator/api/own.h"
#include "coordinator/api/requests.h"
#include "coordinator/api/upload_room.h"
#include "coordinator/blobs/garbage.h"

namespace tundra::coordinator {
namespace {

constexpr int64_t kMaxDatasetBytes = int64_t{64} << 30;
constexpr int32_t kDefaultSeqLength = 2048;
// Part of the cache's key: raise it when validation judges differently.
constexpr int kReportVersion = 3;
constexpr size_t kMostReportBytes = size_t{2} << 20;
constexpr size_t kMostKeptBytes = size_t{64} << 10;
constexpr char kUploadMethod[] = "UploadDataset";
constexpr char kNeedsValidation[] = "tundra/needs-validation";

absl::Status CheckMetadata(const v1::UploadDatasetRequest::Metadata& m) {
  Violations v;
  const std::string& name = m.display_name();
  v.Require(!name.empty() && name.size() <= 256, "metadata.display_name",
            "must have 1 to 256 characters");
  v.Require(!HasControlCharacters(name), "metadata.display_name",
            "must have no control characters or line breaks");
  v.Require(absl::EndsWith(name, ".jsonl") || absl::EndsWith(name, ".jsonl.gz") ||
                absl::EndsWith(name, ".jsonl.zst"),
            "metadata.display_name", "must end in .jsonl, .jsonl.gz or .jsonl.zst");
  v.Require(m.size_bytes() >= 1, "metadata.size_bytes", "the file is empty");
  v.Require(m.size_bytes() <= kMaxDatasetBytes, "metadata.size_bytes", "at most 64 GiB");
  v.Require(IsSha256Hex(m.sha256()), "metadata.sha256",
            "must be the SHA-256 of the file, 64 lower-case hex characters");
  v.Require(m.request_id().size() <= 128, "metadata.request_id", "at most 128 characters");
  return v.ToStatus();
}

// Those that were uploaded before there were tenants have none in their message.
v1::Dataset Shown(const DatasetRecord& record) {
  v1::Dataset dataset = record.dataset;
  dataset.set_tenant(absl::StrCat("tenants/", record.tenant.value));
  return dataset;
}

}  // namespace

bool NeedsValidation(const absl::Status& status) {
  return status.GetPayload(kNeedsValidation).has_value();
}

absl::StatusOr<std::unique_ptr<Datasets::Upload>> Datasets::StartUpload(
    const Caller& caller, const v1::UploadDatasetRequest::Metadata& metadata) {
  RETURN_IF_ERROR(CheckMetadata(metadata));
  auto upload = std::make_unique<Upload>();
  upload->context_ = context_;
  upload->caller_ = caller;
  upload->metadata_ = metadata;
  bool there = false;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(
        const std::string made,
        FindRequest(txn, RequestKey(caller.tenant, kUploadMethod), metadata.request_id(),
                    HashRequest(metadata), context_->clock->Now()));
    if (made.empty()) {
      there = txn.FindDataset(caller.tenant, metadata.sha256(), metadata.display_name()).ok();
      return absl::OkStatus();
    }
    const absl::StatusOr<DatasetRecord> dataset = txn.GetDataset({made});
    if (dataset.ok()) upload->repeated_ = dataset->dataset;
    return absl::IsNotFound(dataset.status()) ? absl::OkStatus() : dataset.status();
  }));
  // The bytes of a file that the tenant has already take no room.
  if (there || upload->repeated_.has_value()) return upload;
  ASSIGN_OR_RETURN(upload->share_,
                   context_->uploads->Take(*context_->store, caller.tenant, metadata.size_bytes()));
  ASSIGN_OR_RETURN(upload->writer_,
                   context_->blobs->Create({metadata.sha256()}, metadata.size_bytes()));
  return upload;
}

absl::Status Datasets::Upload::Append(std::string_view chunk) {
  if (writer_ != nullptr) return writer_->Append(chunk);
  hash_.Update(chunk);
  hashed_ += static_cast<int64_t>(chunk.size());
  if (repeated_.has_value() || hashed_ <= metadata_.size_bytes()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("more than the ", metadata_.size_bytes(), " bytes that were announced"));
}

absl::StatusOr<v1::Dataset> Datasets::Upload::Finish() {
  if (repeated_.has_value()) return *repeated_;
  if (writer_ != nullptr) {
    RETURN_IF_ERROR(writer_->Seal());
  } else if (hash_.Finish() != metadata_.sha256()) {
    return absl::DataLossError(absl::StrCat("the bytes do not hash to ", metadata_.sha256(),
                                            ": they were changed on the way; send them again"));
  }
  const absl::Time now = context_->clock->Now();
  DatasetRecord record;
  record.id.value = NewIdValue("data");
  v1::Dataset& dataset = record.dataset;
  dataset.set_name(absl::StrCat("datasets/", record.id.value));
  dataset.set_display_name(metadata_.display_name());
  dataset.set_sha256(metadata_.sha256());
  dataset.set_size_bytes(metadata_.size_bytes());
  *dataset.mutable_create_time() = ToProto(now);
  dataset.set_tenant(absl::StrCat("tenants/", caller_.tenant.value));
  record.tenant = caller_.tenant;
  const std::string hash = HashRequest(metadata_);
  const std::string request_key = RequestKey(caller_.tenant, kUploadMethod);
  const auto insert = [&](Txn& txn) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(const std::string made,
                     FindRequest(txn, request_key, metadata_.request_id(), hash, now));
    if (!made.empty()) {
      const absl::StatusOr<DatasetRecord> there = txn.GetDataset({made});
      if (there.ok()) {
        record = *there;
        return record.dataset.name();
      }
    }
    const absl::StatusOr<DatasetRecord> same =
        txn.FindDataset(caller_.tenant, metadata_.sha256(), metadata_.display_name());
    if (same.ok()) {
      record = *same;
    } else {
      if (!absl::IsNotFound(same.status())) return same.status();
      if (writer_ == nullptr) {
        return absl::UnavailableError("the data set was deleted meanwhile; upload it again");
      }
      RETURN_IF_ERROR(CheckByteQuota(txn, caller_.tenant, metadata_.size_bytes()));
      RETURN_IF_ERROR(writer_->Commit());
      RETURN_IF_ERROR(RecordBlob(txn, *context_->blobs, {metadata_.sha256()}, now));
      RETURN_IF_ERROR(txn.InsertDataset(record));
    }
    if (!metadata_.request_id().empty()) {
      RETURN_IF_ERROR(
          txn.PutRequest({request_key, metadata_.request_id(), hash, record.id.value, now}));
    }
    return record.dataset.name();
  };
  RETURN_IF_ERROR(WriteAudited(*context_, caller_, insert));
  return record.dataset;
}

absl::StatusOr<v1::Dataset> Datasets::Get(const Caller& caller,
                                          const v1::GetDatasetRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "datasets", "name"));
  v1::Dataset dataset;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const DatasetRecord record, GetOwnDataset(txn, caller, {id}));
    dataset = Shown(record);
    return absl::OkStatus();
  }));
  return dataset;
}

absl::StatusOr<v1::ListDatasetsResponse> Datasets::List(const Caller& caller,
                                                        const v1::ListDatasetsRequest& request) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 50, 1000));
  ASSIGN_OR_RETURN(const int64_t before,
                   context_->page_tokens->Parse(request.page_token(), "datasets", "", INT64_MAX));
  v1::ListDatasetsResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<DatasetRecord> records,
                     txn.ListDatasets(caller.Listed(), before, size + 1));
    for (const DatasetRecord& record : records) {
      if (response.datasets_size() == size) {
        // One more is there than was asked for: it begins the next page.
        response.set_next_page_token(context_->page_tokens->Make("datasets", "", record.key + 1));
        break;
      }
      *response.add_datasets() = Shown(record);
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::Status Datasets::Delete(const Caller& caller, const v1::DeleteDatasetRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "datasets", "name"));
  RETURN_IF_ERROR(WriteAudited(*context_, caller, [&](Txn& txn) -> absl::StatusOr<std::string> {
    RETURN_IF_ERROR(GetOwnDataset(txn, caller, {id}).status());
    ASSIGN_OR_RETURN(const JobId user, txn.JobUsingDataset({id}));
    if (!user.empty()) {
      // An admin's job may use what is another tenant's.
      const bool own = GetOwnJob(txn, caller, user).ok();
      return absl::FailedPreconditionError(
          own ? absl::StrCat("jobs/", user.value,
                             " uses it and has not ended; cancel that job, or wait for it")
              : std::string("a job of an admin uses it and has not ended; wait for it, or ask"));
    }
    RETURN_IF_ERROR(txn.DeleteDataset({id}));
    return request.name();
  }));
  // At once: else one who uploads and deletes by turns has more on the disk than the quota.
  return CollectDropped(*context_->store, *context_->blobs).status();
}

absl::StatusOr<v1::ValidationReport> Datasets::Validate(const Caller& caller,
                                                        const v1::ValidateDatasetRequest& request,
                                                        bool may_validate) {
  Violations v;
  v.Require(request.max_seq_length() >= 0, "max_seq_length", "must be 0 or more");
  v.Require(request.preview_rows() >= 0 && request.preview_rows() <= 100, "preview_rows",
            "must be 0 to 100");
  v.Require(v1::LossOn_IsValid(request.loss_on()), "loss_on", "is unknown");
  v.Require(!request.base().empty(), "base", "is required");
  RETURN_IF_ERROR(v.ToStatus());
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "datasets", "name"));
  DatasetRecord dataset;
  BaseRecord base;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(dataset, GetOwnDataset(txn, caller, {id}));
    ASSIGN_OR_RETURN(base, ResolveBase(txn, request.base()));
    return absl::OkStatus();
  }));
  const int32_t most = base.info.base().max_seq_length();
  if (most > 0 && request.max_seq_length() > most) {
    v.Add("max_seq_length", absl::StrCat("the base supports at most ", most, " tokens"));
    return v.ToStatus();
  }
  ValidationOptions options;
  options.max_seq_length = request.max_seq_length();
  if (options.max_seq_length == 0) {
    options.max_seq_length = most > 0 ? std::min(kDefaultSeqLength, most) : kDefaultSeqLength;
  }
  options.truncate = request.truncate();
  options.loss_on =
      request.loss_on() == v1::LOSS_ON_UNSPECIFIED ? v1::ASSISTANT : request.loss_on();
  options.preview_rows = request.preview_rows();
  options.may_validate = may_validate;
  return Report(dataset, base, options);
}

absl::StatusOr<v1::ValidationReport> Datasets::Report(const DatasetRecord& dataset,
                                                      const BaseRecord& base,
                                                      const ValidationOptions& options) {
  const std::string key = Sha256Hex(absl::StrCat(
      kReportVersion, "|", dataset.dataset.sha256(), "|", dataset.dataset.display_name(), "|",
      base.hash.value, "|", options.max_seq_length, "|", options.truncate, "|", options.loss_on,
      "|", options.preview_rows));
  absl::StatusOr<v1::ValidationReport> report = absl::UnknownError("");
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) {
    report = txn.GetReport(key);
    return absl::IsNotFound(report.status()) ? absl::OkStatus() : report.status();
  }));
  if (report.ok()) return report;
  if (!options.may_validate) {
    absl::Status later = absl::UnavailableError("the data set has yet to be validated");
    later.SetPayload(kNeedsValidation, absl::Cord());
    return later;
  }
  ValidationInput input;
  ASSIGN_OR_RETURN(input.base_files, TextFiles(base));
  ASSIGN_OR_RETURN(const MappedFile file, context_->blobs->Map({dataset.dataset.sha256()}));
  input.bytes = file.bytes();
  input.display_name = dataset.dataset.display_name();
  input.base_name = base.info.base().display_name();
  input.max_seq_length = options.max_seq_length;
  input.truncate = options.truncate;
  input.loss_on = options.loss_on;
  input.preview_rows = options.preview_rows;
  ASSIGN_OR_RETURN(v1::ValidationReport made, context_->validator->Validate(input));
  while (made.ByteSizeLong() > kMostReportBytes && made.preview_size() > 0) {
    made.mutable_preview()->RemoveLast();  // an answer has its limit
  }
  // Large ones are made again rather than kept.
  if (made.ByteSizeLong() > kMostKeptBytes) return made;
  RETURN_IF_ERROR(context_->store->Write([&](Txn& txn) -> absl::Status {
    // The data set may have been deleted meanwhile, and its reports with it.
    if (!txn.GetDataset(dataset.id).ok()) return absl::OkStatus();
    return txn.PutReport(key, {dataset.dataset.sha256()}, made, context_->clock->Now());
  }));
  return made;
}

absl::StatusOr<std::map<std::string, std::string>> Datasets::TextFiles(const BaseRecord& base) {
  std::map<std::string, std::string> files;
  for (const v1::AdapterFile& file : base.info.text_files()) {
    absl::StatusOr<std::string> bytes =
        context_->blobs->Read({file.sha256()}, 0, file.size_bytes());
    if (absl::IsNotFound(bytes.status())) {
      return absl::UnavailableError(absl::StrCat("base ", base.info.base().display_name(), ": ",
                                                 file.filename(),
                                                 " is still on its way from a worker; try again "
                                                 "in a few seconds"));
    }
    RETURN_IF_ERROR(bytes.status());
    files[file.filename()] = *std::move(bytes);
  }
  return files;
}

}  // namespace tundra::coordinator
