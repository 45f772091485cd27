// SHA-256 of bytes, streams and files, as lower-case hex.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

struct evp_md_ctx_st;

namespace tundra {

// Incremental hash. Not thread-safe. Usable until Finish().
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void Update(std::string_view bytes);
  // 64 hex characters. Call once.
  std::string Finish();

 private:
  evp_md_ctx_st* context_;
};

std::string Sha256Hex(std::string_view bytes);

// Errors: kNotFound, kInternal, as ReadFile.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

// True for exactly 64 characters of [0-9a-f].
bool IsSha256Hex(std::string_view text);

}  // namespace tundra
