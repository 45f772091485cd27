// Bases, checkpoints and adapters: what BaseService, ArtifactService and the
// requests of GenerateService need to look up, without gRPC.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/api/context.h"
#include "coordinator/api/names.h"
#include "tundra/v1/artifact.pb.h"
#include "tundra/v1/base.pb.h"
#include "tundra/v1/generate.pb.h"

namespace tundra::coordinator {

// The base of a name as JobSpec.base has it: "bases/HASH", a display name, or
// "bases/DISPLAY_NAME". Errors: kFailedPrecondition that lists the bases there
// are when none has the name, or when several have it.
absl::StatusOr<BaseRecord> ResolveBase(ReadTxn& txn, const std::string& name);

class Catalog {
 public:
  explicit Catalog(const Context* context) : context_(context) {}

  absl::StatusOr<v1::ListBasesResponse> ListBases(const Caller& caller,
                                                  const v1::ListBasesRequest& request);
  absl::StatusOr<v1::Base> GetBase(const Caller& caller, const v1::GetBaseRequest& request);
  absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(
      const Caller& caller, const v1::ListCheckpointsRequest& request);
  absl::StatusOr<v1::ListAdaptersResponse> ListAdapters(const Caller& caller,
                                                        const v1::ListAdaptersRequest& request);

  // The adapter of any of the three forms of name. Errors: kNotFound.
  absl::StatusOr<v1::Adapter> FindAdapter(const Caller& caller, const std::string& name);
  // The blob to stream. Errors: kNotFound, kOutOfRange for a bad offset.
  absl::StatusOr<BlobId> FindFile(const Caller& caller, const v1::DownloadFileRequest& request);

  // Checks a request and makes its task, id included.
  absl::StatusOr<v1::GenerateTask> MakeTask(const Caller& caller,
                                            const v1::GenerateRequest& request);
  // Whether the caller's tenant has uploaded a file with these bytes, and it is kept yet.
  absl::StatusOr<bool> HasUploaded(const Caller& caller, const BlobId& file);
  // Keeps an adapter folder for 24 hours: what the writers have sealed, and what HasUploaded told
  // of. A folder that is kept already is kept anew. Returns "uploads/ID". Errors:
  // kResourceExhausted for a tenant's quota, kUnavailable when a file that was there has gone.
  absl::StatusOr<std::string> KeepUpload(const Caller& caller, const v1::Adapter& adapter,
                                         const std::vector<std::unique_ptr<BlobWriter>>& writers);

 private:
  const Context* const context_;
};

}  // namespace tundra::coordinator
