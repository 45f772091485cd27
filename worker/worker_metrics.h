// The worker's Prometheus metrics: prefix tundra_, base units, and no job, adapter or user in a
// label. deploy/monitoring/README.md lists them all; a test compares the list with this page.
//
// Stages of a checkpoint, as rank 0 and its supervisor go through them:
//   snapshot  state and adapter copied from the device: the training waits for it
//   queue     failures only: given up, since the disk was slower than the steps
//   write     from the snapshot to files on disk, waiting for earlier ones included
//   upload    to the coordinator
//   restore   read and checked when an attempt goes on
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "tundra/v1/job.pb.h"
#include "worker/rank_control.pb.h"

namespace tundra::worker {

// Gauges that are asked for when somebody looks.
struct WorkerReadings {
  bool connected = false;
  int ranks_ready = 0;
  int ranks_lost = 0;
  // Added over ranks: slices that they keep, units gathered from others, weights laid out.
  int64_t resident_shard_bytes = 0;
  int64_t gathered_buffer_bytes = 0;
  int64_t prepared_bytes = 0;
  // What the devices have.
  int64_t device_total_bytes = 0;
  // Of the file system that holds the data folder; 0 where it cannot be asked.
  double volume_size_bytes = 0;
  double volume_available_bytes = 0;
};

// Thread-safe.
class WorkerMetrics {
 public:
  WorkerMetrics();
  ~WorkerMetrics();

  // A step of a job that this worker leads.
  void OnLedStep(const tundra::v1::StepMetrics& step);
  // What a rank of this worker measured.
  void OnFigures(const RankFigures& figures);
  void OnCheckpoint(const std::string& stage, absl::Duration took, bool failed);
  // A rank of this worker left its group because the collective broke: as in RankState; "hang" when
  // it gave no sign of life and was killed, "next_epoch" when it was killed for the group to form
  // anew.
  void OnCollectiveAbort(const std::string& reason);
  // From the wish to pause a job that runs to its state being on disk.
  void OnPreemption(absl::Duration took);
  // The end of the certificate that this worker shows; not exported before it is known.
  void SetCertExpiry(absl::Time expiry);

  // Sets the gauges, and returns everything in the text format.
  std::string Render(const WorkerReadings& readings);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace tundra::worker
