#include "common/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/secret.h"
#include "common/status.h"

namespace tundra {
namespace {

constexpr uint64_t kMostBytes = 1 << 20;

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Bio = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, Freer<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX_free>>;
// Of certificates that somebody else owns.
struct StackFreer {
  void operator()(STACK_OF(X509) * p) const { sk_X509_free(p); }
};
using Stack = std::unique_ptr<STACK_OF(X509), StackFreer>;

Bio OpenBio(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// The first certificate of a PEM text; null when there is none.
X509Ptr FirstCertificate(const std::string& text) {
  const Bio bio = OpenBio(text);
  X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  return certificate;
}

// All certificates of a PEM text.
std::vector<X509Ptr> Certificates(const std::string& text) {
  const Bio bio = OpenBio(text);
  std::vector<X509Ptr> all;
  for (;;) {
    X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    ERR_clear_error();
    if (certificate == nullptr) return all;
    all.push_back(std::move(certificate));
  }
}

// `bad` when it cannot be read.
absl::Time TimeOf(const ASN1_TIME* asn1, absl::Time bad) {
  tm time{};
  if (ASN1_TIME_to_tm(asn1, &time) != 1) return bad;
  return absl::FromTM(time, absl::UTCTimeZone());
}

absl::Status CheckPair(const TlsFiles& files, TlsMaterial& material, absl::Time now) {
  const X509Ptr certificate = FirstCertificate(material.cert);
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.cert, ": holds no PEM certificate (-----BEGIN CERTIFICATE-----)"));
  }
  const Bio bio = OpenBio(material.key);
  // A key with a passphrase would ask on the terminal: it is refused instead.
  const KeyPtr key(PEM_read_bio_PrivateKey(
      bio.get(), nullptr, [](char*, int, int, void*) { return -1; }, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, ": holds no PEM private key, or one with a passphrase"));
  }
  const bool match = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!match) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, ": is not the private key of the certificate in ", files.cert));
  }
  const absl::Time not_before =
      TimeOf(X509_get0_notBefore(certificate.get()), absl::InfiniteFuture());
  if (not_before > now) {
    return absl::InvalidArgumentError(absl::StrCat(
        files.cert, ": the certificate is not valid before ", absl::FormatTime(not_before)));
  }
  material.not_after = TimeOf(X509_get0_notAfter(certificate.get()), absl::InfinitePast());
  if (material.not_after <= now) {
    return absl::InvalidArgumentError(absl::StrCat(files.cert, ": the certificate expired at ",
                                                   absl::FormatTime(material.not_after)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TlsMaterial> ReadTls(const TlsFiles& files, absl::Time now) {
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError(
        "a TLS certificate and its key go together: give both --tls-cert and --tls-key");
  }
  TlsMaterial material;
  if (!files.cert.empty()) {
    ASSIGN_OR_RETURN(material.cert, ReadFile(files.cert, kMostBytes));
    ASSIGN_OR_RETURN(material.key, ReadFile(files.key, kMostBytes));
    RETURN_IF_ERROR(CheckPair(files, material, now));
  }
  if (!files.ca.empty()) {
    ASSIGN_OR_RETURN(material.ca, ReadFile(files.ca, kMostBytes));
    if (FirstCertificate(material.ca) == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(files.ca, ": holds no PEM certificate (-----BEGIN CERTIFICATE-----)"));
    }
  }
  return material;
}

absl::StatusOr<absl::Time> VerifyClientChain(const std::string& chain, const std::string& ca,
                                             absl::Time now) {
  const std::vector<X509Ptr> certificates = Certificates(chain);
  if (certificates.empty()) return absl::UnauthenticatedError("no certificate");
  const Store store(X509_STORE_new());
  for (const X509Ptr& root : Certificates(ca)) X509_STORE_add_cert(store.get(), root.get());
  const Stack untrusted(sk_X509_new_null());  // refers to `certificates`
  for (const X509Ptr& certificate : certificates) sk_X509_push(untrusted.get(), certificate.get());
  const StoreContext context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), certificates[0].get(), untrusted.get());
  X509_STORE_CTX_set_default(context.get(), "ssl_client");
  X509_VERIFY_PARAM* const how = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(how, absl::ToTimeT(now));
  // As gRPC does: any certificate of `ca` ends a chain, self-signed or not.
  X509_VERIFY_PARAM_set_flags(how, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
  const bool good = X509_verify_cert(context.get()) == 1;
  ERR_clear_error();
  if (!good) {
    return absl::UnauthenticatedError(
        absl::StrCat("the certificate is not good: ",
                     X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()))));
  }
  absl::Time end = absl::InfiniteFuture();
  const STACK_OF(X509)* const verified = X509_STORE_CTX_get0_chain(context.get());
  for (int i = 0; i < sk_X509_num(verified); ++i) {
    end =
        std::min(end, TimeOf(X509_get0_notAfter(sk_X509_value(verified, i)), absl::InfinitePast()));
  }
  return end;
}

absl::StatusOr<std::shared_ptr<TlsSource>> TlsSource::Open(const TlsFiles& files) {
  std::shared_ptr<TlsSource> source(new TlsSource(files));
  absl::MutexLock lock(&source->mu_);
  source->stamp_ = source->Stamp();
  ASSIGN_OR_RETURN(TlsMaterial material, ReadTls(files, absl::Now()));
  source->material_ = std::make_shared<const TlsMaterial>(std::move(material));
  source->number_ = 1;
  return source;
}

std::pair<std::shared_ptr<const TlsMaterial>, uint64_t> TlsSource::Get() const {
  absl::MutexLock lock(&mu_);
  return {material_, number_};
}

bool TlsSource::Refresh() {
  absl::MutexLock lock(&mu_);
  const std::string stamp = Stamp();
  if (stamp == stamp_) return false;
  absl::StatusOr<TlsMaterial> material = ReadTls(files_, absl::Now());
  // Files that changed while they were read are read again at the next look.
  if (stamp != Stamp()) return false;
  stamp_ = stamp;
  if (!material.ok()) {
    LogWarning("keeps the former certificate: {}", std::string(material.status().message()));
    return false;
  }
  material_ = std::make_shared<const TlsMaterial>(*std::move(material));
  ++number_;
  LogInfo("took new certificates from {}", files_.cert.empty() ? files_.ca : files_.cert);
  return true;
}

std::string TlsSource::Stamp() const {
  return absl::StrCat(FileStamp(files_.cert), "/", FileStamp(files_.key), "/",
                      FileStamp(files_.ca));
}

}  // namespace tundra
