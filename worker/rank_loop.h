// The rounds of a group, as each of its ranks sees them. Rank 0 leads: it
// decides what comes next and broadcasts it as a header; the others wait for
// headers and obey. So nobody ever leaves a collective alone, whatever its own
// supervisor has told it meanwhile.
//
// Rank 0:  look at the inbox → Issue(action) → broadcast header and payload,
//          then Execute(action).
// Others:  Follow → receive header and payload, then Execute(action).
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/link.h"
#include "worker/rank_base.h"
#include "worker/rank_generate.h"
#include "worker/rank_inbox.h"
#include "worker/rank_job.h"

namespace tundra::worker {

enum class Action : int32_t {
  kIdle = 0,      // nothing; a sign of life
  kPoll = 1,      // has everybody prepared the job of the payload?
  kBegin = 2,     // build trainers
  kStep = 3,      // one optimizer step
  kEvaluate = 4,  // validation loss
  kSamples = 5,   // answer spec.eval.samples with the base and the adapter
  kEnd = 6,       // forget the job
  kGenerate = 7,  // the payload's prompt
  kQuit = 8,
};

// Used by the rank's main thread. Returns only when told to quit, or with the
// failure that breaks the group.
class RankLoop {
 public:
  RankLoop(RankBase* base, RankInbox* inbox, Link* link)
      : base_(base), inbox_(inbox), link_(link), generator_(base) {}

  absl::Status Run();

 private:
  struct Header {
    Action action = Action::kIdle;
    int32_t unused = 0;
    int64_t payload_bytes = 0;
  };

  // What the last action found out, on every rank alike.
  struct Outcome {
    int not_ready = 0;  // kPoll: 0 all ready, 1 somebody is not, 2 somebody failed
    bool begun = false;
    absl::Status job_error;  // the job's own failure
    StepMetrics step;
    EvalMetrics evaluation;
    std::vector<tundra::v1::Sample> samples;
  };

  absl::Status Lead();
  absl::Status Follow();
  absl::Status Issue(Action action, const std::string& payload = "");
  absl::Status Execute(Action action, const std::string& payload);
  absl::Status Poll(const std::string& payload);
  absl::Status Begin();
  // Bytes that each rank may use for activations: the least of all ranks'.
  absl::StatusOr<uint64_t> AgreeOnBudget();
  absl::Status Samples();
  absl::Status GenerateText(const std::string& payload);
  absl::StatusOr<std::string> Answer(const std::string& prompt, const AdapterView& adapter);
  // Shares a decision of rank 0's where all ranks generate; else keeps the others waiting.
  bool KeepGoing(bool wanted);
  // Largest flag over the ranks.
  absl::StatusOr<int> Agree(int flag);
  // For what lies on the host, as headers, flags and payloads do on any device.
  CallOptions OnHost() const;
  // payload := rank 0's, of the same size.
  absl::Status Share(std::string& payload);
  // A failure of the job when all ranks see it alike, else one of this rank.
  absl::Status Classify(const absl::Status& status);

  // Rank 0's conduct of a job.
  absl::Status AdvanceJob();
  absl::Status StartTraining();
  absl::Status TrainOnce();
  absl::Status FinishTraining();
  // Waits for the disk. *saved: whether it took everything.
  absl::Status WaitForCheckpoints(absl::Status* saved);
  absl::Status EndJob(tundra::v1::AttemptPhase phase, const absl::Status& failure);
  absl::Status LeadGenerate(const GenerateOrder& order);
  bool EvaluationIsDue(int64_t step) const;

  absl::Status Step();
  // `collective_seconds`: inside the world's reductions.
  void TellFigures(const StepMetrics& step, double collective_seconds);

  void Heartbeat(const std::string& doing);
  void ReportState();

  RankBase* const base_;
  RankInbox* const inbox_;
  Link* const link_;
  RankGenerator generator_;
  std::unique_ptr<RankJob> job_;
  Outcome outcome_;
  bool training_ = false;
  absl::Status generate_status_;
  std::string generate_task_id_;
  absl::Time last_heartbeat_ = absl::InfinitePast();
  std::string doing_;
  Action last_action_ = Action::kIdle;
  uint64_t told_gather_bytes_ = 0;
};

}  // namespace tundra::worker
