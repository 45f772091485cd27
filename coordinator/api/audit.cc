#include "coordinator/api/audit.h"

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status.h"

namespace tundra::coordinator {
namespace {

constexpr size_t kMostMessageBytes = 1000;
constexpr size_t kMostResourceBytes = 200;

// Cut between characters: what is no UTF-8 could not be read from the store again.
std::string Clip(std::string_view text, size_t most) {
  if (text.size() > most) {
    while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
    text = text.substr(0, most);
  }
  return std::string(text);
}

v1::AuditEntry EntryOf(const Context& context, const Caller& caller, const std::string& resource,
                       const absl::Status& status) {
  v1::AuditEntry entry;
  *entry.mutable_time() = ToProto(context.clock->Now());
  entry.set_actor(caller.actor);
  entry.set_tenant(absl::StrCat("tenants/", caller.tenant.value));
  entry.set_role(caller.role);
  entry.set_peer(caller.peer);
  entry.set_method(caller.method);
  entry.set_resource(Clip(resource, kMostResourceBytes));
  entry.set_code(static_cast<int32_t>(status.code()));
  if (!status.ok()) {
    const absl::string_view message = status.message();
    entry.set_message(Clip({message.data(), message.size()}, kMostMessageBytes));
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

bool RefusalLimit::Allow(const std::string& actor, absl::Duration now) {
  absl::MutexLock lock(&mu_);
  if (now - window_ > absl::Minutes(1)) {
    window_ = now;
    counts_.clear();
  }
  return ++counts_[actor] <= kMostAMinute;
}

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
  // Beyond a rate, or when the queue is full, the line in the log has to do.
  if (!context.refusals->Allow(caller.actor, context.clock->Monotonic())) return;
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
