#include "coordinator/api/workers.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/names.h"
#include "coordinator/api/own.h"
#include "coordinator/workers/drained.h"

namespace tundra::coordinator {
namespace {

// Hands the page of `all` that the request asks for to add(item); the next page's token.
template <typename Request, typename Item, typename Add>
absl::StatusOr<std::string> Page(const PageTokens& tokens, const Request& request,
                                 std::string_view list, const std::vector<Item>& all, Add add) {
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 100, 1000));
  ASSIGN_OR_RETURN(const int64_t start, tokens.Parse(request.page_token(), list, "", 0));
  auto at = static_cast<size_t>(start);
  for (int32_t n = 0; at < all.size() && n < size; ++n) add(all[at++]);
  return at < all.size() ? tokens.Make(list, "", static_cast<int64_t>(at)) : std::string();
}

}  // namespace

absl::StatusOr<v1::ListWorkersResponse> Workers::List(const Caller&,
                                                      const v1::ListWorkersRequest& request) {
  v1::ListWorkersResponse response;
  ASSIGN_OR_RETURN(*response.mutable_next_page_token(),
                   Page(*context_->page_tokens, request, "workers", context_->fleet->ListWorkers(),
                        [&](const v1::Worker& worker) { *response.add_workers() = worker; }));
  return response;
}

absl::StatusOr<v1::ListGroupsResponse> Workers::ListGroups(const Caller& caller,
                                                           const v1::ListGroupsRequest& request) {
  v1::ListGroupsResponse response;
  ASSIGN_OR_RETURN(*response.mutable_next_page_token(),
                   Page(*context_->page_tokens, request, "groups", context_->fleet->ListGroups(),
                        [&](const v1::Group& group) { *response.add_groups() = group; }));
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    for (v1::Group& group : *response.mutable_groups()) {
      if (group.job().empty()) continue;
      ASSIGN_OR_RETURN(const std::string id, ParseName(group.job(), "jobs", "job"));
      const absl::Status seen = GetOwnJob(txn, caller, {id}).status();
      if (absl::IsNotFound(seen)) {
        group.clear_job();
      } else {
        RETURN_IF_ERROR(seen);
      }
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<v1::Worker> Workers::Drain(const Caller& caller,
                                          const v1::DrainWorkerRequest& request) {
  return SetDrained(caller, request.name(), true);
}

absl::StatusOr<v1::Worker> Workers::Undrain(const Caller& caller,
                                            const v1::UndrainWorkerRequest& request) {
  return SetDrained(caller, request.name(), false);
}

absl::StatusOr<v1::Worker> Workers::SetDrained(const Caller& caller, const std::string& name,
                                               bool drained) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(name, "workers", "name"));
  RETURN_IF_ERROR(WriteAudited(*context_, caller, [&](Txn& txn) -> absl::StatusOr<std::string> {
    bool known = false;
    ASSIGN_OR_RETURN(const std::vector<WorkerRecord> workers, txn.ListWorkers());
    for (WorkerRecord record : workers) {
      if (record.id.value == id) {
        known = true;
        record.drained = drained;
        RETURN_IF_ERROR(txn.PutWorker(record));
      }
    }
    if (!known) {
      return absl::NotFoundError(
          absl::StrCat("there is no worker ", name, "; `tundra admin workers` lists them"));
    }
    return name;
  }));
  RETURN_IF_ERROR(LoadDrained(*context_->store, *context_->fleet));
  context_->controller->Kick();
  for (const v1::Worker& worker : context_->fleet->ListWorkers()) {
    if (worker.name() == name) return worker;
  }
  v1::Worker away;
  away.set_name(name);
  away.set_state(v1::AWAY);
  away.set_drained(drained);
  return away;
}

}  // namespace tundra::coordinator
