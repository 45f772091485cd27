// TLS certificates from PEM files: read, checked as a pair, and read again when
// the files change, so that certificates can be replaced while a program runs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace tundra {

// Paths; each may be empty.
struct TlsFiles {
  // Chain of the own certificate, leaf first, and its private key: both or none.
  std::string cert{};
  std::string key{};
  // What certificates of peers must chain to.
  std::string ca{};
  bool operator==(const TlsFiles&) const = default;
};

// The PEM texts of TlsFiles.
struct TlsMaterial {
  std::string cert;
  std::string key;
  std::string ca;
  // When the own certificate ends; infinite without one.
  absl::Time not_after = absl::InfiniteFuture();
};

// Errors: kInvalidArgument that names the file: not PEM, the key is not the certificate's, the
// certificate has expired, one of the pair is missing; those of ReadFile.
absl::StatusOr<TlsMaterial> ReadTls(const TlsFiles& files, absl::Time now);

// Whether the certificate of a client, a PEM chain with the leaf first, is good at `now` and chains
// to one of `ca`. Returns when it ends, or its chain does. Errors: kUnauthenticated, with why.
absl::StatusOr<absl::Time> VerifyClientChain(const std::string& chain, const std::string& ca,
                                             absl::Time now);

// The last good material of files that may change. Thread-safe.
class TlsSource {
 public:
  // Errors: those of ReadTls.
  static absl::StatusOr<std::shared_ptr<TlsSource>> Open(const TlsFiles& files);

  // The last good material, and its number, which grows with each change.
  std::pair<std::shared_ptr<const TlsMaterial>, uint64_t> Get() const;

  // Reads the files if they have changed since the last look. Material with a fault (a half
  // written file, a key that isn't the certificate's) is logged and not taken. Returns whether
  // new material was taken. Call it about each second, or before a new connection.
  bool Refresh();

 private:
  explicit TlsSource(TlsFiles files) : files_(std::move(files)) {}
  std::string Stamp() const;

  const TlsFiles files_;
  mutable absl::Mutex mu_;
  std::string stamp_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const TlsMaterial> material_ ABSL_GUARDED_BY(mu_);
  uint64_t number_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace tundra
