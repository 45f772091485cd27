// Secrets in files: bearer tokens, made and read.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tundra {

// A new secret: "tundra_" and 43 characters of base64url, 256 random bits.
std::string NewSecret();

// The secret that a file holds, without the space around it; 32 to 512 printable characters.
// Errors: kInvalidArgument for another text, with what to do; those of ReadFile.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// The same of a text that `source` names, such as "$TUNDRA_TOKEN": it may be sent as a header.
// Errors: kInvalidArgument.
absl::StatusOr<std::string> CheckSecret(std::string_view text, const std::string& source);

// A sentence for the log when users beyond owner and group may read the file; empty otherwise.
std::string OpenToOthers(const std::string& path);

// Changes whenever the file is written or replaced; empty while there is none. To tell whether
// to read it again.
std::string FileStamp(const std::string& path);

}  // namespace tundra
