// PEM files of a certificate, its key and an authority. A part that begins with "@N:" is the good
// file with the bytes behind it written over those at N.
#include "common/tls.h"

#include "absl/strings/numbers.h"
#include "common/certificates_test_util.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/target.h"

namespace {

std::string Apply(const std::string& part, std::string good) {
  const size_t colon = part.find(':');
  uint32_t at = 0;
  if (!part.starts_with('@') || colon == std::string::npos ||
      !absl::SimpleAtoi(part.substr(1, colon - 1), &at) || at > good.size()) {
    return part;
  }
  return good.replace(at, part.size() - colon - 1, part.substr(colon + 1));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  static const auto authority = tundra::testing::TestCertificate::Authority("authority");
  static const auto server = authority.Issue("server", /*valid_seconds=*/1'000'000'000);
  static const fuzz::Scratch scratch;
  const auto parts = fuzz::Parts(fuzz::View(data, size), 3);
  scratch.Write("cert.pem", Apply(parts[0], server.cert()));
  scratch.Write("key.pem", Apply(parts[1], server.key()));
  scratch.Write("ca.pem", Apply(parts[2], authority.cert()));
  const auto material =
      ReadTls({.cert = scratch / "cert.pem", .key = scratch / "key.pem"}, absl::Now());
  if (material.ok()) EXPECT_FUZZ(material->not_after > absl::UnixEpoch());
  (void)ReadTls({.ca = scratch / "ca.pem"}, absl::Now());
  const auto end = VerifyClientChain(Apply(parts[0], server.cert()),
                                     Apply(parts[2], authority.cert()), absl::Now());
  if (end.ok()) EXPECT_FUZZ(*end > absl::Now());
  return 0;
}
