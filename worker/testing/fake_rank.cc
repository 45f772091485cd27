#include "worker/testing/fake_rank.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "common/files.h"
#include "common/sha256.h"
#include "worker/link.h"
#include "worker/rank_control.pb.h"
#include "worker/rank_process.h"

namespace tundra::worker {
namespace {

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class FakeRank {
 public:
  explicit FakeRank(Link* link) : link_(link) {}

  int Run() {
    while (true) {
      ToRank message;
      std::vector<Fd> fds;
      if (!link_->Receive(&message, &fds).ok()) return 1;
      if (message.has_setup()) Setup(message.setup(), !fds.empty());
      // As a real rank does, it looks at a job only once it is in its group.
      if (message.has_peers()) SendState(tundra::v1::READY);
      ready_ |= message.has_peers();
      if (message.has_start()) start_ = message.start();
      if (ready_ && !start_.job().job_id().empty() &&
          (message.has_peers() || message.has_start())) {
        Start();
      }
      if (message.has_steer()) Steer(message.steer());
      if (message.has_generate() && !message.generate().cancel()) Generate(message.generate());
      if (message.has_quit()) return 0;
    }
  }

 private:
  void SendState(tundra::v1::RankPhase phase, int fd = -1) {
    FromRank message;
    auto& report = *message.mutable_state()->mutable_report();
    report.set_phase(phase);
    report.set_rendezvous("address of " + std::to_string(setup_.rank()));
    report.set_shard_hash("shard " + std::to_string(setup_.rank()));
    link_->Send(message, fd >= 0 ? std::vector<int>{fd} : std::vector<int>{}).IgnoreError();
  }

  void Setup(const RankSetup& setup, bool has_shard) {
    setup_ = setup;
    if (Env("TUNDRA_FAKE_RANK") == "unready") return SendState(tundra::v1::LOADING);
    Fd memory;
    if (!has_shard) memory = Fd(::memfd_create("shard", MFD_CLOEXEC));
    SendState(tundra::v1::AWAITING_PEERS, memory.get());
  }

  FromRank Message() const {
    FromRank message;
    message.set_job_id(start_.job().job_id());
    message.set_attempt(start_.job().attempt());
    return message;
  }

  void Tell(tundra::v1::AttemptPhase phase) {
    FromRank message = Message();
    message.mutable_job()->mutable_report()->set_phase(phase);
    message.mutable_job()->mutable_report()->set_total_steps(100);
    link_->Send(message).IgnoreError();
  }

  void Start() {
    if (setup_.rank() != 0) return;
    Tell(tundra::v1::TRAINING);
    for (int64_t step = 1; step <= std::atoi(Env("TUNDRA_FAKE_STEPS").c_str()); ++step) {
      FromRank metrics = Message();
      metrics.mutable_metrics()->set_step(step);
      link_->Send(metrics).IgnoreError();
      FromRank figures;
      figures.mutable_figures()->mutable_step()->set_update_seconds(0.5);
      link_->Send(figures).IgnoreError();
      Checkpoint(step);
    }
  }

  void Checkpoint(int64_t step) {
    const std::string bytes = "state of step " + std::to_string(step);
    FromRank message = Message();
    CheckpointSaved& saved = *message.mutable_checkpoint();
    saved.set_dir(start_.checkpoint_dir() + "/" + std::to_string(step));
    MakeDirs(saved.dir()).IgnoreError();
    WriteFileAtomically(saved.dir() + "/state.safetensors", bytes).IgnoreError();
    saved.mutable_report()->set_step(step);
    saved.mutable_report()->set_sha256(Sha256Hex(bytes));
    saved.mutable_report()->set_size_bytes(static_cast<int64_t>(bytes.size()));
    link_->Send(message).IgnoreError();
    step_ = step;
  }

  void Steer(const tundra::worker::Steer& steer) {
    if (setup_.rank() != 0 || steer.job_id() != start_.job().job_id()) return;
    if (steer.desired() == tundra::v1::PAUSE) Checkpoint(step_ + 1);
    if (steer.desired() != tundra::v1::RUN) Tell(tundra::v1::STOPPED);
  }

  // The answer is what is in the adapter's configuration file.
  void Generate(const GenerateOrder& order) {
    FromRank message;
    message.mutable_generation()->set_task_id(order.task().task_id());
    message.mutable_generation()->set_text(
        ReadFile(order.adapter_dir() + "/adapter_config.json").value_or("no adapter"));
    message.mutable_generation()->set_finish_reason("stop");
    link_->Send(message).IgnoreError();
  }

  Link* const link_;
  RankSetup setup_;
  StartJob start_;
  int64_t step_ = 0;
  bool ready_ = false;
};

}  // namespace

int FakeRankMain() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::string mode = Env("TUNDRA_FAKE_RANK");
  if (mode == "exits") return 7;
  Link link{Fd(kRankFd)};
  if (mode == "deaf") {
    while (true) ::pause();
  }
  if (mode == "garbage") {
    const std::string bytes(4, '\xff');
    WriteAll(kRankFd, bytes, "link").IgnoreError();
    while (true) ::pause();
  }
  if (mode == "lost") {
    FromRank message;
    auto& report = *message.mutable_state()->mutable_report();
    report.set_phase(tundra::v1::LOST);
    report.set_error("the base does not fit");
    report.set_failure_code(tundra::v1::OUT_OF_MEMORY);
    link.Send(message).IgnoreError();
    return 1;
  }
  return FakeRank(&link).Run();
}

}  // namespace tundra::worker

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "rank") return tundra::worker::FakeRankMain();
  ::signal(SIGPIPE, SIG_IGN);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
