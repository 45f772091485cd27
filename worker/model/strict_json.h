// JSON of outside files, parsed strictly: a size cap, a depth cap, valid UTF-8,
// no key twice in one object, no exception. config.json, safetensors headers,
// the shard index and adapter_config.json are all read through here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace tundra {

// Parses all of text. `source` names it in messages ("/bases/x/config.json").
// Errors: kInvalidArgument with the source, the byte offset and the reason.
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text, std::string_view source);

// ReadFile, at most max_bytes, then ParseStrictJson.
// Errors: those of both.
absl::StatusOr<nlohmann::json> ReadStrictJson(const std::string& path, uint64_t max_bytes);

}  // namespace tundra
