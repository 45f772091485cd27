// A worker's report, as JSON or in bytes, to a coordinator in which the worker "w" leads a running
// job. What it stores is undone after each input, so that every input meets the same coordinator.
#include <google/protobuf/util/json_util.h>

#include "common/clock.h"
#include "common/logging.h"
#include "common/rpc.h"
#include "common/sha256.h"
#include "common/version.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/workers/controller.h"
#include "coordinator/workers/ingest.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/target.h"

namespace {

using namespace tundra;
using namespace tundra::coordinator;

constexpr char kWorker[] = "w";

struct Link : SessionLink {
  void Send(const v1::WorkerAssignment&) override {}
  void End(const absl::Status&) override { ended = true; }
  bool Ended() const override { return ended; }
  bool ended = false;
};

// Whatever a worker says, what is stored can be shown: messages that have no JSON form would break
// the web page.
void CheckShown(const google::protobuf::Message& message) {
  std::string json;
  EXPECT_FUZZ(google::protobuf::util::MessageToJsonString(message, &json).ok());
}

void CheckStored(Txn& txn) {
  const auto job = txn.GetJob({"job"});
  EXPECT_FUZZ(job.ok());
  CheckShown(job->job);
  const auto timeline = txn.ReadTimeline(*job, 0, TimelineKind::kAll, 10'000);
  EXPECT_FUZZ(timeline.ok());
  for (const TimelineItem& item : *timeline) {
    std::visit([](const auto& message) { CheckShown(message); }, item);
  }
  const auto checkpoints = txn.ListCheckpoints(*job, INT64_MAX, 10'000);
  EXPECT_FUZZ(checkpoints.ok());
  for (const CheckpointRecord& record : *checkpoints) CheckShown(record.checkpoint);
}

// Runs every transaction, and keeps nothing of it.
class UndoneStore : public Store {
 public:
  explicit UndoneStore(std::unique_ptr<Store> store) : store_(std::move(store)) {}
  absl::Status Write(const std::function<absl::Status(Txn&)>& fn) override {
    absl::Status status;
    const absl::Status undone = store_->Write([&](Txn& txn) -> absl::Status {
      status = fn(txn);
      if (status.ok()) CheckStored(txn);
      return absl::CancelledError("undone");
    });
    EXPECT_FUZZ(absl::IsCancelled(undone));
    return status;
  }
  absl::Status Read(const std::function<absl::Status(ReadTxn&)>& fn) override {
    return store_->Read(fn);
  }

 private:
  const std::unique_ptr<Store> store_;
};

// What lasts from one input to the next.
struct World {
  World() {
    EXPECT_FUZZ(InitLogging({.program = "fuzz", .level = "off"}).ok());
    RouteProtobufLog();
    auto opened = OpenSqliteStore({.data_dir = folder.path(), .read_sessions = 1, .sync = false});
    EXPECT_FUZZ(opened.ok());
    EXPECT_FUZZ((*opened)->Write([&](Txn& txn) { return Fill(txn); }).ok());
    store = std::make_unique<UndoneStore>(*std::move(opened));
    auto opened_blobs = OpenDirectoryBlobStore(folder.path());
    EXPECT_FUZZ(opened_blobs.ok());
    blobs = *std::move(opened_blobs);
    auto writer = blobs->Resume(kWorker, {Sha256Hex("blob")}, 4, 0);
    EXPECT_FUZZ(writer.ok() && (*writer)->Append("blob").ok() && (*writer)->Commit().ok());
  }

  absl::Status Fill(Txn& txn) {
    DatasetRecord dataset;
    dataset.id.value = "d";
    dataset.dataset.set_sha256(Sha256Hex("d"));
    EXPECT_FUZZ(txn.InsertDataset(dataset).ok());
    JobRecord record;
    record.id.value = "job";
    record.job.set_state(v1::QUEUED);
    record.job.set_desired_state(v1::RUN);
    record.job.set_base_hash(Sha256Hex("base"));
    record.job.set_total_steps(16);
    record.job.mutable_spec()->mutable_dataset()->set_train("datasets/d");
    record.job.mutable_spec()->mutable_checkpoint()->set_keep(1);
    JobDraft made(record, clock.Now());
    EXPECT_FUZZ(txn.InsertJob(made).ok());
    JobDraft draft(*txn.GetJob({"job"}), clock.Now());
    draft.record().group.value = "group";
    draft.record().epoch = 1;
    draft.job().set_attempt(1);
    EXPECT_FUZZ(draft.Move(v1::STARTING, "").ok() && draft.Move(v1::RUNNING, "").ok());
    EXPECT_FUZZ(txn.SaveJob(draft).ok());
    GroupRecord group;
    group.id.value = "group";
    group.epoch = 1;
    group.base.value = Sha256Hex("base");
    group.job.value = "job";
    group.attempt = 1;
    group.members = {{{kWorker}, 0, "run"}};
    return txn.PutGroup(group);
  }

  fuzz::Scratch folder;
  FakeClock clock;
  std::unique_ptr<Store> store;
  std::unique_ptr<BlobStore> blobs;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World* const world = new World();
  v1::WorkerReport report;
  const std::string input(fuzz::View(data, size));
  const bool parsed = input.starts_with('{')
                          ? google::protobuf::util::JsonStringToMessage(input, &report).ok()
                          : report.ParseFromString(input);
  if (!parsed) return 0;
  report.set_build(ProgramVersion());  // versions are fuzzed by names.cc
  Hub hub;
  Fleet fleet(&world->clock, FleetOptions{});
  Controller controller(world->store.get(), &fleet, &hub, &world->clock, ControllerOptions{});
  Ingest ingest(world->store.get(), world->blobs.get(), &fleet, &controller, &hub, &world->clock,
                IngestOptions{.on_job_report = [](const JobReportResult& result) {
                  EXPECT_FUZZ(result.new_steps >= 0 && result.new_tokens >= 0);
                  EXPECT_FUZZ(result.new_device_seconds >= 0);
                }});
  (void)ingest.BlobArrived({kWorker}, {Sha256Hex("blob")});
  EXPECT_FUZZ(controller.Tick().ok());
  const auto link = std::make_shared<Link>();
  if (!ingest.Take(link, "", report).ok()) return 0;
  for (const v1::BaseInfo& base : report.bases()) EXPECT_FUZZ(base.base().name().size() == 70);
  EXPECT_FUZZ(controller.Tick().ok());
  (void)fleet.ListWorkers();
  (void)fleet.ListGroups();
  ingest.Leave(link.get());
  return 0;
}
