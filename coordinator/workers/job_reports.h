// What a worker says of a job becomes durable here, and is acknowledged after.
// Everything passes the fence: only the worker that holds rank 0 of the job's
// present attempt and epoch is heard. Repeated reports change nothing.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/store/store.h"
#include "coordinator/workers/delivered.h"

namespace tundra::coordinator {

struct JobReportResult {
  v1::JobAck ack;
  // The report was of an attempt that is not current.
  bool fenced = false;
  // Something new was stored.
  bool changed = false;
  // The state moved: the scheduler should look.
  bool moved = false;
  // Blobs that its checkpoints name and that are not here.
  std::vector<std::string> missing_blobs;
  int64_t new_steps = 0;
  int64_t new_tokens = 0;
  // What the group's devices spent on these steps.
  double new_device_seconds = 0;
  // The rest is set only when the report was heard.
  std::string tenant;
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  // Steps done as of this attempt; where it began; the highest step of the attempts before.
  int64_t attempt_step = 0;
  int64_t resume_step = 0;
  int64_t seen_step = 0;
  // Set when this report ended the job in FAILED.
  v1::FailureCode failed = v1::FAILURE_CODE_UNSPECIFIED;
};

// Errors: those of the store; nothing is acknowledged then.
absl::StatusOr<JobReportResult> ApplyJobReport(Store& store, BlobStore& blobs,
                                               const DeliveredBlobs& delivered,
                                               const WorkerId& worker, const v1::JobReport& report,
                                               absl::Time now);

}  // namespace tundra::coordinator
