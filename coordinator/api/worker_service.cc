// WorkerService over gRPC: sessions, blobs and generated text of workers.
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/api/call.h"
#include "coordinator/api/services.h"
#include "coordinator/api/streams.h"
#include "tundra/v1/worker.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using Call = grpc::CallbackServerContext;

// The worker that a request names is the one that its caller may speak for.
absl::Status CheckWorker(const Context& context, const Caller& caller, const std::string& worker) {
  const std::optional<std::string> identity = context.fleet->IdentityOf({worker});
  if (identity == caller.identity || (!identity.has_value() && caller.identity.empty())) {
    return absl::OkStatus();
  }
  if (!identity.has_value()) {
    return absl::UnavailableError(
        absl::StrCat("worker ", worker, " has no session yet; try again once it has"));
  }
  return absl::PermissionDeniedError(absl::StrCat(
      "worker ", worker, " has no session of this certificate (", caller.identity, ")"));
}

// A session. Both directions keep only the latest state: a report that comes
// while one is worked on replaces one that waits, an assignment likewise.
class SessionReactor : public grpc::ServerBidiReactor<v1::WorkerReport, v1::WorkerAssignment>,
                       public SessionLink,
                       public std::enable_shared_from_this<SessionReactor> {
 public:
  SessionReactor(const Context* context, Call* call)
      : context_(context),
        timer_(context, "Session"),
        who_(Authorize(*context, *call, "Session")) {}

  grpc::ServerBidiReactor<v1::WorkerReport, v1::WorkerAssignment>* Begin() {
    self_ = shared_from_this();
    absl::MutexLock lock(&mu_);
    if (who_.ok()) {
      StartRead(&incoming_);
    } else {
      FinishOnce(who_.status);
    }
    return this;
  }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    if (!ok) {
      FinishOnce(absl::OkStatus());
      return;
    }
    waiting_ = std::move(incoming_);
    incoming_.Clear();
    MaybeWork();
    if (!finished_) StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (!ok) {
      FinishOnce(absl::CancelledError("the worker has gone"));
    } else {
      MaybeWrite();
    }
  }
  void OnCancel() override {
    absl::MutexLock lock(&mu_);
    FinishOnce(absl::CancelledError("the worker has gone"));
  }
  void OnDone() override {
    auto self = std::move(self_);
    // After the report that may be worked on.
    absl::MutexLock lock(&mu_);
    gone_ = true;
    MaybeWork();
  }

  void Send(const v1::WorkerAssignment& assignment) override {
    absl::MutexLock lock(&mu_);
    next_ = assignment;
    MaybeWrite();
  }
  void End(const absl::Status& status) override {
    absl::MutexLock lock(&mu_);
    FinishOnce(status);
  }
  bool Ended() const override {
    absl::MutexLock lock(&mu_);
    return finished_;
  }

 private:
  void MaybeWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (working_ || (!waiting_.has_value() && !gone_)) return;
    working_ = true;
    auto self = shared_from_this();
    if (!context_->session_executor->Run([self] { self->Work(); })) working_ = false;
  }

  void Work() {
    for (;;) {
      std::optional<v1::WorkerReport> report;
      {
        absl::MutexLock lock(&mu_);
        report.swap(waiting_);
        if (!report.has_value()) {
          working_ = false;
          if (!gone_) return;
        }
      }
      if (!report.has_value()) {
        context_->ingest->Leave(this);
        return;
      }
      const absl::Status status = Take(*report);
      if (!status.ok()) {
        LogWarning("session: {}", std::string(status.message()));
        End(status);
      }
    }
  }

  absl::Status Take(const v1::WorkerReport& report) {
    // A session may last for months: its certificate, or the authority behind it, need not.
    RETURN_IF_ERROR(context_->authenticator->Recheck(who_.caller));
    if (worker_.empty()) worker_ = report.worker_id();
    if (report.worker_id() != worker_) {
      return absl::InvalidArgumentError("a session is of one worker");
    }
    return context_->ingest->Take(shared_from_this(), who_.caller.identity, report);
  }

  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_ || writing_ || !next_.has_value()) return;
    writing_ = true;
    outgoing_ = *std::move(next_);
    next_.reset();
    StartWrite(&outgoing_);
  }

  void FinishOnce(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    finished_ = true;
    const grpc::Status out = ToGrpc(status);
    timer_.Done(out);
    Finish(out);
  }

  const Context* const context_;
  const CallTimer timer_;
  const Authorization who_;
  std::shared_ptr<SessionReactor> self_;
  // The worker's id, from its first report. Used by the one piece of work at a time.
  std::string worker_;
  v1::WorkerReport incoming_;
  v1::WorkerAssignment outgoing_;
  mutable absl::Mutex mu_;
  std::optional<v1::WorkerReport> waiting_ ABSL_GUARDED_BY(mu_);
  std::optional<v1::WorkerAssignment> next_ ABSL_GUARDED_BY(mu_);
  bool working_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool gone_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

class PutReactor : public UploadReactor<v1::PutBlobRequest, v1::PutBlobResponse> {
 public:
  PutReactor(const Context* context, Call* call, v1::PutBlobResponse* response)
      : UploadReactor(context, "PutBlob", call, response) {}

 protected:
  absl::Status OnMessage(const v1::PutBlobRequest& request) override {
    if (request.has_header()) return OnHeader(request.header());
    switch (way_) {
      case Way::kNone:
        return absl::InvalidArgumentError("no header");
      case Way::kWrite:
        return writer_->Append(request.chunk());
      case Way::kCompare:
        hash_.Update(request.chunk());
        return absl::OkStatus();
      case Way::kPass:
        return absl::OkStatus();
    }
    return absl::InternalError("an upload of no kind");
  }

  absl::Status OnEnd(v1::PutBlobResponse*) override {
    if (way_ == Way::kNone) return absl::InvalidArgumentError("no header");
    if (way_ == Way::kWrite) RETURN_IF_ERROR(writer_->Commit());
    if (way_ == Way::kCompare && hash_.Finish() != blob_.value) {
      return absl::DataLossError(
          absl::StrCat("the bytes do not hash to ", blob_.value, "; send them from the start"));
    }
    return context()->ingest->BlobArrived(worker_, blob_);
  }

 private:
  // What becomes of the bytes: they are kept; they are compared with the name, because the blob is
  // here and the worker has yet to show that it has it, too; they are let pass by, because it has.
  enum class Way { kNone, kWrite, kCompare, kPass };

  absl::Status OnHeader(const v1::PutBlobRequest::Header& header) {
    if (way_ != Way::kNone) return absl::InvalidArgumentError("header came twice");
    RETURN_IF_ERROR(CheckWorker(*context(), caller(), header.worker_id()));
    worker_.value = header.worker_id();
    blob_.value = header.sha256();
    if (!context()->blobs->Size(blob_).ok()) {
      ASSIGN_OR_RETURN(writer_, context()->blobs->Resume(worker_.value, blob_, header.size_bytes(),
                                                         header.offset()));
      way_ = Way::kWrite;
    } else {
      way_ = context()->ingest->HasDelivered(worker_, blob_) ? Way::kPass : Way::kCompare;
    }
    return absl::OkStatus();
  }

  Way way_ = Way::kNone;
  WorkerId worker_;
  BlobId blob_;
  std::unique_ptr<BlobWriter> writer_;
  Sha256 hash_;
};

class DeliverReactor : public grpc::ServerReadReactor<v1::GenerationChunk>,
                       public std::enable_shared_from_this<DeliverReactor> {
 public:
  DeliverReactor(const Context* context, Call* call)
      : context_(context),
        timer_(context, "DeliverGeneration"),
        who_(Authorize(*context, *call, "DeliverGeneration")) {}

  grpc::ServerReadReactor<v1::GenerationChunk>* Begin() {
    self_ = shared_from_this();
    if (who_.ok()) {
      StartRead(&chunk_);
    } else {
      End(who_.status);
    }
    return this;
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(absl::OkStatus());
    if (const absl::Status still = context_->authenticator->Recheck(who_.caller); !still.ok()) {
      return End(still);
    }
    if (task_.empty()) {
      const absl::Status own = CheckWorker(*context_, who_.caller, chunk_.worker_id());
      if (!own.ok()) return End(own);
      const absl::Status status = context_->relay->Attach(chunk_.task_id(), {chunk_.worker_id()},
                                                          [weak = weak_from_this()] {
                                                            if (const auto self = weak.lock())
                                                              self->OnRoom();
                                                          });
      if (!status.ok()) return End(status);
      task_ = chunk_.task_id();
    } else if (chunk_.task_id() != task_) {
      return End(absl::InvalidArgumentError("one stream delivers one task"));
    }
    const bool last = !chunk_.finish_reason().empty() || chunk_.error_code() != 0;
    const absl::StatusOr<bool> room = context_->relay->Push(chunk_);
    // Ends here, before the reader's going could look like a cancellation.
    if (last && room.ok()) return End(absl::OkStatus());
    Continue(room);
  }
  void OnCancel() override { End(absl::CancelledError("cancelled")); }
  void OnDone() override {
    if (!task_.empty()) context_->relay->Detach(task_);
    self_.reset();
  }

 private:
  // The client took some, or has gone.
  void OnRoom() {
    absl::MutexLock lock(&mu_);
    if (!stalled_) return Watch(context_->relay->HasRoom(task_));
    stalled_ = false;
    Go(context_->relay->HasRoom(task_));
  }

  void Continue(const absl::StatusOr<bool>& room) {
    absl::MutexLock lock(&mu_);
    Go(room);
  }

  void Go(const absl::StatusOr<bool>& room) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    if (room.ok() && !*room) {
      // Looks again, lest the room that came just now was told to nobody.
      stalled_ = true;
      const absl::StatusOr<bool> now = context_->relay->HasRoom(task_);
      if (now.ok() && !*now) return;
      stalled_ = false;
      if (!now.ok()) return FinishOnce(now.status());
    }
    if (!room.ok()) return FinishOnce(room.status());
    StartRead(&chunk_);
  }

  void Watch(const absl::StatusOr<bool>& room) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!room.ok()) FinishOnce(room.status());
  }

  void End(const absl::Status& status) {
    absl::MutexLock lock(&mu_);
    FinishOnce(status);
  }

  void FinishOnce(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    finished_ = true;
    const grpc::Status out = ToGrpc(status);
    timer_.Done(out);
    Finish(out);
  }

  const Context* const context_;
  const CallTimer timer_;
  const Authorization who_;
  std::shared_ptr<DeliverReactor> self_;
  v1::GenerationChunk chunk_;
  std::string task_;
  absl::Mutex mu_;
  bool stalled_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

class WorkerServiceImpl : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerServiceImpl(const Context* context) : context_(context) {}

  grpc::ServerBidiReactor<v1::WorkerReport, v1::WorkerAssignment>* Session(Call* call) override {
    return std::make_shared<SessionReactor>(context_, call)->Begin();
  }
  grpc::ServerWriteReactor<v1::FetchBlobResponse>* FetchBlob(
      Call* call, const v1::FetchBlobRequest* in) override {
    const auto find = [this, request = *in](const Caller& caller) -> absl::StatusOr<BlobId> {
      RETURN_IF_ERROR(CheckWorker(*context_, caller, request.worker_id()));
      if (!context_->fleet->MayFetch({request.worker_id()}, request.sha256())) {
        return absl::NotFoundError(
            absl::StrCat("no blob ", request.sha256(), " is assigned to this worker"));
      }
      return BlobId{request.sha256()};
    };
    return std::make_shared<BlobStream<v1::FetchBlobResponse>>(context_, "FetchBlob", call, find,
                                                               in->offset())
        ->Begin();
  }
  grpc::ServerUnaryReactor* GetBlobUpload(Call* call, const v1::GetBlobUploadRequest* in,
                                          v1::GetBlobUploadResponse* out) override {
    return RunUnary(context_, "GetBlobUpload", call, in, out, this, &WorkerServiceImpl::Upload);
  }
  grpc::ServerReadReactor<v1::PutBlobRequest>* PutBlob(Call* call,
                                                       v1::PutBlobResponse* out) override {
    return std::make_shared<PutReactor>(context_, call, out)->Begin();
  }
  grpc::ServerReadReactor<v1::GenerationChunk>* DeliverGeneration(Call* call,
                                                                  v1::GenerationAck*) override {
    return std::make_shared<DeliverReactor>(context_, call)->Begin();
  }

 private:
  absl::StatusOr<v1::GetBlobUploadResponse> Upload(const Caller& caller,
                                                   const v1::GetBlobUploadRequest& request) {
    RETURN_IF_ERROR(CheckWorker(*context_, caller, request.worker_id()));
    const BlobId blob{request.sha256()};
    v1::GetBlobUploadResponse response;
    const WorkerId worker{request.worker_id()};
    const absl::Status here = context_->blobs->Size(blob).status();
    if (here.ok()) {
      // To a worker that has not sent it, it is not here: that it is there is not its business.
      if (!context_->ingest->HasDelivered(worker, blob)) return response;
      // Starts its grace period anew: the worker will not send it again.
      RETURN_IF_ERROR(context_->ingest->BlobArrived(worker, blob));
      response.set_complete(true);
      return response;
    }
    if (!absl::IsNotFound(here)) return here;
    ASSIGN_OR_RETURN(const int64_t received, context_->blobs->ReceivedBytes(worker.value, blob));
    response.set_received_bytes(received);
    return response;
  }

  const Context* const context_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewWorkerService(const Context* context) {
  return std::make_unique<WorkerServiceImpl>(context);
}

}  // namespace tundra::coordinator
