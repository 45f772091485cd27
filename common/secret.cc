#include "common/secret.h"

#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/files.h"
#include "common/status.h"

namespace tundra {
namespace {

constexpr size_t kShortest = 32;
constexpr size_t kLongest = 512;

}  // namespace

std::string NewSecret() {
  char random[32];
  TUNDRA_CHECK(::getrandom(random, sizeof(random), 0) == sizeof(random));
  std::string text;
  absl::WebSafeBase64Escape(absl::string_view(random, sizeof(random)), &text);
  while (!text.empty() && text.back() == '=') text.pop_back();
  return "tundra_" + text;
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 64 << 10));
  return CheckSecret(text, path);
}

absl::StatusOr<std::string> CheckSecret(std::string_view text, const std::string& source) {
  const std::string secret(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
  const bool printable = std::all_of(secret.begin(), secret.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
  if (!printable || secret.size() < kShortest || secret.size() > kLongest) {
    return absl::InvalidArgumentError(absl::StrCat(
        source, ": must hold one secret of ", kShortest, " to ", kLongest,
        " printable characters and nothing else; make one with: openssl rand -hex 32"));
  }
  return secret;
}

std::string OpenToOthers(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0 || (st.st_mode & S_IROTH) == 0) return "";
  return absl::StrCat(path, " can be read by every user of this machine: chmod 600 it");
}

std::string FileStamp(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return "";
  return absl::StrCat(st.st_dev, ".", st.st_ino, ".", st.st_size, ".", st.st_mtim.tv_sec, ".",
                      st.st_mtim.tv_nsec);
}

}  // namespace tundra
