// tundra whoami, tundra admin tenants | tokens | workers | audit.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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
                caller.token().empty() ? "no token (the service lets everybody in)"
                                       : absl::StrCat(caller.token(), " \"",
                                                      PrintableLine(caller.display_name()), "\"")
                                             .c_str(),
                caller.tenant().c_str(), RoleName(caller.role()).c_str());
  };
  return CallAndPrint(common, &Service::access, &Access::GetCaller, tundra::v1::GetCallerRequest(),
                      print);
}

// ---- Tenants ----

struct TenantFlags {
  std::string name;
  std::optional<int32_t> devices;
  std::optional<int32_t> active_jobs;
  std::optional<uint64_t> dataset_bytes;
  // Names of quotas that are lifted.
  std::vector<std::string> unbounded;

  bool empty() const { return !devices && !active_jobs && !dataset_bytes && unbounded.empty(); }
};

// What flags say of a quota; the rest stays as it is.
absl::Status Apply(const TenantFlags& flags, tundra::v1::Quota& quota) {
  const auto lifts = [&](const char* name) {
    return std::find(flags.unbounded.begin(), flags.unbounded.end(), name) != flags.unbounded.end();
  };
  for (const auto& [name, given] : {std::pair("devices", flags.devices.has_value()),
                                    std::pair("active-jobs", flags.active_jobs.has_value()),
                                    std::pair("dataset-bytes", flags.dataset_bytes.has_value())}) {
    if (given && lifts(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", name, " and --unbounded ", name, " exclude each other"));
    }
  }
  if (flags.devices) quota.set_devices(*flags.devices);
  if (flags.active_jobs) quota.set_active_jobs(*flags.active_jobs);
  if (flags.dataset_bytes) quota.set_dataset_bytes(static_cast<int64_t>(*flags.dataset_bytes));
  if (lifts("devices")) quota.clear_devices();
  if (lifts("active-jobs")) quota.clear_active_jobs();
  if (lifts("dataset-bytes")) quota.clear_dataset_bytes();
  return absl::OkStatus();
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

int CreateTenant(const CommonFlags& common, const TenantFlags& flags) {
  tundra::v1::CreateTenantRequest request;
  request.set_tenant_id(flags.name);
  const absl::Status applied = Apply(flags, *request.mutable_tenant()->mutable_quota());
  if (!applied.ok()) return Fail(applied);
  const std::function<void(const tundra::v1::Tenant&)> print = PrintTenant;
  return CallAndPrint(common, &Service::access, &Access::CreateTenant, request, print);
}

// The service replaces a quota as a whole: what is not given is read from it first.
int SetTenant(const CommonFlags& common, const TenantFlags& flags) {
  if (flags.empty()) {
    return Fail(absl::InvalidArgumentError(
        "nothing to set; give --devices, --active-jobs, --dataset-bytes or --unbounded"));
  }
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  tundra::v1::GetTenantRequest get;
  get.set_name(WithPrefix("tenants/", flags.name));
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::Tenant tenant;
  const grpc::Status got = service->access()->GetTenant(&context, get, &tenant);
  if (!got.ok()) return Fail(service->Explain(got));
  const absl::Status applied = Apply(flags, *tenant.mutable_quota());
  if (!applied.ok()) return Fail(applied);
  tundra::v1::UpdateTenantRequest request;
  request.mutable_tenant()->set_name(tenant.name());
  *request.mutable_tenant()->mutable_quota() = tenant.quota();
  const std::function<void(const tundra::v1::Tenant&)> print = PrintTenant;
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
      ->transform(CLI::AsSizeValue(true));
}

void AddTenants(CLI::App& admin, CommonFlags& common, Run* run) {
  CLI::App* tenants =
      NewCommand(admin, common, "tenants", "List tenants with quotas and use, or change them");
  auto flags = std::make_shared<TenantFlags>();
  CLI::App* create = NewCommand(*tenants, common, "create", "Make a tenant");
  CLI::App* set = NewCommand(*tenants, common, "set",
                             "Change a tenant's quota; what is not given stays as it is");
  CLI::App* remove =
      NewCommand(*tenants, common, "delete", "Delete a tenant that has nothing any more");
  AddQuotaFlags(create, flags.get());
  AddQuotaFlags(set, flags.get());
  set->add_option("--unbounded", flags->unbounded,
                  "Lift a quota: devices, active-jobs or dataset-bytes (repeatable)")
      ->check(CLI::IsMember({"devices", "active-jobs", "dataset-bytes"}))
      ->expected(1)
      ->take_all();
  remove->add_option("TENANT", flags->name)->required();
  tenants->callback([=, &common] {
    *run = [=, &common] {
      if (create->parsed()) return CreateTenant(common, *flags);
      if (set->parsed()) return SetTenant(common, *flags);
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
  std::optional<int64_t> lifetime_s;
  std::string to;
  std::string only_tenant;
};

// A file that is made before a secret is: one that nobody could read would be left behind
// otherwise.
class NewFile {
 public:
  // Errors: kAlreadyExists, and those of the folder.
  static absl::StatusOr<NewFile> Make(const std::string& path) {
    Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd.valid() && errno == EEXIST) {
      return absl::AlreadyExistsError(
          absl::StrCat("--to ", path, " is there already; name a new file"));
    }
    if (!fd.valid()) return ErrnoStatus(errno, "--to " + path);
    return NewFile(path, std::move(fd));
  }
  // Writes it and has it kept, power cuts included.
  absl::Status Write(std::string_view bytes) const {
    RETURN_IF_ERROR(WriteAll(fd_.get(), bytes, path_));
    if (::fsync(fd_.get()) != 0) return ErrnoStatus(errno, path_);
    const std::string dir = std::filesystem::path(path_).parent_path().string();
    return SyncDir(dir.empty() ? "." : dir);
  }
  void Remove() const { ::unlink(path_.c_str()); }

 private:
  NewFile(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  Fd fd_;
};

// Why a secret could not be kept, after its token was deleted again.
absl::Status Undo(const Service& service, const tundra::v1::Token& token,
                  const absl::Status& status) {
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::DeleteTokenRequest request;
  request.set_name(token.name());
  Empty empty;
  const grpc::Status undone = service.access()->DeleteToken(&context, request, &empty);
  return Annotate(status, undone.ok() ? absl::StrCat(token.name(), " was deleted again")
                                      : absl::StrCat(token.name(),
                                                     " is there and its secret is "
                                                     "lost: delete it"));
}

// Makes the token and writes its secret into `file`, if there is one.
absl::StatusOr<tundra::v1::Token> MakeToken(const Service& service, const TokenFlags& flags,
                                            const std::optional<NewFile>& file) {
  tundra::v1::CreateTokenRequest request;
  request.mutable_token()->set_display_name(flags.name);
  request.mutable_token()->set_tenant(WithPrefix("tenants/", flags.tenant));
  request.mutable_token()->set_role(ParseRole(flags.role));
  if (flags.lifetime_s) request.mutable_lifetime()->set_seconds(*flags.lifetime_s);
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::Token token;
  RETURN_IF_ERROR(service.Explain(service.access()->CreateToken(&context, request, &token)));
  if (!file) return token;
  const absl::Status written = file->Write(token.secret() + "\n");
  if (!written.ok()) return Undo(service, token, written);
  token.clear_secret();
  return token;
}

int CreateToken(const CommonFlags& common, const TokenFlags& flags) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  std::optional<NewFile> file;
  if (!flags.to.empty()) {
    auto made = NewFile::Make(flags.to);
    if (!made.ok()) return Fail(made.status());
    file = *std::move(made);
  }
  const auto token = MakeToken(*service, flags, file);
  if (!token.ok()) {
    if (file) file->Remove();
    return Fail(token.status());
  }
  if (common.json()) {
    std::printf("%s\n", ToJson(*token).c_str());
    return kOk;
  }
  std::fprintf(stderr, "%s: %s of %s, role %s%s\n", token->name().c_str(),
               PrintableLine(token->display_name()).c_str(), token->tenant().c_str(),
               RoleName(token->role()).c_str(),
               token->has_expire_time()
                   ? absl::StrCat(", until ", HumanTime(token->expire_time())).c_str()
                   : "");
  if (flags.to.empty()) {
    std::fprintf(stderr, "keep it now, it is not shown again:\n");
    std::printf("%s\n", token->secret().c_str());
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
          CLI::AsNumberWithUnit::UNIT_REQUIRED))
      ->check(
          [](const std::string& seconds) -> std::string {
            int64_t number = 0;
            const bool fits = absl::SimpleAtoi(seconds, &number) && number >= 60 &&
                              number <= int64_t{3660} * 86'400;
            return fits ? "" : "must be a minute to ten years, for example 90d";
          },
          "");
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
    table.Add({w.name(), w.display_name(), state, std::to_string(w.devices_size()),
               std::to_string(free), std::to_string(w.bases_size()), w.build(),
               HumanTime(w.last_seen_time())});
  }
  std::printf("%s", table.Render().c_str());
}

// "workers/ID" of a resource name, an id, or a display name that one worker alone has.
absl::StatusOr<std::string> WorkerName(const CommonFlags& common, const std::string& text) {
  if (text.starts_with("workers/")) return text;
  ASSIGN_OR_RETURN(const Service service, Service::Open(common.address));
  std::vector<std::string> named;
  tundra::v1::ListWorkersRequest request;
  request.set_page_size(1000);
  do {
    grpc::ClientContext context;
    Prepare(&context);
    tundra::v1::ListWorkersResponse page;
    RETURN_IF_ERROR(service.Explain(service.fleet()->ListWorkers(&context, request, &page)));
    for (const auto& worker : page.workers()) {
      if (worker.name() == "workers/" + text) return worker.name();
      if (worker.display_name() == text) named.push_back(worker.name());
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (named.size() == 1) return named[0];
  if (named.empty()) {
    return absl::NotFoundError(absl::StrCat("no worker with the id or host '", text,
                                            "'; `tundra admin workers` lists them"));
  }
  return absl::InvalidArgumentError(absl::StrCat("several workers have the host '", text,
                                                 "': name one of ", absl::StrJoin(named, ", ")));
}

int SetDrained(const CommonFlags& common, const std::string& text, bool drained) {
  const auto name = WorkerName(common, text);
  if (!name.ok()) return Fail(name.status());
  const std::function<void(const tundra::v1::Worker&)> print = [&](const auto& worker) {
    std::printf(
        "%s %s\n", worker.name().c_str(),
        drained ? "gets no new work; its jobs are saved and go on elsewhere" : "takes work again");
  };
  if (drained) {
    tundra::v1::DrainWorkerRequest request;
    request.set_name(*name);
    return CallAndPrint(common, &Service::fleet, &Fleet::DrainWorker, request, print);
  }
  tundra::v1::UndrainWorkerRequest request;
  request.set_name(*name);
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
    command->add_option("WORKER", *name, "workers/ID, or a HOST of the list that one alone has")
        ->required();
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
          table.Add({HumanTime(e.time()), e.actor(), e.tenant(), e.peer(), e.method(), e.resource(),
                     e.code() == 0 ? "OK"
                                   : absl::StrCat(absl::StatusCodeToString(code), ": ",
                                                  e.message().substr(0, 60))});
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
