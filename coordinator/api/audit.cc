#include "coordinator/api/audit.h"

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status.h"

namespace tundra::coordinator {
namespace {

constexpr size_t kMostMessageBytes = 1000;
constexpr size_t kMostResourceBytes = 200;

v1::AuditEntry EntryOf(const Context& context, const Caller& caller, const std::string& resource,
                       const absl::Status& status) {
  v1::AuditEntry entry;
  *entry.mutable_time() = ToProto(context.clock->Now());
  entry.set_actor(caller.actor);
  entry.set_tenant(absl::StrCat("tenants/", caller.tenant.value));
  entry.set_role(caller.role);
  entry.set_peer(caller.peer);
  entry.set_method(caller.method);
  entry.set_resource(resource.substr(0, kMostResourceBytes));
  entry.set_code(static_cast<int32_t>(status.code()));
  if (!status.ok()) {
    entry.set_message(std::string(status.message().substr(0, kMostMessageBytes)));
  }
  return entry;
}

void Log(const v1::AuditEntry& entry) {
  LogInfo("audit: {} of {} from {}: {} {} -> {}", entry.actor(), entry.tenant(), entry.peer(),
          entry.method(), entry.resource(),
          absl::StatusCodeToString(static_cast<absl::StatusCode>(entry.code())));
}

// The value of a text field of the request; empty when it has none.
std::string Field(const google::protobuf::Message& request, const std::string& name) {
  const google::protobuf::FieldDescriptor* const field =
      request.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr || field->is_repeated() ||
      field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
    return "";
  }
  return request.GetReflection()->GetString(request, field);
}

}  // namespace

absl::Status WriteAudited(const Context& context, const Caller& caller,
                          const std::function<absl::StatusOr<std::string>(Txn&)>& fn) {
  v1::AuditEntry entry;
  RETURN_IF_ERROR(context.store->Write([&](Txn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::string resource, fn(txn));
    entry = EntryOf(context, caller, resource, absl::OkStatus());
    return txn.AppendAudit(entry);
  }));
  Log(entry);
  return absl::OkStatus();
}

void RecordRefusal(const Context& context, const Caller& caller, const std::string& resource,
                   const absl::Status& status) {
  if (status.ok() || caller.actor.empty()) return;
  const MethodPolicy* const policy = PolicyOf(caller.method);
  if (policy == nullptr || !policy->mutates) return;
  v1::AuditEntry entry = EntryOf(context, caller, resource, status);
  Log(entry);
  // When the queue is full, the line in the log has to do.
  context.executor->TryRun([store = context.store, entry]() mutable {
    const absl::Status stored = store->Write([&](Txn& txn) { return txn.AppendAudit(entry); });
    if (!stored.ok()) LogWarning("audit: {}", std::string(stored.message()));
  });
}

void RecordRefusal(const Context& context, const Caller& caller,
                   const google::protobuf::Message& request, const absl::Status& status) {
  RecordRefusal(context, caller, Field(request, "name"), status);
}

}  // namespace tundra::coordinator
