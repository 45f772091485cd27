#include "worker/testing/scripted_coordinator.h"

#include <grpcpp/server_builder.h>

#include <chrono>
#include <thread>

#include "common/check.h"

namespace tundra::worker {

ScriptedCoordinator::ScriptedCoordinator() { Start(); }

void ScriptedCoordinator::Start() {
  {
    absl::MutexLock lock(&mu);
    stopping_ = false;
  }
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address(), grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  TUNDRA_CHECK(server_ != nullptr && port_ > 0);
}

void ScriptedCoordinator::Stop() {
  {
    absl::MutexLock lock(&mu);
    stopping_ = true;
  }
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
}

void ScriptedCoordinator::Assign(const tundra::v1::WorkerAssignment& assignment) {
  absl::MutexLock lock(&mu);
  assignment_ = assignment;
  ++version_;
}

void ScriptedCoordinator::EndSession() {
  absl::MutexLock lock(&mu);
  end_session_ = true;
}

bool ScriptedCoordinator::WaitFor(const std::function<bool()>& ok) {
  absl::MutexLock lock(&mu);
  return mu.AwaitWithTimeout(absl::Condition(&ok), kTestDeadline);
}

bool ScriptedCoordinator::WaitForReport(
    const std::function<bool(const tundra::v1::WorkerReport&)>& ok) {
  size_t seen = 0;
  return WaitFor([&] {
    for (; seen < reports_.size(); ++seen) {
      if (ok(reports_[seen])) return true;
    }
    return false;
  });
}

tundra::v1::WorkerReport ScriptedCoordinator::report() {
  absl::MutexLock lock(&mu);
  return reports_.empty() ? tundra::v1::WorkerReport() : reports_.back();
}

int ScriptedCoordinator::sessions() {
  absl::MutexLock lock(&mu);
  return sessions_;
}

bool ScriptedCoordinator::WaitForSessions(int count) {
  return WaitFor([&] { return sessions_ >= count; });
}

void ScriptedCoordinator::Hang(grpc::ServerContext* context) {
  // A sync handler is not told of a cancelled call: it has to look.
  while (!context->IsCancelled()) {
    absl::MutexLock lock(&mu);
    if (mu.AwaitWithTimeout(absl::Condition(&stopping_), absl::Milliseconds(5))) return;
  }
}

grpc::Status ScriptedCoordinator::Session(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<tundra::v1::WorkerAssignment, tundra::v1::WorkerReport>* stream) {
  {
    absl::MutexLock lock(&mu);
    ++sessions_;
  }
  if (deaf) {
    Hang(context);
    return grpc::Status::OK;
  }
  bool ended = false;
  bool aborted = false;
  std::thread writer([&] {
    int sent = 0;
    while (true) {
      tundra::v1::WorkerAssignment next;
      {
        absl::MutexLock lock(&mu);
        const auto wake = [&] { return ended || stopping_ || end_session_ || sent != version_; };
        mu.Await(absl::Condition(&wake));
        if (end_session_) aborted = true;
        end_session_ = false;
        if (ended || stopping_ || aborted) break;
        sent = version_;
        next = assignment_;
      }
      if (!stream->Write(next)) break;
    }
    if (aborted) context->TryCancel();
  });
  tundra::v1::WorkerReport report;
  while (stream->Read(&report)) {
    absl::MutexLock lock(&mu);
    reports_.push_back(report);
  }
  {
    absl::MutexLock lock(&mu);
    ended = true;
  }
  writer.join();
  return aborted ? grpc::Status(grpc::StatusCode::ABORTED, "another session") : grpc::Status::OK;
}

grpc::Status ScriptedCoordinator::FetchBlob(
    grpc::ServerContext* context, const tundra::v1::FetchBlobRequest* request,
    grpc::ServerWriter<tundra::v1::FetchBlobResponse>* writer) {
  std::string bytes;
  size_t limit = std::string::npos;
  {
    absl::MutexLock lock(&mu);
    fetches.push_back(request->offset());
    const auto it = blobs.find(request->sha256());
    if (it == blobs.end()) return {grpc::StatusCode::NOT_FOUND, "no such blob"};
    bytes = it->second.substr(std::min(it->second.size(), static_cast<size_t>(request->offset())));
    if (!break_after.empty()) {
      limit = break_after.front();
      break_after.erase(break_after.begin());
    }
  }
  if (stuck) {
    Hang(context);
    return grpc::Status::CANCELLED;
  }
  tundra::v1::FetchBlobResponse response;
  response.set_chunk(bytes.substr(0, limit));
  writer->Write(response);
  if (limit < bytes.size()) return {grpc::StatusCode::UNAVAILABLE, "broken on purpose"};
  return grpc::Status::OK;
}

grpc::Status ScriptedCoordinator::GetBlobUpload(grpc::ServerContext*,
                                                const tundra::v1::GetBlobUploadRequest* request,
                                                tundra::v1::GetBlobUploadResponse* response) {
  absl::MutexLock lock(&mu);
  response->set_complete(blobs.contains(request->sha256()));
  return grpc::Status::OK;
}

grpc::Status ScriptedCoordinator::PutBlob(grpc::ServerContext* context,
                                          grpc::ServerReader<tundra::v1::PutBlobRequest>* reader,
                                          tundra::v1::PutBlobResponse*) {
  if (stuck) {
    Hang(context);
    return grpc::Status::CANCELLED;
  }
  tundra::v1::PutBlobRequest request;
  std::string sha256, bytes;
  while (reader->Read(&request)) {
    if (request.has_header()) sha256 = request.header().sha256();
    bytes += request.chunk();
  }
  absl::MutexLock lock(&mu);
  if (put_status.ok()) blobs[sha256] = bytes;
  return put_status;
}

grpc::Status ScriptedCoordinator::DeliverGeneration(
    grpc::ServerContext* context, grpc::ServerReader<tundra::v1::GenerationChunk>* reader,
    tundra::v1::GenerationAck*) {
  if (stuck) {
    Hang(context);
    return grpc::Status::CANCELLED;
  }
  tundra::v1::GenerationChunk chunk;
  while (reader->Read(&chunk)) {
    absl::MutexLock lock(&mu);
    chunks.push_back(chunk);
  }
  return grpc::Status::OK;
}

}  // namespace tundra::worker
