// BaseService and ArtifactService over gRPC.
#include "coordinator/api/call.h"
#include "coordinator/api/catalog.h"
#include "coordinator/api/services.h"
#include "coordinator/api/streams.h"
#include "tundra/v1/artifact.grpc.pb.h"
#include "tundra/v1/base.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using Call = grpc::CallbackServerContext;

class BaseServiceImpl : public v1::BaseService::CallbackService {
 public:
  explicit BaseServiceImpl(const Context* context) : context_(context), catalog_(context) {}

  grpc::ServerUnaryReactor* ListBases(Call* call, const v1::ListBasesRequest* in,
                                      v1::ListBasesResponse* out) override {
    return RunUnary(context_, "ListBases", call, in, out, &catalog_, &Catalog::ListBases);
  }
  grpc::ServerUnaryReactor* GetBase(Call* call, const v1::GetBaseRequest* in,
                                    v1::Base* out) override {
    return RunUnary(context_, "GetBase", call, in, out, &catalog_, &Catalog::GetBase);
  }

 private:
  const Context* const context_;
  Catalog catalog_;
};

class ArtifactServiceImpl : public v1::ArtifactService::CallbackService {
 public:
  explicit ArtifactServiceImpl(const Context* context) : context_(context), catalog_(context) {}

  grpc::ServerUnaryReactor* ListCheckpoints(Call* call, const v1::ListCheckpointsRequest* in,
                                            v1::ListCheckpointsResponse* out) override {
    return RunUnary(context_, "ListCheckpoints", call, in, out, &catalog_,
                    &Catalog::ListCheckpoints);
  }
  grpc::ServerUnaryReactor* ListAdapters(Call* call, const v1::ListAdaptersRequest* in,
                                         v1::ListAdaptersResponse* out) override {
    return RunUnary(context_, "ListAdapters", call, in, out, &catalog_, &Catalog::ListAdapters);
  }
  grpc::ServerWriteReactor<v1::DownloadFileResponse>* DownloadFile(
      Call* call, const v1::DownloadFileRequest* in) override {
    // The request does not outlive this call's reactor, but copies are cheap.
    return std::make_shared<BlobStream<v1::DownloadFileResponse>>(
               context_, "DownloadFile", call,
               [this, request = *in](const Caller& caller) {
                 return catalog_.FindFile(caller, request);
               },
               in->offset())
        ->Begin();
  }

 private:
  const Context* const context_;
  Catalog catalog_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewBaseService(const Context* context) {
  return std::make_unique<BaseServiceImpl>(context);
}

std::unique_ptr<grpc::Service> NewArtifactService(const Context* context) {
  return std::make_unique<ArtifactServiceImpl>(context);
}

}  // namespace tundra::coordinator
