// tundra whoami, tundra admin tenants | tokens | workers | audit.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "client/commands.h"
#include "client/output.h"
#include "client/rpc_calls.h"
#include "common/files.h"
#include "common/status.h"

namespace tundra::client {
namespace {

using tundra::v1::Role;

std::string RoleName(Role role) {
  switch (role) {
    case tundra::v1::ROLE_VIEWER:
      return "viewer";
    case tundra::v1::ROLE_USER:
      return "user";
    case tundra::v1::ROLE_ADMIN:
      return "admin";
    default:
      return "-";
  }
}

Role ParseRole(const std::string& name) {
  return name == "admin"  ? tundra::v1::ROLE_ADMIN
         : name == "user" ? tundra::v1::ROLE_USER
                          : tundra::v1::ROLE_VIEWER;
}

std::string WithPrefix(const std::string& prefix, const std::string& name) {
  return name.starts_with(prefix) ? name : prefix + name;
}

// Opens the service, makes the call with a deadline, prints the answer as JSON or by `print`.
template <typename Stub, typename Request, typename Response>
int CallAndPrint(const CommonFlags& common, std::unique_ptr<Stub> (Service::*stub)() const,
                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                 const Request& request, const std::function<void(const Response&)>& print) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  grpc::ClientContext context;
  Prepare(&context);
  Response response;
  const auto owned = ((*service).*stub)();
  const grpc::Status status = (owned.get()->*method)(&context, request, &response);
  if (!status.ok()) return Fail(service->Explain(status));
  if (common.json()) {
    std::printf("%s\n", ToJson(response).c_str());
  } else {
    print(response);
  }
  return kOk;
}

// As above, for a list: all its pages as one response.
template <typename Stub, typename Request, typename Response>
int ListAndPrint(const CommonFlags& common, std::unique_ptr<Stub> (Service::*stub)() const,
                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                 Request request, const std::function<void(const Response&)>& print) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  const auto owned = ((*service).*stub)();
  Response all;
  request.set_page_size(1000);
  do {
    grpc::ClientContext context;
    Prepare(&context);
    Response page;
    const grpc::Status status = (owned.get()->*method)(&context, request, &page);
    if (!status.ok()) return Fail(service->Explain(status));
    request.set_page_token(page.next_page_token());
    page.clear_next_page_token();
    all.MergeFrom(page);
  } while (!request.page_token().empty());
  if (common.json()) {
    std::printf("%s\n", ToJson(all).c_str());
  } else {
    print(all);
  }
  return kOk;
}

using Access = tundra::v1::AccessService::Stub;
using Fleet = tundra::v1::FleetService::Stub;
using google::protobuf::Empty;

int WhoAmI(const CommonFlags& common) {
  const std::function<void(const tundra::v1::Caller&)> print = [](const auto& caller) {
    std::printf("%s, %s, role %s\n",
                caller.token().empty()
                    ? "no token (the service lets everybody in)"
                    : absl::StrCat(caller.token(), " \"", caller.display_name(), "\"").c_str(),
                caller.tenant().c_str(), RoleName(caller.role()).c_str());
  };
  return CallAndPrint(common, &Service::access, &Access::GetCaller, tundra::v1::GetCallerRequest(),
                      print);
}

// ---- Tenants ----

struct TenantFlags {
  std::string name;
  int32_t devices = 0;
  int32_t active_jobs = -1;
  uint64_t dataset_bytes = 0;
  bool has_bytes = false;
};

tundra::v1::Quota QuotaOf(const TenantFlags& flags) {
  tundra::v1::Quota quota;
  if (flags.devices > 0) quota.set_devices(flags.devices);
  if (flags.active_jobs >= 0) quota.set_active_jobs(flags.active_jobs);
  if (flags.has_bytes) quota.set_dataset_bytes(static_cast<int64_t>(flags.dataset_bytes));
  return quota;
}

std::string Of(int64_t used, bool bounded, int64_t most) {
  return bounded ? absl::StrCat(used, " of ", most) : std::to_string(used);
}

void PrintTenants(const tundra::v1::ListTenantsResponse& response) {
  Table table({"TENANT", "DEVICES", "ACTIVE JOBS", "UPLOADED", "CREATED"});
  for (const auto& t : response.tenants()) {
    std::string bytes = HumanBytes(t.usage().dataset_bytes());
    if (t.quota().has_dataset_bytes()) {
      absl::StrAppend(&bytes, " of ", HumanBytes(t.quota().dataset_bytes()));
    }
    table.Add({t.name(), Of(t.usage().devices(), t.quota().has_devices(), t.quota().devices()),
               Of(t.usage().active_jobs(), t.quota().has_active_jobs(), t.quota().active_jobs()),
               bytes, HumanTime(t.create_time())});
  }
  std::printf("%s", table.Render().c_str());
}

void PrintTenant(const tundra::v1::Tenant& tenant) {
  tundra::v1::ListTenantsResponse one;
  *one.add_tenants() = tenant;
  PrintTenants(one);
}

int SaveTenant(const CommonFlags& common, const TenantFlags& flags, bool create) {
  const std::function<void(const tundra::v1::Tenant&)> print = PrintTenant;
  if (create) {
    tundra::v1::CreateTenantRequest request;
    request.set_tenant_id(flags.name);
    *request.mutable_tenant()->mutable_quota() = QuotaOf(flags);
    return CallAndPrint(common, &Service::access, &Access::CreateTenant, request, print);
  }
  tundra::v1::UpdateTenantRequest request;
  request.mutable_tenant()->set_name(WithPrefix("tenants/", flags.name));
  *request.mutable_tenant()->mutable_quota() = QuotaOf(flags);
  return CallAndPrint(common, &Service::access, &Access::UpdateTenant, request, print);
}

int DeleteTenant(const CommonFlags& common, const std::string& name) {
  tundra::v1::DeleteTenantRequest request;
  request.set_name(WithPrefix("tenants/", name));
  const std::function<void(const Empty&)> print = [&](const Empty&) {
    std::printf("deleted %s\n", request.name().c_str());
  };
  return CallAndPrint(common, &Service::access, &Access::DeleteTenant, request, print);
}

void AddQuotaFlags(CLI::App* command, TenantFlags* flags) {
  command->add_option("TENANT", flags->name, "1 to 40 of a-z, 0-9 and -")->required();
  command->add_option("--devices", flags->devices, "Most devices that its jobs hold at a time")
      ->check(CLI::Range(1, 1 << 30));
  command->add_option("--active-jobs", flags->active_jobs, "Most jobs that have not ended")
      ->check(CLI::Range(0, 1 << 30));
  command
      ->add_option(
          "--dataset-bytes", flags->dataset_bytes,
          "Most bytes of its data sets and uploaded adapters: 500MB, 20GB (powers of 1000), 1GiB")
      ->transform(CLI::AsSizeValue(true))
      ->each([flags](const std::string&) { flags->has_bytes = true; });
}

void AddTenants(CLI::App& admin, CommonFlags& common, Run* run) {
  CLI::App* tenants =
      NewCommand(admin, common, "tenants", "List tenants with quotas and use, or change them");
  auto flags = std::make_shared<TenantFlags>();
  CLI::App* create = NewCommand(*tenants, common, "create", "Make a tenant");
  CLI::App* set = NewCommand(*tenants, common, "set",
                             "Replace a tenant's quota; what is not given is not bounded");
  CLI::App* remove =
      NewCommand(*tenants, common, "delete", "Delete a tenant that has nothing any more");
  AddQuotaFlags(create, flags.get());
  AddQuotaFlags(set, flags.get());
  remove->add_option("TENANT", flags->name)->required();
  tenants->callback([=, &common] {
    *run = [=, &common] {
      if (create->parsed()) return SaveTenant(common, *flags, true);
      if (set->parsed()) return SaveTenant(common, *flags, false);
      if (remove->parsed()) return DeleteTenant(common, flags->name);
      const std::function<void(const tundra::v1::ListTenantsResponse&)> print = PrintTenants;
      return ListAndPrint(common, &Service::access, &Access::ListTenants,
                          tundra::v1::ListTenantsRequest(), print);
    };
  });
}

// ---- Tokens ----

struct TokenFlags {
  std::string name;
  std::string tenant = "default";
  std::string role = "user";
  int64_t lifetime_s = 0;
  std::string to;
  std::string only_tenant;
};

int CreateToken(const CommonFlags& common, const TokenFlags& flags) {
  if (!flags.to.empty() && FileExists(flags.to)) {
    return Fail(absl::AlreadyExistsError(
        absl::StrCat("--to ", flags.to, " is there already; name a new file")));
  }
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  tundra::v1::CreateTokenRequest request;
  request.mutable_token()->set_display_name(flags.name);
  request.mutable_token()->set_tenant(WithPrefix("tenants/", flags.tenant));
  request.mutable_token()->set_role(ParseRole(flags.role));
  if (flags.lifetime_s > 0) request.mutable_lifetime()->set_seconds(flags.lifetime_s);
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::Token token;
  const grpc::Status status = service->access()->CreateToken(&context, request, &token);
  if (!status.ok()) return Fail(service->Explain(status));
  if (!flags.to.empty()) {
    const absl::Status written = WriteFileAtomically(flags.to, token.secret() + "\n");
    if (!written.ok()) return Fail(written);
    token.clear_secret();
  }
  if (common.json()) {
    std::printf("%s\n", ToJson(token).c_str());
    return kOk;
  }
  std::fprintf(stderr, "%s: %s of %s, role %s%s\n", token.name().c_str(),
               token.display_name().c_str(), token.tenant().c_str(), RoleName(token.role()).c_str(),
               token.has_expire_time()
                   ? absl::StrCat(", until ", HumanTime(token.expire_time())).c_str()
                   : "");
  if (flags.to.empty()) {
    std::fprintf(stderr, "keep it now, it is not shown again:\n");
    std::printf("%s\n", token.secret().c_str());
  } else {
    std::fprintf(stderr, "written to %s, readable by you alone\n", flags.to.c_str());
  }
  return kOk;
}

int ListTokens(const CommonFlags& common, const TokenFlags& flags) {
  tundra::v1::ListTokensRequest request;
  if (!flags.only_tenant.empty()) request.set_tenant(WithPrefix("tenants/", flags.only_tenant));
  const std::function<void(const tundra::v1::ListTokensResponse&)> print = [](const auto& list) {
    Table table({"TOKEN", "NAME", "TENANT", "ROLE", "CREATED", "EXPIRES"});
    for (const auto& t : list.tokens()) {
      table.Add({t.name(), t.display_name(), t.tenant(), RoleName(t.role()),
                 HumanTime(t.create_time()),
                 t.has_expire_time() ? HumanTime(t.expire_time()) : "never"});
    }
    std::printf("%s", table.Render().c_str());
  };
  return ListAndPrint(common, &Service::access, &Access::ListTokens, request, print);
}

int DeleteToken(const CommonFlags& common, const std::string& name) {
  tundra::v1::DeleteTokenRequest request;
  request.set_name(WithPrefix("tokens/", name));
  const std::function<void(const Empty&)> print = [&](const Empty&) {
    std::printf("deleted %s\n", request.name().c_str());
  };
  return CallAndPrint(common, &Service::access, &Access::DeleteToken, request, print);
}

void AddTokens(CLI::App& admin, CommonFlags& common, Run* run) {
  CLI::App* tokens = NewCommand(admin, common, "tokens", "List tokens, make one, or delete one");
  auto flags = std::make_shared<TokenFlags>();
  tokens->add_option("--tenant", flags->only_tenant, "Only those of this tenant");
  CLI::App* create = NewCommand(
      *tokens, common, "create",
      "Make a token. Its secret is shown once: the service keeps only a hash.\n"
      "Roles: viewer reads what is its tenant's; user also makes, steers and deletes it; admin "
      "also sees every tenant's and manages tenants, tokens and workers");
  create->add_option("NAME", flags->name, "For people: whose it is, or what for")->required();
  create->add_option("--tenant", flags->tenant, "Whose jobs and data it is for")
      ->capture_default_str();
  create->add_option("--role", flags->role, "viewer, user or admin")
      ->check(CLI::IsMember({"viewer", "user", "admin"}))
      ->capture_default_str();
  create
      ->add_option("--expires-in", flags->lifetime_s,
                   "How long it is valid: 90d, 12h, 30m (default: until it is deleted)")
      ->transform(CLI::AsNumberWithUnit(
          std::map<std::string, int64_t>{{"m", 60}, {"h", 3600}, {"d", 86'400}},
          CLI::AsNumberWithUnit::UNIT_REQUIRED));
  create->add_option("--to", flags->to, "Write the secret into this new file instead");
  CLI::App* remove =
      NewCommand(*tokens, common, "delete", "Delete a token: it is refused from now on");
  remove->add_option("TOKEN", flags->name, "tokens/ID, as the list shows it")->required();
  tokens->callback([=, &common] {
    *run = [=, &common] {
      if (create->parsed()) return CreateToken(common, *flags);
      if (remove->parsed()) return DeleteToken(common, flags->name);
      return ListTokens(common, *flags);
    };
  });
}

// ---- Workers ----

void PrintWorkers(const tundra::v1::ListWorkersResponse& response) {
  Table table({"WORKER", "HOST", "STATE", "DEVICES", "FREE", "BASES", "BUILD", "SEEN"});
  for (const auto& w : response.workers()) {
    int free = 0;
    for (const auto& device : w.devices()) free += device.group().empty() ? 1 : 0;
    std::string state = tundra::v1::WorkerState_Name(w.state());
    for (char& c : state) c = static_cast<char>(std::tolower(c));
    if (w.drained()) state += " (drained)";
    table.Add({w.name(), Printable(w.display_name()), state, std::to_string(w.devices_size()),
               std::to_string(free), std::to_string(w.bases_size()), Printable(w.build()),
               HumanTime(w.last_seen_time())});
  }
  std::printf("%s", table.Render().c_str());
}

int SetDrained(const CommonFlags& common, const std::string& name, bool drained) {
  const std::function<void(const tundra::v1::Worker&)> print = [&](const auto& worker) {
    std::printf(
        "%s %s\n", worker.name().c_str(),
        drained ? "gets no new work; its jobs are saved and go on elsewhere" : "takes work again");
  };
  if (drained) {
    tundra::v1::DrainWorkerRequest request;
    request.set_name(WithPrefix("workers/", name));
    return CallAndPrint(common, &Service::fleet, &Fleet::DrainWorker, request, print);
  }
  tundra::v1::UndrainWorkerRequest request;
  request.set_name(WithPrefix("workers/", name));
  return CallAndPrint(common, &Service::fleet, &Fleet::UndrainWorker, request, print);
}

void AddWorkers(CLI::App& admin, CommonFlags& common, Run* run) {
  CLI::App* workers =
      NewCommand(admin, common, "workers", "List workers, drain one, or let it work again");
  auto name = std::make_shared<std::string>();
  CLI::App* drain = NewCommand(*workers, common, "drain",
                               "Give it no new work; its jobs are saved and go on elsewhere");
  CLI::App* undrain = NewCommand(*workers, common, "undrain", "Let it take work again");
  for (CLI::App* command : {drain, undrain}) {
    command->add_option("WORKER", *name, "workers/ID, as the list shows it")->required();
  }
  workers->callback([=, &common] {
    *run = [=, &common] {
      if (drain->parsed()) return SetDrained(common, *name, true);
      if (undrain->parsed()) return SetDrained(common, *name, false);
      const std::function<void(const tundra::v1::ListWorkersResponse&)> print = PrintWorkers;
      return ListAndPrint(common, &Service::fleet, &Fleet::ListWorkers,
                          tundra::v1::ListWorkersRequest(), print);
    };
  });
}

// ---- Audit ----

int Audit(const CommonFlags& common, int32_t limit) {
  tundra::v1::ListAuditEntriesRequest request;
  request.set_page_size(limit);
  const std::function<void(const tundra::v1::ListAuditEntriesResponse&)> print =
      [](const auto& list) {
        Table table({"TIME", "WHO", "TENANT", "FROM", "METHOD", "WHAT", "OUTCOME"});
        for (const auto& e : list.entries()) {
          const auto code = static_cast<absl::StatusCode>(e.code());
          table.Add({HumanTime(e.time()), e.actor(), e.tenant(), Printable(e.peer()), e.method(),
                     Printable(e.resource()),
                     e.code() == 0 ? "OK"
                                   : absl::StrCat(absl::StatusCodeToString(code), ": ",
                                                  Printable(e.message()).substr(0, 60))});
        }
        std::printf("%s", table.Render().c_str());
      };
  return CallAndPrint(common, &Service::access, &Access::ListAuditEntries, request, print);
}

}  // namespace

void AddAdmin(CLI::App& app, CommonFlags& common, Run* run) {
  NewCommand(app, common, "whoami", "Show whose token this is, and what it may do")
      ->callback([=, &common] { *run = [&common] { return WhoAmI(common); }; });
  CLI::App* admin =
      app.add_subcommand("admin", "Manage tenants, tokens and workers; read the audit log");
  admin->require_subcommand(1);
  AddTenants(*admin, common, run);
  AddTokens(*admin, common, run);
  AddWorkers(*admin, common, run);
  auto limit = std::make_shared<int32_t>(50);
  CLI::App* audit =
      NewCommand(*admin, common, "audit", "Show who changed what, or was refused it, newest first");
  audit->add_option("--limit", *limit, "How many entries")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  audit->callback([=, &common] { *run = [=, &common] { return Audit(common, *limit); }; });
}

}  // namespace tundra::client
