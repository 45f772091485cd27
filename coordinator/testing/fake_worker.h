// A worker for tests: speaks the session's protocol, does what a test tells it,
// and trains nothing.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc.h"
#include "tundra/v1/worker.grpc.pb.h"

namespace tundra::coordinator {

// The base that fake workers hold, "tiny", with one text file.
v1::BaseInfo FakeBase();
// Bytes of its tokenizer.json.
inline constexpr char kFakeTokenizer[] = "{\"tokenizer\": true}";

class FakeWorker {
 public:
  FakeWorker(std::string id, int devices);
  ~FakeWorker();

  // Opens a session and sends the present report.
  void Connect(int port, const ClientSecurity& security = {});
  // Cuts the connection, as a network would.
  void Disconnect();
  // As after a restart of its process: ranks and job reports are gone.
  void Restart();

  // The report as it stands; Send() sends it.
  v1::WorkerReport& report() { return report_; }
  void Send();

  // Waits for an assignment that satisfies the predicate. False after 60 s.
  bool WaitFor(const std::function<bool(const v1::WorkerAssignment&)>& ok);
  v1::WorkerAssignment assignment();
  // Waits until the session has ended; its status code.
  grpc::StatusCode WaitForEnd();

  // Waits for a group with a job under at least this attempt, and reports its
  // ranks ready, through the rendezvous. Peers are other workers of the group.
  bool JoinGroup(int64_t attempt, std::vector<FakeWorker*> peers = {});
  // Reports all its ranks of its only group in a phase.
  void SetRanks(v1::RankPhase phase, const std::string& error = "",
                v1::FailureCode code = v1::FAILURE_CODE_UNSPECIFIED);
  // The report on its only job, made when missing.
  v1::JobReport& job();
  // Adds metrics of steps first to last.
  void AddSteps(int64_t first, int64_t last);
  // Puts the blobs of a checkpoint and adds it to the job's report.
  void AddCheckpoint(int64_t step, bool final);
  // Waits until the coordinator has acknowledged it.
  bool WaitForAck(const std::function<bool(const v1::JobAck&)>& ok);

  // Puts a blob, from the offset that the coordinator asks for.
  grpc::Status Put(const std::string& bytes, size_t chunk = 1000);
  absl::StatusOr<std::string> Fetch(const std::string& sha256, int64_t offset = 0);
  v1::WorkerService::Stub& stub() { return *stub_; }
  const std::string& id() const { return report_.worker_id(); }

 private:
  void ReadLoop();

  v1::WorkerReport report_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerReport, v1::WorkerAssignment>> stream_;
  std::thread reader_;
  absl::Mutex mu_;
  v1::WorkerAssignment assignment_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status end_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra::coordinator
