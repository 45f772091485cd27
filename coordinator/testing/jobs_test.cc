// A job's way through the coordinator, with scripted workers.
#include <thread>

#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using JobsTest = CoordinatorHarness;

TEST_F(JobsTest, TakesAJobToItsAdapter) {
  const auto worker = NewWorker("worker-1", 2);
  v1::CreateJobRequest request = JobRequest(4, 2);
  request.mutable_job()->mutable_spec()->mutable_eval()->add_samples("Hello?");
  const v1::Job made = Create(request);
  EXPECT_EQ(made.state(), v1::QUEUED);
  EXPECT_EQ(made.total_steps(), 4);
  EXPECT_EQ(made.spec().training().batch_size(), 16);  // defaults are filled in
  ASSERT_TRUE(worker->JoinGroup(1));
  const v1::GroupAssignment group = worker->assignment().groups(0);
  EXPECT_EQ(group.members_size(), 2);
  EXPECT_EQ(group.members(1).rendezvous(), "worker-1:1:1");
  EXPECT_EQ(group.job().spec().training().max_steps(), 4);
  EXPECT_EQ(*worker->Fetch(group.job().train().sha256()), "one\ntwo\nthree\n");

  v1::JobReport& job = worker->job();
  job.set_phase(v1::TRAINING);
  v1::StepMetrics* const before = job.add_metrics();
  before->set_step(0);
  before->set_validation_loss(5.5);
  worker->AddSteps(1, 2);
  v1::Sample* const sample = job.add_samples();
  sample->set_prompt("Hello?");
  sample->set_before("hm");
  sample->set_after("Ahoy!");
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.metrics_step() == 2; }));
  v1::Job running = Get(made.name());
  EXPECT_EQ(running.state(), v1::RUNNING);
  EXPECT_EQ(running.step(), 2);
  EXPECT_EQ(running.initial_validation_loss(), 5.5);
  EXPECT_EQ(running.time_left().seconds(), 1);  // two steps of half a second
  EXPECT_EQ(running.samples(0).after(), "Ahoy!");
  EXPECT_TRUE(worker->assignment().acks(0).samples());

  worker->AddCheckpoint(2, false);
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.checkpoint_step() == 2; }));
  Finish(*worker, 3, 4);
  ASSERT_TRUE(WaitForState(made.name(), v1::SUCCEEDED));
  const v1::Job done = Get(made.name());
  EXPECT_EQ(done.step(), 4);
  EXPECT_EQ(done.adapter().name(), made.name() + "/adapter");
  EXPECT_EQ(done.numerics_class(), "test-class");
  EXPECT_NE(done.etag(), running.etag());

  grpc::ClientContext context;
  v1::DownloadFileRequest download;
  download.set_name(done.adapter().name());
  download.set_filename("adapter_model.safetensors");
  download.set_offset(3);
  const auto reader = artifacts_->DownloadFile(&context, download);
  v1::DownloadFileResponse response;
  std::string bytes;
  while (reader->Read(&response)) bytes += response.chunk();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(bytes, std::string("adapter 4").substr(3));

  // The group stays warm for the next job, which need not load anything.
  const v1::Job next = Create(JobRequest(1, 2));
  ASSERT_TRUE(worker->WaitFor([&](const v1::WorkerAssignment& a) {
    return a.groups_size() == 1 && "jobs/" + a.groups(0).job().job_id() == next.name();
  }));
  EXPECT_EQ(worker->assignment().groups(0).group_id(), group.group_id());
  EXPECT_EQ(worker->assignment().groups(0).epoch(), 1);
}

TEST_F(JobsTest, RepeatedReportsAreStoredOnceAndWatchesGoOnFromASequenceNumber) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(3));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->AddSteps(1, 2);
  worker->Send();
  worker->AddSteps(1, 3);  // all again, and more
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.metrics_step() == 3; }));
  Finish(*worker, 1, 3);
  worker->Send();  // the acknowledgement may have been lost
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.done(); }));
  const auto all = WatchToEnd(made.name());
  std::vector<int64_t> steps;
  int64_t last = 0;
  for (const v1::WatchJobResponse& message : all) {
    const int64_t sequence =
        message.has_event() ? message.event().sequence() : message.metrics().sequence();
    EXPECT_GT(sequence, last);
    last = sequence;
    if (message.has_metrics()) steps.push_back(message.metrics().step());
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_TRUE(all.front().has_job());
  EXPECT_EQ(all.back().event().state(), v1::SUCCEEDED);
  const auto rest = WatchToEnd(made.name(), last - 1);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].event().sequence(), last);
  EXPECT_TRUE(WatchToEnd(made.name(), last).empty());
}

TEST_F(JobsTest, PausesAndResumesFromTheCheckpoint) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->AddSteps(1, 2);
  worker->Send();
  ASSERT_TRUE(WaitForState(made.name(), v1::RUNNING));
  ASSERT_TRUE(Pause(made.name()).ok());
  ASSERT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) {
    return a.groups_size() == 1 && a.groups(0).job().desired() == v1::PAUSE;
  }));
  EXPECT_EQ(Get(made.name()).state(), v1::PAUSING);
  worker->AddCheckpoint(2, false);
  worker->job().set_phase(v1::STOPPED);
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.done(); }));
  const v1::Job paused = Get(made.name());
  EXPECT_EQ(paused.state(), v1::PAUSED);
  EXPECT_EQ(paused.paused_by(), v1::USER);
  ASSERT_TRUE(Resume(made.name()).ok());
  ASSERT_TRUE(worker->JoinGroup(2));
  const v1::JobAssignment again = worker->assignment().groups(0).job();
  EXPECT_EQ(again.resume().step(), 2);
  EXPECT_EQ(*worker->Fetch(again.resume().sha256()), "state after 2");
  EXPECT_EQ(again.numerics_class(), "test-class");
  Finish(*worker, 3, 4);
  ASSERT_TRUE(WaitForState(made.name(), v1::SUCCEEDED));
  EXPECT_FALSE(Pause(made.name()).ok());
  EXPECT_EQ(Resume(made.name()).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(JobsTest, AWorkerThatCannotGoOnPausesTheJobWithItsReason) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::STOPPED);
  worker->job().mutable_failure()->set_message("state.safetensors: No space left on device");
  worker->Send();
  ASSERT_TRUE(WaitForState(made.name(), v1::PAUSED));
  EXPECT_EQ(Get(made.name()).paused_by(), v1::SYSTEM);
  ASSERT_TRUE(Resume(made.name()).ok());
  ASSERT_TRUE(worker->JoinGroup(2));
  Finish(*worker, 1, 4);
  EXPECT_TRUE(WaitForState(made.name(), v1::SUCCEEDED));
}

TEST_F(JobsTest, CancelsInEveryState) {
  // Queued: nobody has to agree.
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job blocker = Create(JobRequest(4));
  ASSERT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) { return a.groups_size() == 1; }));
  const v1::Job queued = Create(JobRequest(4));
  ASSERT_TRUE(Cancel(queued.name()).ok());
  EXPECT_TRUE(WaitForState(queued.name(), v1::CANCELLED));
  EXPECT_TRUE(Cancel(queued.name()).ok()) << "once cancelled, again is no error";
  // Starting, and no rank has begun: the group goes.
  ASSERT_TRUE(Cancel(blocker.name()).ok());
  EXPECT_TRUE(WaitForState(blocker.name(), v1::CANCELLED));
  EXPECT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) { return a.groups().empty(); }));
  // Running: the worker stops it.
  const v1::Job running = Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->Send();
  ASSERT_TRUE(WaitForState(running.name(), v1::RUNNING));
  ASSERT_TRUE(Cancel(running.name()).ok());
  ASSERT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) {
    return a.groups_size() == 1 && a.groups(0).job().desired() == v1::CANCEL;
  }));
  EXPECT_FALSE(Resume(running.name()).ok());
  worker->job().set_phase(v1::STOPPED);
  worker->Send();
  EXPECT_TRUE(WaitForState(running.name(), v1::CANCELLED));
  // Paused.
  const v1::Job paused = Create(JobRequest(4));
  ASSERT_TRUE(Pause(paused.name()).ok());
  worker->report().clear_jobs();
  worker->Send();
  EXPECT_TRUE(WaitForState(paused.name(), v1::PAUSED));
  ASSERT_TRUE(Cancel(paused.name()).ok());
  EXPECT_TRUE(WaitForState(paused.name(), v1::CANCELLED));
}

TEST_F(JobsTest, AFailureOfTheAttemptFailsTheJobWithItsReason) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::ATTEMPT_FAILED);
  worker->job().mutable_failure()->set_code(v1::DIVERGED);
  worker->job().mutable_failure()->set_message("ten steps in a row were not finite");
  worker->Send();
  ASSERT_TRUE(WaitForState(made.name(), v1::FAILED));
  EXPECT_EQ(Get(made.name()).failure().code(), v1::DIVERGED);
}

TEST_F(JobsTest, AWorkerThatDoesNotLeadCanSayThatItCannotTakePart) {
  for (const bool at_fault : {false, true}) {
    const std::string n = at_fault ? "b" : "a";
    const auto first = NewWorker("worker-1" + n, 1);
    const auto second = NewWorker("worker-2" + n, 1);
    const v1::Job made = Create(JobRequest(4, 2));
    ASSERT_TRUE(first->JoinGroup(1, {second.get()}));
    // What only the leader may tell is fenced off still.
    second->job().set_phase(v1::TRAINING);
    second->AddSteps(1, 1);
    second->Send();
    ASSERT_TRUE(second->WaitForAck([](const v1::JobAck& a) { return a.done(); }));
    EXPECT_EQ(Get(made.name()).state(), v1::STARTING);
    second->job().clear_metrics();
    second->job().set_phase(at_fault ? v1::ATTEMPT_FAILED : v1::STOPPED);
    second->job().mutable_failure()->set_code(at_fault ? v1::BAD_INPUT : v1::INTERNAL);
    second->job().mutable_failure()->set_message("no space left on device");
    second->Send();
    ASSERT_TRUE(WaitForState(made.name(), at_fault ? v1::FAILED : v1::PAUSED));
  }
}

TEST_F(JobsTest, KeepsTheLatestCheckpointsAndDeletesAJobWhole) {
  const auto worker = NewWorker("worker-1", 1);
  v1::CreateJobRequest request = JobRequest(5);
  request.mutable_job()->mutable_spec()->mutable_checkpoint()->set_keep(2);
  const v1::Job made = Create(request);
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  for (int step = 1; step <= 4; ++step) {
    worker->AddSteps(step, step);
    worker->AddCheckpoint(step, false);
  }
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.checkpoint_step() == 4; }));
  v1::ListCheckpointsRequest list;
  list.set_parent(made.name());
  const auto steps = [&] {
    grpc::ClientContext context;
    v1::ListCheckpointsResponse response;
    EXPECT_TRUE(artifacts_->ListCheckpoints(&context, list, &response).ok());
    std::vector<int64_t> out;
    for (const v1::Checkpoint& c : response.checkpoints()) out.push_back(c.step());
    return out;
  };
  EXPECT_EQ(steps(), (std::vector<int64_t>{4, 3}));
  v1::DeleteJobRequest remove;
  remove.set_name(made.name());
  const auto try_delete = [&] {
    grpc::ClientContext context;
    google::protobuf::Empty empty;
    return jobs_->DeleteJob(&context, remove, &empty).error_code();
  };
  EXPECT_EQ(try_delete(), grpc::StatusCode::FAILED_PRECONDITION);
  Finish(*worker, 5, 5);
  ASSERT_TRUE(WaitForState(made.name(), v1::SUCCEEDED));
  EXPECT_EQ(try_delete(), grpc::StatusCode::OK);
  EXPECT_EQ(try_delete(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(JobsTest, ACheckpointIsAcceptedOnlyWithItsBlobs) {
  const auto worker = NewWorker("worker-1", 1);
  Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->AddSteps(1, 1);
  v1::CheckpointReport* const c = worker->job().add_checkpoints();
  c->set_step(1);
  c->set_sha256(Sha256Hex("the state"));
  worker->Send();
  // The coordinator asks for what it lacks, and then accepts.
  ASSERT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) {
    return a.wanted_blobs_size() == 1 && a.wanted_blobs(0) == Sha256Hex("the state");
  }));
  EXPECT_EQ(worker->assignment().acks(0).checkpoint_step(), 0);
  ASSERT_TRUE(worker->Put("the state", 2).ok());
  worker->Send();
  EXPECT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.checkpoint_step() == 1; }));
}

TEST_F(JobsTest, SaysWhyAJobWaits) {
  const v1::Job early = [&] {
    const auto worker = NewWorker("worker-1", 1);
    return Create(JobRequest(4, 3));
  }();
  // The worker has gone; the base is known still.
  const auto worker = NewWorker("worker-2", 1);
  const v1::Job late = Create(JobRequest(4, 3));
  ASSERT_TRUE(Cancel(early.name()).ok());
  ASSERT_TRUE(WaitForState(early.name(), v1::CANCELLED));
  const v1::Job job = Get(late.name());
  EXPECT_EQ(job.state(), v1::QUEUED);
  // The scheduler looks again at once; until then the answer is an older one.
  v1::Waiting waiting = job.waiting();
  const absl::Duration start = Clock::System()->Monotonic();
  while (waiting.position() != 1 && Clock::System()->Monotonic() - start < absl::Seconds(60)) {
    waiting = Get(late.name()).waiting();
  }
  EXPECT_EQ(waiting.position(), 1);
  EXPECT_NE(waiting.reason().find("needs 3 devices"), std::string::npos) << waiting.reason();
}

TEST_F(JobsTest, RelaysGeneratedText) {
  const auto worker = NewWorker("worker-1", 1);
  v1::GenerateRequest request;
  request.set_base("tiny");
  request.set_prompt("Once");
  grpc::ClientContext context;
  const auto reader = generate_->Generate(&context, request);
  ASSERT_TRUE(
      worker->WaitFor([](const v1::WorkerAssignment& a) { return a.generate_size() == 1; }));
  const v1::GenerateTask task = worker->assignment().generate(0);
  EXPECT_EQ(task.prompt(), "Once");
  EXPECT_TRUE(task.templated());
  EXPECT_EQ(task.max_tokens(), 64);
  grpc::ClientContext deliver;
  v1::GenerationAck ack;
  const auto writer = worker->stub().DeliverGeneration(&deliver, &ack);
  std::thread writing([&] {
    for (int i = 1; i <= 500; ++i) {
      v1::GenerationChunk chunk;
      chunk.set_task_id(task.task_id());
      chunk.set_worker_id(worker->id());
      chunk.set_text("x");
      chunk.set_tokens(i);
      if (i == 500) chunk.set_finish_reason("length");
      EXPECT_TRUE(writer->Write(chunk));
    }
    writer->WritesDone();
    EXPECT_TRUE(writer->Finish().ok());
  });
  v1::GenerateResponse response;
  std::string text;
  while (reader->Read(&response)) text += response.text();
  writing.join();
  EXPECT_EQ(text, std::string(500, 'x'));
  EXPECT_EQ(response.finish_reason(), "length");
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) { return a.generate().empty(); }));
}

TEST_F(JobsTest, AClientThatGoesEndsItsGeneration) {
  const auto worker = NewWorker("worker-1", 1);
  v1::GenerateRequest request;
  request.set_base("tiny");
  request.set_raw_prompt("Once");
  grpc::ClientContext context;
  const auto reader = generate_->Generate(&context, request);
  ASSERT_TRUE(
      worker->WaitFor([](const v1::WorkerAssignment& a) { return a.generate_size() == 1; }));
  grpc::ClientContext deliver;
  v1::GenerationAck ack;
  const auto writer = worker->stub().DeliverGeneration(&deliver, &ack);
  v1::GenerationChunk chunk;
  chunk.set_task_id(worker->assignment().generate(0).task_id());
  chunk.set_worker_id(worker->id());
  chunk.set_text("x");
  ASSERT_TRUE(writer->Write(chunk));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  EXPECT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) { return a.generate().empty(); }));
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace tundra::coordinator
