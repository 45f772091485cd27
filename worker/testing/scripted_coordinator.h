// A coordinator for tests of the worker: a real gRPC server on loopback that does
// what the test says, badly where it says so.
#pragma once

#include <grpcpp/server.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tundra/v1/worker.grpc.pb.h"

namespace tundra::worker {

// How long a test waits for what must happen; never how long it takes.
inline constexpr absl::Duration kTestDeadline = absl::Seconds(30);

class ScriptedCoordinator : public tundra::v1::WorkerService::Service {
 public:
  ScriptedCoordinator();
  ~ScriptedCoordinator() override { Stop(); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // Ends every call; Start() serves again on the same port.
  void Stop();
  void Start();

  // Sent to the present session and to those that come.
  void Assign(const tundra::v1::WorkerAssignment& assignment);
  // Ends the present session with ABORTED.
  void EndSession();
  // Waits for a report that satisfies the predicate. False after kTestDeadline.
  bool WaitForReport(const std::function<bool(const tundra::v1::WorkerReport&)>& ok);
  tundra::v1::WorkerReport report();
  // Sessions so far.
  int sessions();
  bool WaitForSessions(int count);

  // Waits for what `ok` says about the fields below, which it may read.
  bool WaitFor(const std::function<bool()>& ok);
  absl::Mutex mu;
  // Served by FetchBlob and filled by PutBlob, by hash.
  std::map<std::string, std::string> blobs;
  // Requests to FetchBlob so far: their offsets.
  std::vector<int64_t> fetches;
  // Chunks that DeliverGeneration took.
  std::vector<tundra::v1::GenerationChunk> chunks;

  // What goes wrong; set before the calls begin.
  // FetchBlob breaks the stream once it has sent so many bytes; each use takes one.
  std::vector<size_t> break_after;
  // FetchBlob, PutBlob or DeliverGeneration never reads, writes or ends.
  bool stuck = false;
  // Session never reads a report.
  bool deaf = false;
  // PutBlob answers with this.
  grpc::Status put_status;

 private:
  grpc::Status Session(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<tundra::v1::WorkerAssignment,
                                                tundra::v1::WorkerReport>* stream) override;
  grpc::Status FetchBlob(grpc::ServerContext* context, const tundra::v1::FetchBlobRequest* request,
                         grpc::ServerWriter<tundra::v1::FetchBlobResponse>* writer) override;
  grpc::Status GetBlobUpload(grpc::ServerContext* context,
                             const tundra::v1::GetBlobUploadRequest* request,
                             tundra::v1::GetBlobUploadResponse* response) override;
  grpc::Status PutBlob(grpc::ServerContext* context,
                       grpc::ServerReader<tundra::v1::PutBlobRequest>* reader,
                       tundra::v1::PutBlobResponse* response) override;
  grpc::Status DeliverGeneration(grpc::ServerContext* context,
                                 grpc::ServerReader<tundra::v1::GenerationChunk>* reader,
                                 tundra::v1::GenerationAck* ack) override;
  // Until the caller has gone.
  void Hang(grpc::ServerContext* context);

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  bool stopping_ = false;
  bool end_session_ = false;
  int sessions_ = 0;
  int version_ = 0;
  tundra::v1::WorkerAssignment assignment_;
  std::vector<tundra::v1::WorkerReport> reports_;
};

}  // namespace tundra::worker
