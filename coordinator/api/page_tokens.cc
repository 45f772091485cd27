#include "coordinator/api/page_tokens.h"

#include <openssl/evp.h>

#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/files.h"
#include "common/secret.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/api/errors.h"

namespace tundra::coordinator {
namespace {

constexpr size_t kPositionBytes = 8;
constexpr size_t kBlockBytes = 16;

std::string HashBytes(std::string_view text) { return absl::HexStringToBytes(Sha256Hex(text)); }

// What ties a token to its list: the second half of its block.
std::string SealOf(std::string_view list, std::string_view filter) {
  const std::string text = absl::StrCat(absl::string_view(list.data(), list.size()), "\n",
                                        absl::string_view(filter.data(), filter.size()));
  return HashBytes(text).substr(0, kBlockBytes - kPositionBytes);
}

// AES-256 of one block: a secret permutation of all blocks, which is all that is needed here. A
// forged token has the right seal once in 2^64 tries.
std::string Permute(const std::string& key, const std::string& block, bool encrypt) {
  TUNDRA_CHECK(key.size() == 32 && block.size() == kBlockBytes);
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(
      EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  std::string out(kBlockBytes, '\0');
  int size = 0;
  const auto bytes = [](const std::string& s) {
    return reinterpret_cast<const unsigned char*>(s.data());
  };
  TUNDRA_CHECK(context != nullptr &&
               EVP_CipherInit_ex(context.get(), EVP_aes_256_ecb(), nullptr, bytes(key), nullptr,
                                 encrypt ? 1 : 0) == 1 &&
               EVP_CIPHER_CTX_set_padding(context.get(), 0) == 1 &&
               EVP_CipherUpdate(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size,
                                bytes(block), static_cast<int>(kBlockBytes)) == 1 &&
               size == static_cast<int>(kBlockBytes));
  return out;
}

}  // namespace

PageTokens::PageTokens(std::string_view secret) : key_(HashBytes(secret)) {}

absl::StatusOr<PageTokens> PageTokens::Open(const std::string& data_dir) {
  const std::string path = absl::StrCat(data_dir, "/page_token_secret");
  if (!FileExists(path)) RETURN_IF_ERROR(WriteFileAtomically(path, NewSecret() + "\n"));
  ASSIGN_OR_RETURN(const std::string secret, ReadSecretFile(path));
  return PageTokens(secret);
}

std::string PageTokens::Make(std::string_view list, std::string_view filter,
                             int64_t position) const {
  std::string block(kPositionBytes, '\0');
  for (size_t i = 0; i < kPositionBytes; ++i) {
    block[i] = static_cast<char>(static_cast<uint64_t>(position) >> (8 * i));
  }
  std::string token;
  absl::WebSafeBase64Escape(Permute(key_, block + SealOf(list, filter), /*encrypt=*/true), &token);
  return token;
}

absl::StatusOr<int64_t> PageTokens::Parse(std::string_view token, std::string_view list,
                                          std::string_view filter, int64_t first) const {
  if (token.empty()) return first;
  std::string block;
  if (token.size() <= 2 * kBlockBytes &&
      absl::WebSafeBase64Unescape({token.data(), token.size()}, &block) &&
      block.size() == kBlockBytes) {
    const std::string plain = Permute(key_, block, /*encrypt=*/false);
    if (plain.substr(kPositionBytes) == SealOf(list, filter)) {
      uint64_t position = 0;
      for (size_t i = 0; i < kPositionBytes; ++i) {
        position |= uint64_t{static_cast<unsigned char>(plain[i])} << (8 * i);
      }
      return static_cast<int64_t>(position);
    }
  }
  Violations violations;
  violations.Add("page_token",
                 "is not the next_page_token of a page of this list with the same filter; leave it "
                 "out to begin with the first page");
  return violations.ToStatus();
}

}  // namespace tundra::coordinator
