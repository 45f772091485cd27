// How a unary handler runs: authorized first, off gRPC's threads, on a bounded executor,
// observed.
// Only the files of services include this: it pulls in gRPC.
#pragma once

#include <grpcpp/grpcpp.h>

#include <type_traits>

#include "absl/status/statusor.h"
#include "common/interrupt.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/context.h"
#include "coordinator/api/credentials.h"
#include "coordinator/api/datasets.h"
#include "coordinator/api/errors.h"

namespace tundra::coordinator {

// Times one call.
class CallTimer {
 public:
  CallTimer(const Context* context, std::string_view method)
      : context_(context), method_(method), start_(context->clock->Monotonic()) {}
  void Done(const grpc::Status& status) const {
    if (context_->observer == nullptr) return;
    context_->observer->OnRpc(method_, status.error_code(), context_->clock->Monotonic() - start_);
  }

 private:
  const Context* context_;
  std::string_view method_;
  absl::Duration start_;
};

inline absl::Status Busy() {
  return absl::UnavailableError("the coordinator is busy or stops; try again in a moment");
}

// Who makes a call, or why they may not. Every reactor of every service begins with this.
inline Authorization Authorize(const Context& context, const grpc::ServerContextBase& call,
                               std::string_view method) {
  return context.authenticator->Authorize(CredentialsOf(call), method);
}

// fn(), whose long work is given up when the client has gone or the server stops. The call must
// not be finished before it returns.
template <typename Fn>
auto RunForCaller(grpc::CallbackServerContext* call, Fn& fn) {
  const InterruptScope scope([call] { return call->IsCancelled(); });
  return fn();
}

// Answers with object->fn(caller, *request): absl::StatusOr<Response>, or absl::Status for an
// empty response. The request and *response live until the call is finished. Runs on
// context->executor. Long work in fn is given up (common/interrupt.h) when the client has gone.
template <typename Request, typename Response, typename Object, typename Result>
grpc::ServerUnaryReactor* RunUnary(const Context* context, std::string_view method,
                                   grpc::CallbackServerContext* call, const Request* request,
                                   Response* response, Object* object,
                                   Result (Object::*fn)(const Caller&, const Request&)) {
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  const CallTimer timer(context, method);
  const Authorization who = Authorize(*context, *call, method);
  const auto finish = [=](const absl::Status& status) {
    if (!status.ok()) RecordRefusal(*context, who.caller, *request, status);
    const grpc::Status out = ToGrpc(status);
    timer.Done(out);
    reactor->Finish(out);
  };
  if (!who.ok()) {
    finish(who.status);
    return reactor;
  }
  const bool queued = context->executor->TryRun([=] {
    const auto bound = [&] { return (object->*fn)(who.caller, *request); };
    auto result = RunForCaller(call, bound);
    if constexpr (std::is_same_v<Result, absl::Status>) {
      finish(result);
    } else {
      if (result.ok()) *response = *std::move(result);
      finish(result.status());
    }
  });
  if (!queued) finish(Busy());
  return reactor;
}

// As RunUnary, for fn(caller, request, may_validate): first with false on context->executor, and
// when that answers with an error that NeedsValidation() knows, with true where it may take its
// time.
template <typename Request, typename Response, typename Object>
grpc::ServerUnaryReactor* RunMaybeValidating(
    const Context* context, std::string_view method, grpc::CallbackServerContext* call,
    const Request* request, Response* response, Object* object,
    absl::StatusOr<Response> (Object::*fn)(const Caller&, const Request&, bool)) {
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  const CallTimer timer(context, method);
  const Authorization who = Authorize(*context, *call, method);
  const auto finish = [=](absl::StatusOr<Response> result) {
    if (result.ok()) *response = *std::move(result);
    if (!result.ok()) RecordRefusal(*context, who.caller, *request, result.status());
    const grpc::Status status = ToGrpc(result.status());
    timer.Done(status);
    reactor->Finish(status);
  };
  if (!who.ok()) {
    finish(who.status);
    return reactor;
  }
  const auto run = [=](bool may_validate) {
    const auto bound = [&] { return (object->*fn)(who.caller, *request, may_validate); };
    return RunForCaller(call, bound);
  };
  const bool queued = context->executor->TryRun([=] {
    absl::StatusOr<Response> result = run(/*may_validate=*/false);
    if (!NeedsValidation(result.status())) return finish(std::move(result));
    const auto validate = [=] { finish(run(/*may_validate=*/true)); };
    if (!context->validation_executor->TryRun(validate)) finish(Busy());
  });
  if (!queued) finish(Busy());
  return reactor;
}

}  // namespace tundra::coordinator
