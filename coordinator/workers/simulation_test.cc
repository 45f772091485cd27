// A seeded simulation: store, scheduler, fleet and ingest as they are, without
// network and threads, against many simulated workers that lose ranks, restart,
// drop their sessions and repeat themselves, while users pause, resume and cancel
// and the coordinator is restarted. After every look the invariants are checked,
// and once the faults stop every job must end.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "common/version.h"
#include "coordinator/store/job_state.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/workers/controller.h"
#include "coordinator/workers/ingest.h"

namespace tundra::coordinator {
namespace {

constexpr int kSteps = 16;
constexpr int kCheckpointEvery = 2;
const std::string kBase = Sha256Hex("base");

struct Link : SessionLink {
  void Send(const v1::WorkerAssignment& a) override { last = a; }
  void End(const absl::Status&) override { ended = true; }
  bool Ended() const override { return ended; }
  v1::WorkerAssignment last;
  bool ended = false;
};

// A worker as the protocol sees it.
struct SimWorker {
  v1::WorkerReport report;
  std::shared_ptr<Link> link;  // null while its session is down
  bool up = true;

  void Restart() {
    report.set_incarnation(NewIdValue("run"));
    report.clear_groups();
    report.clear_jobs();
  }

  const v1::GroupReport* Group(const std::string& id, int64_t epoch) const {
    for (const v1::GroupReport& g : report.groups()) {
      if (g.group_id() == id && g.epoch() == epoch) return &g;
    }
    return nullptr;
  }

  // Does what the last assignment says of groups and acknowledgements.
  void Obey() {
    const v1::WorkerAssignment& wanted = link->last;
    google::protobuf::RepeatedPtrField<v1::GroupReport> groups;
    for (const v1::GroupAssignment& g : wanted.groups()) {
      const v1::GroupReport* const now = Group(g.group_id(), g.epoch());
      v1::GroupReport next = now != nullptr ? *now : NewRanks(g);
      bool complete = true;
      for (const v1::GroupMember& m : g.members()) complete &= !m.rendezvous().empty();
      for (v1::RankReport& r : *next.mutable_ranks()) {
        if (complete && r.phase() == v1::AWAITING_PEERS) r.set_phase(v1::READY);
      }
      *groups.Add() = next;
    }
    report.mutable_groups()->Swap(&groups);
    for (const v1::JobAck& ack : wanted.acks()) Acknowledge(ack);
  }

  v1::GroupReport NewRanks(const v1::GroupAssignment& g) const {
    v1::GroupReport out;
    out.set_group_id(g.group_id());
    out.set_epoch(g.epoch());
    for (int rank = 0; rank < g.members_size(); ++rank) {
      if (g.members(rank).worker_id() != report.worker_id()) continue;
      v1::RankReport* const r = out.add_ranks();
      r->set_rank(rank);
      r->set_device_index(g.members(rank).device_index());
      r->set_phase(v1::AWAITING_PEERS);
      r->set_rendezvous(absl::StrCat(report.worker_id(), rank, "@", g.epoch()));
    }
    return out;
  }

  void Acknowledge(const v1::JobAck& ack) {
    for (int i = 0; i < report.jobs_size(); ++i) {
      v1::JobReport& job = *report.mutable_jobs(i);
      if (job.job_id() != ack.job_id() || job.attempt() != ack.attempt()) continue;
      if (ack.done()) {
        report.mutable_jobs()->DeleteSubrange(i, 1);
        return;
      }
      auto* const metrics = job.mutable_metrics();
      while (ack.has_metrics_step() && !metrics->empty() &&
             metrics->begin()->step() <= ack.metrics_step()) {
        metrics->DeleteSubrange(0, 1);
      }
      auto* const checkpoints = job.mutable_checkpoints();
      while (!checkpoints->empty() && checkpoints->begin()->step() <= ack.checkpoint_step()) {
        checkpoints->DeleteSubrange(0, 1);
      }
    }
  }
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {
    Boot();
    const int workers = Int(2, 5);
    for (int i = 0; i < workers; ++i) {
      SimWorker& worker = workers_.emplace_back();
      worker.report.set_worker_id(absl::StrCat("w", i));
      worker.report.set_build(ProgramVersion());
      worker.Restart();
      const int devices = Int(1, 3);
      for (int d = 0; d < devices; ++d) {
        worker.report.add_devices()->set_index(d);
        worker.report.mutable_devices(d)->set_numerics_class("c");
      }
      v1::Base* const base = worker.report.add_bases()->mutable_base();
      base->set_name("bases/" + kBase);
      base->set_display_name("tiny");
    }
    AddDataset();
    const int jobs = Int(3, 8);
    for (int i = 0; i < jobs; ++i) AddJob(i);
  }

  void Run(int rounds) {
    for (int i = 0; i < rounds && !::testing::Test::HasFailure(); ++i) {
      Fault();
      Round();
    }
  }

  // What came of it: to see that the faults were many, and that jobs survived.
  int jobs() const { return static_cast<int>(jobs_.size()); }
  int64_t attempts() const {
    int64_t sum = 0;
    for (const auto& [id, attempt] : attempts_) sum += attempt;
    return sum;
  }
  int64_t succeeded() const {
    return std::count_if(states_.begin(), states_.end(),
                         [](const auto& entry) { return entry.second == v1::SUCCEEDED; });
  }

  // No faults any more: every job ends.
  void Settle() {
    for (SimWorker& worker : workers_) worker.up = true;
    for (const JobId& job : jobs_) Wish(job, v1::RUN);
    for (int i = 0; i < 600 && !::testing::Test::HasFailure(); ++i) {
      Round();
      if (AllEnded()) return CheckOutcomes();
    }
    ADD_FAILURE() << "not all jobs ended: " << Describe();
  }

 private:
  int Int(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool Chance(int percent) { return Int(1, 100) <= percent; }

  // A coordinator process begins.
  void Boot() {
    ingest_.reset();
    controller_.reset();
    fleet_.reset();
    store_.reset();
    SqliteOptions options;
    options.data_dir = dir_.path();
    options.read_sessions = 1;
    options.sync = false;
    store_ = *OpenSqliteStore(options);
    blobs_ = *OpenDirectoryBlobStore(dir_.path());
    fleet_ = std::make_unique<Fleet>(
        &clock_, FleetOptions{.heartbeat_interval = absl::Seconds(1), .lease = absl::Seconds(5)});
    controller_ = std::make_unique<Controller>(store_.get(), fleet_.get(), &hub_, &clock_,
                                               ControllerOptions{});
    ingest_ = std::make_unique<Ingest>(store_.get(), blobs_.get(), fleet_.get(), controller_.get(),
                                       &hub_, &clock_, IngestOptions{});
    TUNDRA_EXPECT_OK(controller_->Tick());
    for (SimWorker& worker : workers_) worker.link = nullptr;
  }

  // A restart alone disturbs nobody.
  void Reboot() {
    CheckInvariants();
    const auto attempts = attempts_;
    const auto states = states_;
    Boot();
    CheckInvariants();
    EXPECT_EQ(attempts, attempts_);
    for (const auto& [id, state] : states) {
      EXPECT_EQ(IsPlaced(state), IsPlaced(states_[id])) << id.value << " was " << StateName(state);
    }
  }

  void AddDataset() {
    TUNDRA_EXPECT_OK(store_->Write([&](Txn& txn) {
      DatasetRecord record;
      record.id.value = "d";
      record.dataset.set_sha256(Sha256Hex("d"));
      return txn.InsertDataset(record);
    }));
  }

  void AddJob(int number) {
    JobRecord record;
    record.id.value = absl::StrCat("job-", number);
    record.job.set_state(v1::QUEUED);
    record.job.set_desired_state(v1::RUN);
    record.job.set_base_hash(kBase);
    record.job.set_total_steps(kSteps);
    v1::JobSpec& spec = *record.job.mutable_spec();
    spec.mutable_dataset()->set_train("datasets/d");
    spec.mutable_training()->set_precision(v1::F32);
    spec.mutable_checkpoint()->set_keep(2);
    if (Chance(70)) spec.mutable_resources()->set_device_count(Int(1, 2));
    jobs_.push_back(record.id);
    TUNDRA_EXPECT_OK(store_->Write([&](Txn& txn) {
      JobDraft draft(record, clock_.Now());
      return txn.InsertJob(draft);
    }));
  }

  void Wish(const JobId& job, v1::DesiredState desired) {
    store_
        ->Write([&](Txn& txn) -> absl::Status {
          JobDraft draft(*txn.GetJob(job), clock_.Now());
          if (IsTerminal(draft.state()) || draft.job().desired_state() == v1::CANCEL) {
            return absl::CancelledError("no");
          }
          draft.job().set_desired_state(desired);
          return txn.SaveJob(draft);
        })
        .IgnoreError();
  }

  void Fault() {
    SimWorker& worker =
        workers_[static_cast<size_t>(Int(0, static_cast<int>(workers_.size()) - 1))];
    const JobId& job = jobs_[static_cast<size_t>(Int(0, static_cast<int>(jobs_.size()) - 1))];
    const int kind = Int(1, 100);
    if (kind <= 4) {
      for (v1::GroupReport& g : *worker.report.mutable_groups()) {
        if (g.ranks_size() > 0) g.mutable_ranks(0)->set_phase(v1::LOST);
      }
    } else if (kind <= 7) {
      worker.Restart();
      worker.link = nullptr;
    } else if (kind <= 11) {
      worker.link = nullptr;  // reconnects at once
    } else if (kind <= 14) {
      worker.up = !worker.up;  // away, for longer than its lease perhaps
    } else if (kind <= 16) {
      Reboot();
    } else if (kind <= 18) {
      Wish(job, v1::PAUSE);
    } else if (kind <= 22) {
      Wish(job, v1::RUN);
    } else if (kind == 23) {
      Wish(job, v1::CANCEL);
    } else if (kind == 24) {
      clock_.JumpWall(absl::Hours(Chance(50) ? 24 : -24));
    }
  }

  void Round() {
    clock_.Advance(absl::Seconds(1));
    for (SimWorker& worker : workers_) {
      if (!worker.up) {
        if (worker.link != nullptr) ingest_->Leave(worker.link.get());
        worker.link = nullptr;
        continue;
      }
      if (worker.link == nullptr || worker.link->ended) {
        if (worker.link != nullptr) ingest_->Leave(worker.link.get());
        worker.link = std::make_shared<Link>();
      }
      TUNDRA_EXPECT_OK(ingest_->Take(worker.link, "", worker.report));
      if (!worker.link->last.has_heartbeat_interval()) continue;
      // What it is asked for, which it has; it had sent it to a coordinator that was started anew.
      for (const std::string& blob : worker.link->last.wanted_blobs()) {
        if (blobs_->Size({blob}).ok()) {
          TUNDRA_EXPECT_OK(ingest_->BlobArrived({worker.report.worker_id()}, {blob}));
        }
      }
      worker.Obey();
      for (const v1::GroupAssignment& group : worker.link->last.groups()) Work(worker, group);
    }
    for (int i = 0; i < 4; ++i) {
      const absl::StatusOr<bool> again = controller_->Tick();
      TUNDRA_EXPECT_OK(again);
      CheckInvariants();
      if (!again.ok() || !*again) break;
    }
  }

  // All members hold ready ranks of the epoch.
  bool Formed(const v1::GroupAssignment& group) const {
    for (const v1::GroupMember& m : group.members()) {
      for (const SimWorker& worker : workers_) {
        if (worker.report.worker_id() != m.worker_id()) continue;
        const v1::GroupReport* const g = worker.Group(group.group_id(), group.epoch());
        if (!worker.up || g == nullptr) return false;
        for (const v1::RankReport& r : g->ranks()) {
          if (r.phase() != v1::READY) return false;
        }
      }
    }
    return true;
  }

  // A step of the job, as rank 0's worker reports it.
  void Work(SimWorker& worker, const v1::GroupAssignment& group) {
    if (!group.has_job() || group.members(0).worker_id() != worker.report.worker_id()) return;
    if (!Formed(group)) return;
    v1::JobReport* job = nullptr;
    for (v1::JobReport& j : *worker.report.mutable_jobs()) {
      if (j.job_id() == group.job().job_id() && j.attempt() == group.job().attempt()) job = &j;
    }
    if (job == nullptr) {
      job = worker.report.add_jobs();
      job->set_job_id(group.job().job_id());
      job->set_attempt(group.job().attempt());
      job->set_epoch(group.epoch());
      job->set_phase(v1::TRAINING);
      job->set_step(group.job().resume().step());
      return;
    }
    if (job->phase() != v1::TRAINING) return;
    if (group.job().desired() != v1::RUN) {
      if (group.job().desired() == v1::PAUSE && job->step() > 0) Checkpoint(*job);
      job->set_phase(v1::STOPPED);
      return;
    }
    if (job->step() < kSteps) {
      job->set_step(job->step() + 1);
      job->add_metrics()->set_step(job->step());
      if (job->step() % kCheckpointEvery == 0) Checkpoint(*job);
    }
    if (job->step() == kSteps) {
      Checkpoint(*job);
      job->mutable_checkpoints()->rbegin()->set_final(true);
      job->set_phase(v1::FINISHED);
    }
  }

  // The state depends on job and step alone, as exact sums promise.
  void Checkpoint(v1::JobReport& job) {
    const std::string state = absl::StrCat(job.job_id(), " after ", job.step());
    const BlobId id{Sha256Hex(state)};
    if (!blobs_->Size(id).ok()) {
      auto writer = *blobs_->Create(id, static_cast<int64_t>(state.size()));
      TUNDRA_EXPECT_OK(writer->Append(state));
      TUNDRA_EXPECT_OK(writer->Commit());
    }
    v1::CheckpointReport* const c = job.add_checkpoints();
    c->set_step(job.step());
    c->set_sha256(id.value);
    v1::AdapterFile* const file = c->add_adapter_files();
    file->set_filename("adapter_model.safetensors");
    file->set_sha256(id.value);
  }

  void CheckInvariants() {
    TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
      std::map<GroupId, GroupRecord> groups;
      std::set<std::pair<WorkerId, int32_t>> devices;
      const std::vector<GroupRecord> all = *txn.ListGroups();
      for (const GroupRecord& g : all) {
        groups[g.id] = g;
        EXPECT_EQ(g.members.size() % static_cast<size_t>(g.shards), 0u);
        for (const GroupMemberRecord& m : g.members) {
          EXPECT_TRUE(devices.insert({m.worker, m.device}).second) << "a device given twice";
        }
      }
      for (const JobId& id : jobs_) {
        const JobRecord job = *txn.GetJob(id);
        EXPECT_EQ(IsPlaced(job.job.state()), !job.group.empty()) << id.value;
        if (!job.group.empty()) {
          EXPECT_TRUE(groups.contains(job.group));
          EXPECT_EQ(groups[job.group].job, id);
          EXPECT_EQ(groups[job.group].epoch, job.epoch);
          EXPECT_EQ(groups[job.group].attempt, job.job.attempt());
        }
        EXPECT_GE(job.job.attempt(), attempts_[id]) << "attempts only grow";
        attempts_[id] = job.job.attempt();
        if (IsTerminal(states_[id])) {
          EXPECT_EQ(job.job.state(), states_[id]) << "the first end wins";
        }
        states_[id] = job.job.state();
      }
      return absl::OkStatus();
    }));
  }

  bool AllEnded() const {
    for (const auto& [id, state] : states_) {
      if (!IsTerminal(state)) return false;
    }
    return true;
  }

  // Each step of a job that succeeded was stored once, whatever happened.
  void CheckOutcomes() {
    TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
      for (const JobId& id : jobs_) {
        const JobRecord job = *txn.GetJob(id);
        if (job.job.state() == v1::FAILED) {
          EXPECT_EQ(job.job.failure().code(), v1::NO_PROGRESS);
        }
        if (job.job.state() != v1::SUCCEEDED) continue;
        EXPECT_EQ(job.job.adapter().files(0).sha256(),
                  Sha256Hex(absl::StrCat(id.value, " after ", kSteps)));
        int64_t step = 0;
        const std::vector<TimelineItem> items =
            *txn.ReadTimeline(job, 0, TimelineKind::kMetrics, 1000);
        for (const TimelineItem& item : items) {
          EXPECT_EQ(std::get<v1::StepMetrics>(item).step(), ++step);
        }
        EXPECT_EQ(step, kSteps);
        EXPECT_LE(txn.ListCheckpoints(job, INT64_MAX, 100)->size(), 3u);
      }
      return absl::OkStatus();
    }));
  }

  std::string Describe() {
    std::string text;
    for (const auto& [id, state] : states_)
      absl::StrAppend(&text, id.value, " ", StateName(state), "; ");
    return text;
  }

  std::mt19937_64 random_;
  TempDir dir_;
  FakeClock clock_;
  Hub hub_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<Ingest> ingest_;
  std::vector<SimWorker> workers_;
  std::vector<JobId> jobs_;
  std::map<JobId, int64_t> attempts_;
  std::map<JobId, v1::JobState> states_;
};

TEST(SimulationTest, NoJobIsLostOrDoubledWhateverHappens) {
  TUNDRA_ASSERT_OK(InitLogging({.program = "simulation", .level = "warn"}));
  int64_t jobs = 0, attempts = 0, succeeded = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Simulation simulation(seed);
    simulation.Run(120);
    simulation.Settle();
    if (::testing::Test::HasFailure()) return;
    jobs += simulation.jobs();
    attempts += simulation.attempts();
    succeeded += simulation.succeeded();
  }
  std::cout << jobs << " jobs, " << attempts << " attempts, " << succeeded << " succeeded\n";
  EXPECT_GT(attempts, jobs) << "too few faults to show anything";
  EXPECT_GT(succeeded, jobs / 2);
}

}  // namespace
}  // namespace tundra::coordinator
