// Page tokens: where a list goes on, told to nobody but this service. A position is often the
// number of a row over all tenants, so it is encrypted: its holder learns nothing from a token, nor
// from two.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tundra::coordinator {

// Immutable, thread-safe.
class PageTokens {
 public:
  explicit PageTokens(std::string_view secret);
  // With the secret of the data folder, made when there is none, so that tokens outlive a restart.
  // Errors: those of ReadSecretFile and of writing the file.
  static absl::StatusOr<PageTokens> Open(const std::string& data_dir);

  // Bound to the list and its filter. Equal for equal arguments, so that an unchanged page is the
  // same bytes.
  std::string Make(std::string_view list, std::string_view filter, int64_t position) const;
  // `first` for an empty token. Errors: kInvalidArgument for one that Make did not make for the
  // same list and filter with the same secret.
  absl::StatusOr<int64_t> Parse(std::string_view token, std::string_view list,
                                std::string_view filter, int64_t first) const;

 private:
  std::string key_;  // 32 bytes
};

}  // namespace tundra::coordinator
