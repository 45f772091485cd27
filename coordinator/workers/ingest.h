// Takes in what workers report: makes it durable, acknowledges it, tells the
// fleet and the scheduler. Runs on executor threads, one report of a worker at a
// time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/store/store.h"
#include "coordinator/workers/controller.h"
#include "coordinator/workers/delivered.h"
#include "coordinator/workers/fleet.h"
#include "coordinator/workers/hub.h"
#include "coordinator/workers/job_reports.h"

namespace tundra::coordinator {

struct IngestOptions {
  // Told of each job report that was stored or refused.
  std::function<void(const JobReportResult&)> on_job_report;
};

// Thread-safe.
class Ingest {
 public:
  Ingest(Store* store, BlobStore* blobs, Fleet* fleet, Controller* controller, Hub* hub,
         Clock* clock, IngestOptions options);

  // `identity` is the name of the worker's certificate, empty without one. Errors, which end the
  // session: kInvalidArgument for a malformed report, kFailedPrecondition for a version that
  // doesn't go with the coordinator's (common/version.h), kPermissionDenied for a worker id that
  // belongs to another certificate, those of the store for a worker that is new. Other errors of
  // the store are logged; the worker repeats what was not acknowledged.
  absl::Status Take(const std::shared_ptr<SessionLink>& link, const std::string& identity,
                    const v1::WorkerReport& report);
  // The session's stream has ended.
  void Leave(const SessionLink* link);
  // The worker has sent the blob whole: records it. Errors: those of the store.
  absl::Status BlobArrived(const WorkerId& worker, const BlobId& blob);
  // Whether it has, since the coordinator started.
  bool HasDelivered(const WorkerId& worker, const BlobId& blob) const {
    return delivered_.Has(worker, blob);
  }

 private:
  absl::Status CheckIdentity(const WorkerId& worker, const std::string& identity);
  void TakeBases(const v1::WorkerReport& report, std::set<std::string>& wanted);
  absl::Status StoreBase(const WorkerId& worker, const v1::BaseInfo& info);

  Store* const store_;
  BlobStore* const blobs_;
  Fleet* const fleet_;
  Controller* const controller_;
  Hub* const hub_;
  Clock* const clock_;
  const IngestOptions options_;
  DeliveredBlobs delivered_;

  absl::Mutex mu_;
  // The certificates' names that stored workers belong to.
  std::map<WorkerId, std::string> identities_ ABSL_GUARDED_BY(mu_);
  // What is stored of each base, and whose word it was.
  std::map<std::string, std::pair<WorkerId, std::string>> bases_ ABSL_GUARDED_BY(mu_);
  // Warnings about bases that were logged.
  std::set<std::string> said_ ABSL_GUARDED_BY(mu_);
};

// All that is wrong with the form of a report, and its version. Errors: kInvalidArgument,
// kFailedPrecondition.
absl::Status CheckReport(const v1::WorkerReport& report);

}  // namespace tundra::coordinator
