#include "coordinator/api/catalog.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/own.h"
#include "coordinator/api/upload_room.h"
#include "coordinator/blobs/garbage.h"

namespace tundra::coordinator {
namespace {

constexpr size_t kMaxPromptBytes = size_t{1} << 20;

// Enough of a base's hash to name it by, as lists show it.
bool IsHashPrefix(const std::string& text) {
  return text.size() >= 8 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

absl::Status CheckGenerate(const v1::GenerateRequest& r) {
  Violations v;
  v.Require(!r.base().empty(), "base", "is required");
  const std::string& prompt = r.has_raw_prompt() ? r.raw_prompt() : r.prompt();
  v.Require(!prompt.empty(), r.has_raw_prompt() ? "raw_prompt" : "prompt",
            "is empty; say what to answer");
  v.Require(prompt.size() <= kMaxPromptBytes, "prompt", "at most 1 MiB");
  v.Require(!r.has_max_tokens() || (r.max_tokens() >= 1 && r.max_tokens() <= 8192), "max_tokens",
            "must be 1 to 8192");
  v.Require(!r.has_temperature() || (r.temperature() >= 0 && r.temperature() <= 10), "temperature",
            "must be 0 to 10");
  v.Require(!r.has_top_p() || (r.top_p() > 0 && r.top_p() <= 1), "top_p",
            "must be above 0 and at most 1");
  return v.ToStatus();
}

// By their names and bytes, in any order.
bool SameFiles(const v1::Adapter& a, const v1::Adapter& b) {
  std::map<std::string, std::string> files;
  for (const v1::AdapterFile& file : a.files()) files[file.filename()] = file.sha256();
  return a.files_size() == b.files_size() &&
         std::all_of(b.files().begin(), b.files().end(), [&](const v1::AdapterFile& file) {
           const auto it = files.find(file.filename());
           return it != files.end() && it->second == file.sha256();
         });
}

}  // namespace

absl::StatusOr<BaseRecord> ResolveBase(ReadTxn& txn, const std::string& name) {
  const std::string id = name.rfind("bases/", 0) == 0 ? name.substr(6) : name;
  ASSIGN_OR_RETURN(const std::vector<BaseRecord> bases, txn.ListBases());
  std::vector<const BaseRecord*> matches;
  std::vector<const BaseRecord*> by_hash;
  std::vector<std::string> names;
  for (const BaseRecord& base : bases) {
    if (base.hash.value == id) return base;
    if (base.info.base().display_name() == id) matches.push_back(&base);
    if (IsHashPrefix(id) && base.hash.value.starts_with(id)) by_hash.push_back(&base);
    names.push_back(base.info.base().display_name());
  }
  if (matches.empty()) matches = by_hash;  // a name comes before a hash that looks like it
  if (matches.size() == 1) return *matches[0];
  if (matches.empty()) {
    return absl::FailedPreconditionError(
        names.empty()
            ? absl::StrCat("no base \"", id,
                           "\": no worker has brought a base yet; "
                           "start a worker with a base folder")
            : absl::StrCat("no base \"", id, "\"; there are: ", absl::StrJoin(names, ", ")));
  }
  names.clear();
  for (const BaseRecord* const base : matches) names.push_back("bases/" + base->hash.value);
  return absl::FailedPreconditionError(
      absl::StrCat("several bases are named \"", id,
                   "\", or their hash begins so; say which: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<v1::ListBasesResponse> Catalog::ListBases(const Caller&,
                                                         const v1::ListBasesRequest& request) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 50, 1000));
  ASSIGN_OR_RETURN(const int64_t start,
                   context_->page_tokens->Parse(request.page_token(), "bases", "", 0));
  v1::ListBasesResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<BaseRecord> bases, txn.ListBases());
    for (size_t i = static_cast<size_t>(start); i < bases.size(); ++i) {
      if (response.bases_size() == size) {
        response.set_next_page_token(
            context_->page_tokens->Make("bases", "", static_cast<int64_t>(i)));
        break;
      }
      v1::Base* const base = response.add_bases();
      *base = bases[i].info.base();
      base->set_worker_count(context_->fleet->CountHolders(bases[i].hash));
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<v1::Base> Catalog::GetBase(const Caller&, const v1::GetBaseRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "bases", "name"));
  v1::Base base;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    const absl::StatusOr<BaseRecord> record = ResolveBase(txn, id);
    if (absl::IsFailedPrecondition(record.status())) {
      return absl::NotFoundError(record.status().message());
    }
    RETURN_IF_ERROR(record.status());
    base = record->info.base();
    base.set_worker_count(context_->fleet->CountHolders(record->hash));
    return absl::OkStatus();
  }));
  return base;
}

absl::StatusOr<v1::ListCheckpointsResponse> Catalog::ListCheckpoints(
    const Caller& caller, const v1::ListCheckpointsRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.parent(), "jobs", "parent"));
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 50, 1000));
  ASSIGN_OR_RETURN(const int64_t before,
                   context_->page_tokens->Parse(request.page_token(), "checkpoints",
                                                request.parent(), INT64_MAX));
  v1::ListCheckpointsResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const JobRecord job, GetOwnJob(txn, caller, {id}));
    ASSIGN_OR_RETURN(const std::vector<CheckpointRecord> list,
                     txn.ListCheckpoints(job, before, size + 1));
    for (const CheckpointRecord& record : list) {
      if (response.checkpoints_size() == size) {
        response.set_next_page_token(context_->page_tokens->Make("checkpoints", request.parent(),
                                                                 record.checkpoint.step() + 1));
        break;
      }
      *response.add_checkpoints() = record.checkpoint;
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<v1::ListAdaptersResponse> Catalog::ListAdapters(
    const Caller& caller, const v1::ListAdaptersRequest& request) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 50, 1000));
  JobQuery query;
  query.limit = size + 1;
  query.tenant = caller.Listed();
  query.terms.push_back({JobFilterTerm::Field::kState, "", "SUCCEEDED", false});
  ASSIGN_OR_RETURN(query.before_key,
                   context_->page_tokens->Parse(request.page_token(), "adapters", "", INT64_MAX));
  v1::ListAdaptersResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<JobRecord> jobs, txn.ListJobs(query));
    for (const JobRecord& job : jobs) {
      if (response.adapters_size() == size) {
        response.set_next_page_token(context_->page_tokens->Make("adapters", "", job.key + 1));
        break;
      }
      *response.add_adapters() = job.job.adapter();
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<v1::Adapter> Catalog::FindAdapter(const Caller& caller, const std::string& name) {
  ASSIGN_OR_RETURN(const AdapterName parsed, ParseAdapterName(name, "name"));
  v1::Adapter adapter;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    if (!parsed.upload.empty()) {
      ASSIGN_OR_RETURN(const UploadRecord upload, GetOwnUpload(txn, caller, parsed.upload));
      adapter = upload.adapter;
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const JobRecord job, GetOwnJob(txn, caller, {parsed.job}));
    if (parsed.step >= 0) {
      ASSIGN_OR_RETURN(const CheckpointRecord checkpoint, txn.GetCheckpoint(job, parsed.step));
      adapter = checkpoint.checkpoint.adapter();
      return absl::OkStatus();
    }
    if (!job.job.has_adapter()) {
      return absl::NotFoundError(absl::StrCat("jobs/", parsed.job, " is ",
                                              v1::JobState_Name(job.job.state()),
                                              ": it has no final adapter"));
    }
    adapter = job.job.adapter();
    return absl::OkStatus();
  }));
  return adapter;
}

absl::StatusOr<BlobId> Catalog::FindFile(const Caller& caller,
                                         const v1::DownloadFileRequest& request) {
  ASSIGN_OR_RETURN(const v1::Adapter adapter, FindAdapter(caller, request.name()));
  std::vector<std::string> names;
  for (const v1::AdapterFile& file : adapter.files()) {
    names.push_back(file.filename());
    if (file.filename() != request.filename()) continue;
    if (request.offset() < 0 || request.offset() > file.size_bytes()) {
      return absl::OutOfRangeError(absl::StrCat(request.filename(), " has ", file.size_bytes(),
                                                " bytes: there is no offset ", request.offset()));
    }
    return BlobId{file.sha256()};
  }
  return absl::NotFoundError(absl::StrCat(request.name(), " has no file \"", request.filename(),
                                          "\"; it has ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<v1::GenerateTask> Catalog::MakeTask(const Caller& caller,
                                                   const v1::GenerateRequest& request) {
  RETURN_IF_ERROR(CheckGenerate(request));
  v1::GenerateTask task;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const BaseRecord base, ResolveBase(txn, request.base()));
    task.set_base_hash(base.hash.value);
    return absl::OkStatus();
  }));
  if (!request.adapter().empty()) {
    ASSIGN_OR_RETURN(const v1::Adapter adapter, FindAdapter(caller, request.adapter()));
    *task.mutable_adapter_files() = adapter.files();
  }
  task.set_task_id(NewIdValue("task"));
  task.set_templated(!request.has_raw_prompt());
  task.set_prompt(request.has_raw_prompt() ? request.raw_prompt() : request.prompt());
  task.set_max_tokens(request.has_max_tokens() ? request.max_tokens() : 64);
  task.set_temperature(request.temperature());
  task.set_top_p(request.has_top_p() ? request.top_p() : 1);
  task.set_seed(request.seed());
  return task;
}

absl::StatusOr<bool> Catalog::HasUploaded(const Caller& caller, const BlobId& file) {
  bool there = false;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<UploadRecord> uploads, txn.UploadsWith(caller.tenant, file));
    there = !uploads.empty();
    return absl::OkStatus();
  }));
  return there;
}

absl::StatusOr<std::string> Catalog::KeepUpload(
    const Caller& caller, const v1::Adapter& adapter,
    const std::vector<std::unique_ptr<BlobWriter>>& writers) {
  const absl::Time now = context_->clock->Now();
  UploadRecord upload;
  const auto keep = [&](Txn& txn) -> absl::StatusOr<std::string> {
    upload = {.id = NewIdValue("upload"),
              .tenant = caller.tenant,
              .adapter = adapter,
              .create_time = now};
    upload.adapter.set_name("uploads/" + upload.id);
    int64_t more = 0;
    for (const v1::AdapterFile& file : adapter.files()) {
      ASSIGN_OR_RETURN(const std::vector<UploadRecord> with,
                       txn.UploadsWith(caller.tenant, {file.sha256()}));
      if (with.empty()) more += file.size_bytes();
      for (const UploadRecord& known : with) {
        if (!SameFiles(known.adapter, adapter)) continue;
        upload.id = known.id;
        upload.adapter = known.adapter;
      }
    }
    RETURN_IF_ERROR(CheckByteQuota(txn, caller.tenant, more));
    for (const std::unique_ptr<BlobWriter>& writer : writers) RETURN_IF_ERROR(writer->Commit());
    for (const v1::AdapterFile& file : adapter.files()) {
      const absl::Status recorded = RecordBlob(txn, *context_->blobs, {file.sha256()}, now);
      if (absl::IsNotFound(recorded)) {
        return absl::UnavailableError(
            absl::StrCat(file.filename(), " was kept and has just gone; upload it again"));
      }
      RETURN_IF_ERROR(recorded);
    }
    RETURN_IF_ERROR(txn.PutUpload(upload));
    return upload.adapter.name();
  };
  RETURN_IF_ERROR(WriteAudited(*context_, caller, keep));
  return upload.adapter.name();
}

}  // namespace tundra::coordinator
