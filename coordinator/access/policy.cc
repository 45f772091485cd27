#include <algorithm>

#include "coordinator/access/caller.h"

namespace tundra::coordinator {
namespace {

constexpr v1::Role kViewer = v1::ROLE_VIEWER;
constexpr v1::Role kUser = v1::ROLE_USER;
constexpr v1::Role kAdmin = v1::ROLE_ADMIN;
constexpr v1::Role kWorker = v1::ROLE_UNSPECIFIED;

constexpr MethodPolicy kPolicies[] = {
    // JobService
    {"CreateJob", kUser, true},
    {"GetJob", kViewer, false},
    {"ListJobs", kViewer, false},
    {"CancelJob", kUser, true},
    {"PauseJob", kUser, true},
    {"ResumeJob", kUser, true},
    {"DeleteJob", kUser, true},
    {"WatchJob", kViewer, false},
    {"ListMetrics", kViewer, false},
    {"ListEvents", kViewer, false},
    // DatasetService. Validation costs processor time, so that viewers don't start it.
    {"UploadDataset", kUser, true},
    {"GetDataset", kViewer, false},
    {"ListDatasets", kViewer, false},
    {"DeleteDataset", kUser, true},
    {"ValidateDataset", kUser, false},
    // BaseService, ArtifactService
    {"ListBases", kViewer, false},
    {"GetBase", kViewer, false},
    {"ListCheckpoints", kViewer, false},
    {"ListAdapters", kViewer, false},
    {"DownloadFile", kViewer, false},
    // GenerateService
    {"Generate", kUser, false},
    {"UploadAdapter", kUser, true},
    // FleetService
    {"ListWorkers", kViewer, false},
    {"ListGroups", kViewer, false},
    {"DrainWorker", kAdmin, true},
    {"UndrainWorker", kAdmin, true},
    // AccessService
    {"GetCaller", kViewer, false},
    {"CreateTenant", kAdmin, true},
    {"GetTenant", kViewer, false},
    {"ListTenants", kViewer, false},
    {"UpdateTenant", kAdmin, true},
    {"DeleteTenant", kAdmin, true},
    {"CreateToken", kAdmin, true},
    {"ListTokens", kAdmin, false},
    {"DeleteToken", kAdmin, true},
    {"ListAuditEntries", kAdmin, false},
    // WorkerService
    {"Session", kWorker, false},
    {"FetchBlob", kWorker, false},
    {"GetBlobUpload", kWorker, false},
    {"PutBlob", kWorker, false},
    {"DeliverGeneration", kWorker, false},
};

}  // namespace

const MethodPolicy* PolicyOf(std::string_view method) {
  const auto* const found =
      std::find_if(std::begin(kPolicies), std::end(kPolicies),
                   [&](const MethodPolicy& policy) { return policy.method == method; });
  return found == std::end(kPolicies) ? nullptr : found;
}

}  // namespace tundra::coordinator
