// Certificates for tests: authorities and what they sign, as PEM.
#pragma once

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "common/check.h"

namespace tundra::testing {

// A key and a certificate, self-signed or signed by another.
class TestCertificate {
 public:
  // An authority.
  static TestCertificate Authority(const std::string& name) {
    TestCertificate made(name);
    made.AddExtension(NID_basic_constraints, "critical,CA:TRUE");
    made.AddExtension(NID_key_usage, "critical,keyCertSign,cRLSign");
    made.Sign(made, 3600);
    return made;
  }
  // An authority beneath this one.
  TestCertificate IssueAuthority(const std::string& name) const {
    TestCertificate made(name);
    made.AddExtension(NID_basic_constraints, "critical,CA:TRUE");
    made.AddExtension(NID_key_usage, "critical,keyCertSign,cRLSign");
    made.Sign(*this, 3600);
    return made;
  }
  // For 127.0.0.1 and localhost, and by its name for a client.
  TestCertificate Issue(const std::string& name, long valid_seconds = 3600) const {
    TestCertificate made(name);
    made.AddExtension(NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
    made.AddExtension(NID_ext_key_usage, "serverAuth,clientAuth");
    made.Sign(*this, valid_seconds);
    return made;
  }

  std::string cert() const {
    return Pem([&](BIO* bio) { PEM_write_bio_X509(bio, certificate_.get()); });
  }
  std::string key() const {
    return Pem([&](BIO* bio) {
      PEM_write_bio_PrivateKey(bio, key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
  }

 private:
  explicit TestCertificate(const std::string& name)
      : key_(EVP_EC_gen("P-256"), EVP_PKEY_free), certificate_(X509_new(), X509_free) {
    TUNDRA_CHECK(key_ != nullptr && certificate_ != nullptr);
    X509_set_version(certificate_.get(), X509_VERSION_3);
    static long serial = 1;
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_.get()), serial++);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate_.get()), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_pubkey(certificate_.get(), key_.get());
  }

  void AddExtension(int nid, const char* value) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    TUNDRA_CHECK(extension != nullptr) << value;
    X509_add_ext(certificate_.get(), extension, -1);
    X509_EXTENSION_free(extension);
  }

  void Sign(const TestCertificate& issuer, long valid_seconds) {
    X509_set_issuer_name(certificate_.get(), X509_get_subject_name(issuer.certificate_.get()));
    X509_gmtime_adj(X509_getm_notBefore(certificate_.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate_.get()), valid_seconds);
    TUNDRA_CHECK(X509_sign(certificate_.get(), issuer.key_.get(), EVP_sha256()) > 0);
  }

  template <typename Write>
  static std::string Pem(Write write) {
    BIO* const bio = BIO_new(BIO_s_mem());
    write(bio);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    std::string text(data, static_cast<size_t>(size));
    BIO_free(bio);
    return text;
  }

  std::shared_ptr<EVP_PKEY> key_;
  std::shared_ptr<X509> certificate_;
};

}  // namespace tundra::testing
