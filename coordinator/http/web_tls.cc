#include "coordinator/http/web_tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include "common/logging.h"

namespace tundra::coordinator {
namespace {

// Null when OpenSSL does not take the material, which ReadTls has let pass.
std::shared_ptr<SSL_CTX> MakeContext(const TlsMaterial& material) {
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (context == nullptr) return nullptr;
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> chain(
      BIO_new_mem_buf(material.cert.data(), static_cast<int>(material.cert.size())), BIO_free_all);
  bool ok = true;
  bool first = true;
  while (X509* const certificate = PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)) {
    if (first) {
      ok = SSL_CTX_use_certificate(context.get(), certificate) == 1;
      X509_free(certificate);
    } else {
      // The context owns the certificates of its chain.
      ok = ok && SSL_CTX_add_extra_chain_cert(context.get(), certificate) == 1;
    }
    first = false;
  }
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> key_bio(
      BIO_new_mem_buf(material.key.data(), static_cast<int>(material.key.size())), BIO_free_all);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
  ok = ok && !first && key != nullptr && SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1;
  ERR_clear_error();
  return ok ? context : nullptr;
}

struct Contexts {
  std::shared_ptr<TlsSource> source;
  absl::Mutex mu;
  uint64_t number ABSL_GUARDED_BY(mu) = 0;
  std::shared_ptr<SSL_CTX> context ABSL_GUARDED_BY(mu);
};

}  // namespace

std::function<std::shared_ptr<SSL_CTX>()> ServerContexts(std::shared_ptr<TlsSource> source) {
  auto contexts = std::make_shared<Contexts>();
  contexts->source = std::move(source);
  return [contexts] {
    const auto [material, number] = contexts->source->Get();
    absl::MutexLock lock(&contexts->mu);
    if (number != contexts->number) {
      contexts->number = number;
      if (auto context = MakeContext(*material)) {
        contexts->context = std::move(context);
      } else {
        LogWarning("the web page keeps the former certificate: OpenSSL refuses the new one");
      }
    }
    return contexts->context;
  };
}

}  // namespace tundra::coordinator
