// FleetService over gRPC.
#include "common/status.h"
#include "coordinator/api/call.h"
#include "coordinator/api/names.h"
#include "coordinator/api/services.h"
#include "tundra/v1/fleet.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using Call = grpc::CallbackServerContext;

// Adds the page of `all` that the request asks for through add(item); the next page's token.
template <typename Request, typename Item, typename Add>
absl::StatusOr<std::string> Page(const Request& request, std::string_view list,
                                 const std::vector<Item>& all, Add add) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 100, 1000));
  ASSIGN_OR_RETURN(const int64_t start, ParsePageToken(request.page_token(), list, "", 0));
  size_t at = static_cast<size_t>(start);
  for (int32_t n = 0; at < all.size() && n < size; ++n) add(all[at++]);
  return at < all.size() ? MakePageToken(list, "", static_cast<int64_t>(at)) : "";
}

class FleetServiceImpl : public v1::FleetService::CallbackService {
 public:
  explicit FleetServiceImpl(const Context* context) : context_(context) {}

  grpc::ServerUnaryReactor* ListWorkers(Call* call, const v1::ListWorkersRequest* in,
                                        v1::ListWorkersResponse* out) override {
    return RunUnary(context_, "ListWorkers", call, out,
                    [this, in]() -> absl::StatusOr<v1::ListWorkersResponse> {
                      v1::ListWorkersResponse response;
                      ASSIGN_OR_RETURN(
                          *response.mutable_next_page_token(),
                          Page(*in, "workers", context_->fleet->ListWorkers(),
                               [&](const v1::Worker& w) { *response.add_workers() = w; }));
                      return response;
                    });
  }
  grpc::ServerUnaryReactor* ListGroups(Call* call, const v1::ListGroupsRequest* in,
                                       v1::ListGroupsResponse* out) override {
    return RunUnary(
        context_, "ListGroups", call, out, [this, in]() -> absl::StatusOr<v1::ListGroupsResponse> {
          v1::ListGroupsResponse response;
          ASSIGN_OR_RETURN(*response.mutable_next_page_token(),
                           Page(*in, "groups", context_->fleet->ListGroups(),
                                [&](const v1::Group& g) { *response.add_groups() = g; }));
          return response;
        });
  }

 private:
  const Context* const context_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewFleetService(const Context* context) {
  return std::make_unique<FleetServiceImpl>(context);
}

}  // namespace tundra::coordinator
