#include "coordinator/access/authenticator.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/secret.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/store/job_draft.h"

namespace tundra::coordinator {
namespace {

constexpr std::string_view kBearer = "bearer ";
// Certificates that are remembered as good.
constexpr size_t kMostVerified = 4096;

std::string RoleWord(v1::Role role) {
  switch (role) {
    case v1::ROLE_VIEWER:
      return "viewer";
    case v1::ROLE_USER:
      return "user";
    case v1::ROLE_ADMIN:
      return "admin";
    default:
      return "none";
  }
}

// The token of "Bearer TOKEN"; empty for anything else.
std::string TokenOf(const Credentials& credentials) {
  if (!credentials.authorization.has_value()) return "";
  const std::string& value = *credentials.authorization;
  if (value.size() <= kBearer.size() ||
      absl::AsciiStrToLower(value.substr(0, kBearer.size())) != kBearer) {
    return "";
  }
  return std::string(absl::StripAsciiWhitespace(value.substr(kBearer.size())));
}

}  // namespace

absl::Status Authenticator::Start() {
  for (const std::string& file : {options_.bootstrap_token_file, options_.worker_token_file}) {
    if (const std::string warning = OpenToOthers(file); !warning.empty()) {
      LogWarning("{}", warning);
    }
  }
  RETURN_IF_ERROR(Bootstrap());
  RETURN_IF_ERROR(Reload());
  if (!options_.worker_token_file.empty()) {
    ASSIGN_OR_RETURN(const std::string secret, ReadSecretFile(options_.worker_token_file));
    absl::MutexLock lock(&mu_);
    worker_hash_ = HashSecret(secret);
    worker_stamp_ = FileStamp(options_.worker_token_file);
  }
  return absl::OkStatus();
}

absl::Status Authenticator::Bootstrap() {
  bool have_admin = false;
  RETURN_IF_ERROR(store_->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<TokenRecord> tokens, txn.ListTokens());
    have_admin = std::any_of(tokens.begin(), tokens.end(), [&](const TokenRecord& token) {
      return token.role == v1::ROLE_ADMIN && token.expire_time > clock_->Now();
    });
    return absl::OkStatus();
  }));
  if (have_admin) return absl::OkStatus();
  if (options_.bootstrap_token_file.empty()) {
    if (options_.allow_anonymous) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "there is no admin's token yet: write a secret of at least 32 characters into a file only "
        "you can read (for example with: openssl rand -hex 32) and give it with "
        "--bootstrap-token-file, or say --allow-anonymous where only trusted programs reach "
        "loopback");
  }
  ASSIGN_OR_RETURN(const std::string secret, ReadSecretFile(options_.bootstrap_token_file));
  TokenRecord record;
  record.id.value = NewIdValue("token");
  record.secret_hash = HashSecret(secret);
  record.tenant.value = kDefaultTenant;
  record.role = v1::ROLE_ADMIN;
  record.display_name = "first admin";
  record.create_time = clock_->Now();
  LogInfo("audit: coordinator: Bootstrap tokens/{} from {}", record.id.value,
          options_.bootstrap_token_file);
  v1::AuditEntry entry;
  *entry.mutable_time() = ToProto(record.create_time);
  entry.set_actor("coordinator");
  entry.set_tenant(absl::StrCat("tenants/", record.tenant.value));
  entry.set_method("Bootstrap");
  entry.set_resource(absl::StrCat("tokens/", record.id.value));
  return store_->Write([&](Txn& txn) -> absl::Status {
    RETURN_IF_ERROR(txn.InsertToken(record));
    return txn.AppendAudit(entry);
  });
}

absl::Status Authenticator::Reload() {
  absl::MutexLock reload(&reload_mu_);
  std::map<std::string, TokenRecord> tokens;
  RETURN_IF_ERROR(store_->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<TokenRecord> list, txn.ListTokens());
    for (const TokenRecord& token : list) tokens[token.secret_hash] = token;
    return absl::OkStatus();
  }));
  absl::MutexLock lock(&mu_);
  tokens_ = std::move(tokens);
  return absl::OkStatus();
}

void Authenticator::Refresh() {
  if (options_.worker_token_file.empty()) return;
  const std::string stamp = FileStamp(options_.worker_token_file);
  {
    absl::MutexLock lock(&mu_);
    if (stamp == worker_stamp_) return;
    worker_stamp_ = stamp;
  }
  const absl::StatusOr<std::string> secret = ReadSecretFile(options_.worker_token_file);
  if (!secret.ok()) {
    LogWarning("keeps the workers' former secret: {}", std::string(secret.status().message()));
    return;
  }
  absl::MutexLock lock(&mu_);
  worker_hash_ = HashSecret(*secret);
  LogInfo("took the workers' secret anew from {}", options_.worker_token_file);
}

Authorization Authenticator::Authorize(const Credentials& credentials,
                                       std::string_view method) const {
  Authorization result;
  result.caller.peer = credentials.peer;
  result.caller.method = std::string(method);
  const MethodPolicy* const policy = PolicyOf(method);
  if (policy == nullptr) {
    result.status =
        absl::PermissionDeniedError(absl::StrCat("nobody may call ", result.caller.method));
  } else if (policy->for_workers()) {
    result.status = AuthorizeWorker(credentials, result.caller);
  } else {
    result.status = AuthorizeToken(credentials, policy->role, result.caller);
  }
  return result;
}

bool Authenticator::Knows(const Credentials& credentials) const {
  if (options_.allow_anonymous && !credentials.authorization.has_value()) return true;
  const std::string token = TokenOf(credentials);
  if (token.empty()) return false;
  const std::string hash = HashSecret(token);
  if (IsWorkerToken(hash)) return true;
  absl::MutexLock lock(&mu_);
  const auto found = tokens_.find(hash);
  return found != tokens_.end() && found->second.expire_time > clock_->Now();
}

absl::Status Authenticator::Recheck(const Caller& caller) const {
  if (!caller.certificate.empty()) {
    const absl::Status good = CheckCertificate(caller.certificate);
    return good.ok() ? good : Refuse("bad_certificate", good);
  }
  if (caller.secret_hash.empty()) return absl::OkStatus();
  if (caller.is_worker) {
    if (IsWorkerToken(caller.secret_hash)) return absl::OkStatus();
    return Refuse("not_a_worker",
                  absl::UnauthenticatedError("the workers' secret was replaced meanwhile"));
  }
  absl::MutexLock lock(&mu_);
  const auto found = tokens_.find(caller.secret_hash);
  if (found == tokens_.end()) {
    return Refuse("unknown_token", absl::UnauthenticatedError("the token was deleted meanwhile"));
  }
  if (found->second.expire_time > clock_->Now()) return absl::OkStatus();
  return Refuse("expired_token", absl::UnauthenticatedError("the token has expired meanwhile"));
}

absl::Status Authenticator::CheckCertificate(const std::string& chain) const {
  if (options_.tls == nullptr) return absl::OkStatus();
  const auto [material, number] = options_.tls->Get();
  const std::string hash = Sha256Hex(chain);
  const absl::Time now = clock_->Now();
  {
    absl::MutexLock lock(&mu_);
    if (verified_against_ != number || verified_.size() >= kMostVerified) {
      verified_.clear();
      verified_against_ = number;
    }
    const auto known = verified_.find(hash);
    if (known != verified_.end() && known->second > now) return absl::OkStatus();
  }
  // Not under the lock, which every call takes.
  ASSIGN_OR_RETURN(const absl::Time end, VerifyClientChain(chain, material->ca, now));
  absl::MutexLock lock(&mu_);
  if (verified_against_ == number) verified_[hash] = end;
  return absl::OkStatus();
}

absl::Status Authenticator::Refuse(std::string_view reason, absl::Status status) const {
  if (options_.on_failure) options_.on_failure(reason);
  return status;
}

bool Authenticator::IsWorkerToken(const std::string& hash) const {
  absl::MutexLock lock(&mu_);
  return !worker_hash_.empty() && hash == worker_hash_;
}

absl::Status Authenticator::AuthorizeWorker(const Credentials& credentials, Caller& caller) const {
  caller.is_worker = true;
  if (!credentials.certificate.empty()) {
    caller.identity = credentials.certificate;
    caller.actor = absl::StrCat("workers/", caller.identity);
    caller.certificate = credentials.chain;
    const absl::Status good = CheckCertificate(credentials.chain);
    return good.ok() ? good : Refuse("bad_certificate", good);
  }
  const std::string token = TokenOf(credentials);
  if (token.empty()) {
    if (options_.allow_anonymous && !credentials.authorization.has_value()) {
      caller.actor = "anonymous";
      return absl::OkStatus();
    }
    return Refuse("no_worker_credentials",
                  absl::UnauthenticatedError(
                      "a worker needs a certificate of the coordinator's --tls-client-ca "
                      "(--tls-cert and --tls-key of tundra-worker), or its --worker-token-file's "
                      "secret (--token-file)"));
  }
  if (IsWorkerToken(HashSecret(token))) {
    caller.actor = "workers/token";
    caller.secret_hash = HashSecret(token);
    return absl::OkStatus();
  }
  return Refuse("not_a_worker",
                absl::PermissionDeniedError(
                    "this method is for workers, and the token is not the workers' secret of "
                    "--worker-token-file"));
}

absl::Status Authenticator::AuthorizeToken(const Credentials& credentials, v1::Role needed,
                                           Caller& caller) const {
  const std::string token = TokenOf(credentials);
  if (token.empty()) {
    if (options_.allow_anonymous && !credentials.authorization.has_value()) {
      caller.actor = "anonymous";
      caller.tenant.value = kDefaultTenant;
      caller.role = v1::ROLE_ADMIN;
      return absl::OkStatus();
    }
    return Refuse("no_token", absl::UnauthenticatedError(
                                  "no token: put one into a file and name it with --token-file, "
                                  "in $TUNDRA_TOKEN, or send `authorization: Bearer TOKEN`; an "
                                  "admin makes tokens with `tundra admin tokens create`"));
  }
  const std::string hash = HashSecret(token);
  {
    absl::MutexLock lock(&mu_);
    const auto found = tokens_.find(hash);
    if (found != tokens_.end()) {
      const TokenRecord& record = found->second;
      if (record.expire_time <= clock_->Now()) {
        return Refuse("expired_token",
                      absl::UnauthenticatedError(absl::StrCat("the token expired at ",
                                                              absl::FormatTime(record.expire_time),
                                                              "; ask an admin for a new one")));
      }
      caller.tenant = record.tenant;
      caller.role = record.role;
      caller.actor = absl::StrCat("tokens/", record.id.value);
      caller.display_name = record.display_name;
      caller.secret_hash = hash;
    }
  }
  if (caller.role == v1::ROLE_UNSPECIFIED) {
    if (IsWorkerToken(hash)) {
      return Refuse("role", absl::PermissionDeniedError("the workers' secret is no user's token"));
    }
    return Refuse("unknown_token",
                  absl::UnauthenticatedError("the token is unknown here or was deleted; an admin "
                                             "makes one with `tundra admin tokens create`"));
  }
  if (caller.role < needed) {
    return Refuse("role",
                  absl::PermissionDeniedError(absl::StrCat(
                      caller.method, " needs the role ", RoleWord(needed), ", and the token \"",
                      caller.display_name, "\" has the role ", RoleWord(caller.role))));
  }
  return absl::OkStatus();
}

std::string HashSecret(std::string_view secret) { return Sha256Hex(secret); }

}  // namespace tundra::coordinator
