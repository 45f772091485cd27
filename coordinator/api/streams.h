// The two kinds of byte streams, once for all services: uploads (a client's
// stream of messages, each handled in order on an executor) and downloads of a
// blob in chunks.
//
// Life of a reactor of gRPC's callback API: it owns itself until OnDone, which
// comes after Finish and after all other reactions; work on executors holds it
// too. Start… and Finish are called under a lock that `finished_` goes with, since
// nothing may be started after Finish.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "coordinator/api/call.h"

namespace tundra::coordinator {

inline constexpr int64_t kChunkBytes = int64_t{1} << 20;

template <typename Request, typename Response>
class UploadReactor : public grpc::ServerReadReactor<Request>,
                      public std::enable_shared_from_this<UploadReactor<Request, Response>> {
 public:
  UploadReactor(const Context* context, std::string_view method, grpc::CallbackServerContext* call,
                Response* response)
      : context_(context),
        call_(call),
        response_(response),
        timer_(context, method),
        who_(Authorize(*context, *call, method)) {}

  // Call once, on a shared_ptr.
  grpc::ServerReadReactor<Request>* Begin() {
    self_ = this->shared_from_this();
    absl::MutexLock lock(&mu_);
    if (who_.ok()) {
      this->StartRead(&request_);
    } else {
      FinishOnce(who_.status);
    }
    return this;
  }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    // After OnCancel has finished the call, the call's memory may go at any time.
    if (finished_) return;
    working_ = true;
    auto self = this->shared_from_this();
    if (context_->blob_executor->Run([self, ok] { self->Handle(ok); })) return;
    working_ = false;
    FinishOnce(Busy());
  }
  // Work under way uses the call's memory, which lives until Finish: it finishes.
  void OnCancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    if (!working_) FinishOnce(absl::CancelledError("cancelled"));
  }
  void OnDone() override { self_.reset(); }

 protected:
  // On an executor thread, in order.
  virtual absl::Status OnMessage(const Request& request) = 0;
  // All messages have come. Fills the response.
  virtual absl::Status OnEnd(Response* response) = 0;
  const Context* context() const { return context_; }
  const Caller& caller() const { return who_.caller; }

 private:
  void Handle(bool ok) {
    absl::Status status = context_->authenticator->Recheck(who_.caller);
    if (!status.ok()) {
      ok = false;
    } else if (ok) {
      status = OnMessage(request_);
    } else if (call_->IsCancelled()) {
      status = absl::CancelledError("cancelled");  // a broken stream is no end
    } else {
      status = OnEnd(response_);
    }
    absl::MutexLock lock(&mu_);
    working_ = false;
    if (cancelled_) status.Update(absl::CancelledError("cancelled"));
    if (!ok || !status.ok()) {
      FinishOnce(status);
    } else if (!finished_) {
      this->StartRead(&request_);
    }
  }

  void FinishOnce(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    finished_ = true;
    RecordRefusal(*context_, who_.caller, /*resource=*/"", status);
    const grpc::Status out = ToGrpc(status);
    timer_.Done(out);
    this->Finish(out);
  }

  const Context* const context_;
  grpc::CallbackServerContext* const call_;
  Response* const response_;
  const CallTimer timer_;
  const Authorization who_;
  std::shared_ptr<UploadReactor> self_;
  Request request_;
  absl::Mutex mu_;
  bool working_ ABSL_GUARDED_BY(mu_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

// Response has `bytes chunk`.
template <typename Response>
class BlobStream : public grpc::ServerWriteReactor<Response>,
                   public std::enable_shared_from_this<BlobStream<Response>> {
 public:
  // `find` names the blob for the caller; it runs on an executor thread.
  BlobStream(const Context* context, std::string_view method, grpc::CallbackServerContext* call,
             std::function<absl::StatusOr<BlobId>(const Caller&)> find, int64_t offset)
      : context_(context),
        timer_(context, method),
        who_(Authorize(*context, *call, method)),
        find_(std::move(find)),
        offset_(offset) {}

  grpc::ServerWriteReactor<Response>* Begin() {
    self_ = this->shared_from_this();
    if (who_.ok()) {
      Queue();
    } else {
      FinishOnce(who_.status);
    }
    return this;
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      Queue();
    } else {
      FinishOnce(absl::CancelledError("cancelled"));
    }
  }
  void OnCancel() override { FinishOnce(absl::CancelledError("cancelled")); }
  void OnDone() override { self_.reset(); }

 private:
  void Queue() {
    auto self = this->shared_from_this();
    if (!context_->blob_executor->Run([self] { self->Next(); })) FinishOnce(Busy());
  }

  void Next() {
    if (find_) {
      absl::StatusOr<BlobId> found = find_(who_.caller);
      find_ = nullptr;
      if (!found.ok()) return FinishOnce(found.status());
      blob_ = *std::move(found);
    }
    if (const absl::Status still = context_->authenticator->Recheck(who_.caller); !still.ok()) {
      return FinishOnce(still);
    }
    absl::StatusOr<std::string> chunk = context_->blobs->Read(blob_, offset_, kChunkBytes);
    if (!chunk.ok()) return FinishOnce(chunk.status());
    if (chunk->empty()) return FinishOnce(absl::OkStatus());
    offset_ += static_cast<int64_t>(chunk->size());
    response_.set_chunk(*std::move(chunk));
    absl::MutexLock lock(&mu_);
    if (!finished_) this->StartWrite(&response_);
  }

  void FinishOnce(const absl::Status& status) {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    finished_ = true;
    const grpc::Status out = ToGrpc(status);
    timer_.Done(out);
    this->Finish(out);
  }

  const Context* const context_;
  const CallTimer timer_;
  const Authorization who_;
  std::function<absl::StatusOr<BlobId>(const Caller&)> find_;
  int64_t offset_;
  BlobId blob_;
  std::shared_ptr<BlobStream> self_;
  Response response_;
  absl::Mutex mu_;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tundra::coordinator
