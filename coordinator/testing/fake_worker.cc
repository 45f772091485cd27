#include "coordinator/testing/fake_worker.h"

#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "common/version.h"

namespace tundra::coordinator {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

}  // namespace

v1::BaseInfo FakeBase() {
  v1::BaseInfo info;
  v1::Base* const base = info.mutable_base();
  base->set_name("bases/" + Sha256Hex("tiny"));
  base->set_display_name("tiny");
  base->set_architecture("LlamaForCausalLM");
  base->set_max_seq_length(512);
  base->set_size_bytes(1000);
  base->add_linear_modules("q_proj");
  base->add_linear_modules("v_proj");
  v1::AdapterFile* const file = info.add_text_files();
  file->set_filename("tokenizer.json");
  file->set_sha256(Sha256Hex(kFakeTokenizer));
  file->set_size_bytes(sizeof(kFakeTokenizer) - 1);
  return info;
}

FakeWorker::FakeWorker(std::string id, int devices) {
  report_.set_worker_id(std::move(id));
  report_.set_build(ProgramVersion());
  report_.set_incarnation(NewIdValue("run"));
  for (int i = 0; i < devices; ++i) {
    v1::DeviceInfo* const device = report_.add_devices();
    device->set_index(i);
    device->set_kind("cpu");
    device->set_numerics_class("test-class");
  }
  *report_.add_bases() = FakeBase();
}

FakeWorker::~FakeWorker() { Disconnect(); }

void FakeWorker::Connect(int port, const ClientSecurity& security) {
  Disconnect();
  // A channel of its own: after a restart of the server, a shared one would be
  // in its back-off.
  const auto channels = ChannelSource::Open(absl::StrCat("127.0.0.1:", port), security);
  TUNDRA_CHECK(channels.ok()) << channels.status().message();
  stub_ = v1::WorkerService::NewStub((*channels)->Get());
  {
    absl::MutexLock lock(&mu_);
    ended_ = false;
    assignment_.Clear();
  }
  context_ = std::make_unique<grpc::ClientContext>();
  context_->set_wait_for_ready(true);
  stream_ = stub_->Session(context_.get());
  reader_ = std::thread([this] { ReadLoop(); });
  Send();
}

void FakeWorker::Disconnect() {
  if (stream_ == nullptr) return;
  context_->TryCancel();
  reader_.join();
  stream_.reset();
}

void FakeWorker::Restart() {
  report_.set_incarnation(NewIdValue("run"));
  report_.clear_groups();
  report_.clear_jobs();
}

void FakeWorker::Send() { stream_->Write(report_); }

void FakeWorker::ReadLoop() {
  v1::WorkerAssignment assignment;
  while (stream_->Read(&assignment)) {
    absl::MutexLock lock(&mu_);
    assignment_ = assignment;
  }
  const grpc::Status status = stream_->Finish();
  absl::MutexLock lock(&mu_);
  ended_ = true;
  end_ = status;
}

bool FakeWorker::WaitFor(const std::function<bool(const v1::WorkerAssignment&)>& ok) {
  absl::MutexLock lock(&mu_);
  const auto satisfied = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return ok(assignment_); };
  return mu_.AwaitWithTimeout(absl::Condition(&satisfied), kPatience);
}

v1::WorkerAssignment FakeWorker::assignment() {
  absl::MutexLock lock(&mu_);
  return assignment_;
}

grpc::StatusCode FakeWorker::WaitForEnd() {
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&ended_), kPatience);
  return ended_ ? end_.error_code() : grpc::StatusCode::DO_NOT_USE;
}

void FakeWorker::SetRanks(v1::RankPhase phase, const std::string& error, v1::FailureCode code) {
  report_.clear_groups();
  const v1::WorkerAssignment wanted = assignment();
  for (const v1::GroupAssignment& group : wanted.groups()) {
    v1::GroupReport* const out = report_.add_groups();
    out->set_group_id(group.group_id());
    out->set_epoch(group.epoch());
    for (int rank = 0; rank < group.members_size(); ++rank) {
      if (group.members(rank).worker_id() != id()) continue;
      v1::RankReport* const r = out->add_ranks();
      r->set_rank(rank);
      r->set_device_index(group.members(rank).device_index());
      r->set_phase(phase);
      r->set_error(error);
      r->set_failure_code(code);
      if (phase != v1::SPAWNING && phase != v1::LOADING) {
        r->set_rendezvous(absl::StrCat(id(), ":", rank, ":", group.epoch()));
      }
    }
  }
  Send();
}

bool FakeWorker::JoinGroup(int64_t attempt, std::vector<FakeWorker*> peers) {
  peers.insert(peers.begin(), this);
  for (FakeWorker* const worker : peers) {
    if (!worker->WaitFor([&](const v1::WorkerAssignment& a) {
          return a.groups_size() == 1 && a.groups(0).job().attempt() >= attempt;
        })) {
      return false;
    }
    worker->report_.clear_jobs();
    worker->SetRanks(v1::AWAITING_PEERS);
  }
  for (FakeWorker* const worker : peers) {
    if (!worker->WaitFor([&](const v1::WorkerAssignment& a) {
          if (a.groups_size() != 1) return false;
          for (const v1::GroupMember& member : a.groups(0).members()) {
            if (member.rendezvous().empty()) return false;
          }
          return true;
        })) {
      return false;
    }
    worker->SetRanks(v1::READY);
  }
  return true;
}

v1::JobReport& FakeWorker::job() {
  if (report_.jobs_size() == 0) {
    const v1::WorkerAssignment wanted = assignment();
    TUNDRA_CHECK(wanted.groups_size() == 1 && wanted.groups(0).has_job()) << "no job assigned";
    v1::JobReport* const job = report_.add_jobs();
    job->set_job_id(wanted.groups(0).job().job_id());
    job->set_attempt(wanted.groups(0).job().attempt());
    job->set_epoch(wanted.groups(0).epoch());
    job->set_phase(v1::PREPARING);
  }
  return *report_.mutable_jobs(0);
}

void FakeWorker::AddSteps(int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step) {
    v1::StepMetrics* const m = job().add_metrics();
    m->set_step(step);
    m->set_train_loss(1.0 / static_cast<double>(step + 1));
    m->set_tokens(100);
    m->set_step_seconds(0.5);
  }
  job().set_step(last);
}

void FakeWorker::AddCheckpoint(int64_t step, bool final) {
  const std::string state = absl::StrCat("state after ", step),
                    adapter = absl::StrCat("adapter ", step);
  TUNDRA_CHECK(Put(state).ok() && Put(adapter).ok()) << "blobs of a checkpoint";
  v1::CheckpointReport* const c = job().add_checkpoints();
  c->set_step(step);
  c->set_sha256(Sha256Hex(state));
  c->set_size_bytes(static_cast<int64_t>(state.size()));
  c->set_final(final);
  v1::AdapterFile* const file = c->add_adapter_files();
  file->set_filename("adapter_model.safetensors");
  file->set_sha256(Sha256Hex(adapter));
  file->set_size_bytes(static_cast<int64_t>(adapter.size()));
}

bool FakeWorker::WaitForAck(const std::function<bool(const v1::JobAck&)>& ok) {
  return WaitFor(
      [&](const v1::WorkerAssignment& a) { return a.acks_size() == 1 && ok(a.acks(0)); });
}

grpc::Status FakeWorker::Put(const std::string& bytes, size_t chunk) {
  v1::GetBlobUploadRequest where;
  where.set_worker_id(id());
  where.set_sha256(Sha256Hex(bytes));
  v1::GetBlobUploadResponse here;
  {
    grpc::ClientContext context;
    const grpc::Status status = stub_->GetBlobUpload(&context, where, &here);
    if (!status.ok() || here.complete()) return status;
  }
  grpc::ClientContext context;
  v1::PutBlobResponse response;
  const auto writer = stub_->PutBlob(&context, &response);
  v1::PutBlobRequest request;
  request.mutable_header()->set_worker_id(id());
  request.mutable_header()->set_sha256(where.sha256());
  request.mutable_header()->set_size_bytes(static_cast<int64_t>(bytes.size()));
  request.mutable_header()->set_offset(here.received_bytes());
  bool open = writer->Write(request);
  for (size_t at = static_cast<size_t>(here.received_bytes()); open && at < bytes.size();
       at += chunk) {
    request.set_chunk(bytes.substr(at, chunk));
    open = writer->Write(request);
  }
  writer->WritesDone();
  return writer->Finish();
}

absl::StatusOr<std::string> FakeWorker::Fetch(const std::string& sha256, int64_t offset) {
  grpc::ClientContext context;
  v1::FetchBlobRequest request;
  request.set_worker_id(id());
  request.set_sha256(sha256);
  request.set_offset(offset);
  const auto reader = stub_->FetchBlob(&context, request);
  v1::FetchBlobResponse response;
  std::string bytes;
  while (reader->Read(&response)) bytes += response.chunk();
  const grpc::Status status = reader->Finish();
  if (!status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  return bytes;
}

}  // namespace tundra::coordinator
