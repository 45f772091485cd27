// Tells who makes a call, by its token or its certificate, and whether they may.
// The one place where this is decided, for every method of every service.
//
// Tokens are kept as hashes, in the store; all of them also stand in memory here,
// so that a call is let in or refused at once, before any of its bytes are read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/tls.h"
#include "coordinator/access/caller.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

struct AuthOptions {
  // Calls without a token are an admin's of the tenant "default", and workers need nothing.
  bool allow_anonymous = false;
  // Holds the first admin's token; read while the store has no admin's token. Empty: none.
  std::string bootstrap_token_file{};
  // Holds a secret that lets workers in without a certificate; read anew when it changes.
  std::string worker_token_file{};
  // Told of each refused call, by reason; returns at once. May be empty.
  std::function<void(std::string_view reason)> on_failure{};
  // What workers' certificates must chain to; null without TLS.
  std::shared_ptr<const TlsSource> tls{};
};

// What of a call tells who makes it.
struct Credentials {
  // The value of `authorization`; nullopt when there is none, "" when there are several.
  std::optional<std::string> authorization;
  // The name of a verified client certificate; empty without one.
  std::string certificate;
  // That certificate, a PEM chain with the leaf first.
  std::string chain;
  std::string peer;
};

// Thread-safe.
class Authenticator {
 public:
  Authenticator(Store* store, Clock* clock, AuthOptions options)
      : store_(store), clock_(clock), options_(std::move(options)) {}

  // Reads the tokens, and the first admin's where there is none. Call once. Errors: those of the
  // store and of files; kFailedPrecondition when nobody could ever call.
  absl::Status Start();
  // After a write that changed tokens. Errors: those of the store.
  absl::Status Reload();
  // Reads the workers' secret again if its file changed. Called each second.
  void Refresh();

  // Never blocks.
  Authorization Authorize(const Credentials& credentials, std::string_view method) const;
  // Whether a call without a certificate is somebody's, whatever they may do. Counts nothing, never
  // blocks.
  bool Knows(const Credentials& credentials) const;
  // Whether the token or certificate with which a stream was opened is still good; OK for callers
  // without one. Never blocks. Errors: kUnauthenticated.
  absl::Status Recheck(const Caller& caller) const;

 private:
  absl::Status AuthorizeWorker(const Credentials& credentials, Caller& caller) const;
  absl::Status AuthorizeToken(const Credentials& credentials, v1::Role needed,
                              Caller& caller) const;
  // A connection lasts longer than a handshake: whether its certificate would be let in now.
  absl::Status CheckCertificate(const std::string& chain) const;
  absl::Status Refuse(std::string_view reason, absl::Status status) const;
  absl::Status Bootstrap();
  bool IsWorkerToken(const std::string& hash) const;

  Store* const store_;
  Clock* const clock_;
  const AuthOptions options_;
  // Held over a read of the store and what follows from it: an older list must not replace a
  // newer one.
  absl::Mutex reload_mu_;
  mutable absl::Mutex mu_;
  // By hash of the secret.
  std::map<std::string, TokenRecord> tokens_ ABSL_GUARDED_BY(mu_);
  std::string worker_hash_ ABSL_GUARDED_BY(mu_);
  std::string worker_stamp_ ABSL_GUARDED_BY(mu_);
  // Until when a chain is good, by its hash, against the CA of this number of tls->Get().
  mutable std::map<std::string, absl::Time> verified_ ABSL_GUARDED_BY(mu_);
  mutable uint64_t verified_against_ ABSL_GUARDED_BY(mu_) = 0;
};

// What the store keeps of a secret.
std::string HashSecret(std::string_view secret);

}  // namespace tundra::coordinator
