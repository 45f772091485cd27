// Who makes a call, and which calls need whom: one table for all services.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/ids.h"
#include "coordinator/store/records.h"

namespace tundra::coordinator {

// Who makes a call. Always known before a handler runs.
struct Caller {
  TenantId tenant;
  v1::Role role = v1::ROLE_UNSPECIFIED;
  // "tokens/ID", "workers/NAME" or "anonymous", for the audit log; empty while not known.
  std::string actor;
  // The token's, for people.
  std::string display_name;
  // Of the token's secret, to find the token again; empty without one. Never shown.
  std::string secret_hash;
  // As gRPC names it.
  std::string peer;
  std::string method;
  // A worker, named by its certificate; `identity` is empty for one that came without.
  bool is_worker = false;
  std::string identity;
  // The worker's certificate, a PEM chain; empty without one.
  std::string certificate;

  // Whether what belongs to `owner` exists for the caller.
  bool Sees(const TenantId& owner) const { return role == v1::ROLE_ADMIN || owner == tenant; }
  // The tenant whose things lists show; empty for those of all.
  TenantId Listed() const { return role == v1::ROLE_ADMIN ? TenantId{} : tenant; }
};

// The outcome of asking who makes a call. `caller` is filled in as far as it is known, also
// when the call is refused.
struct Authorization {
  Caller caller;
  // kUnauthenticated, kPermissionDenied.
  absl::Status status;
  bool ok() const { return status.ok(); }
};

struct MethodPolicy {
  std::string_view method;
  // The smallest role that may call it; ROLE_UNSPECIFIED for workers' methods.
  v1::Role role;
  // Changes something: is audited.
  bool mutates;
  bool for_workers() const { return role == v1::ROLE_UNSPECIFIED; }
};

// By the method's name without its service; null for one that is not in the table, which nobody
// may call.
const MethodPolicy* PolicyOf(std::string_view method);

}  // namespace tundra::coordinator
