// TokenDecoder: the `decoder` of a tokenizer.json, which turns the strings of
// tokens back into text. Each step maps a list of strings to a list of strings.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/json_view.h"

namespace tundra {

// Immutable; thread-safe.
class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // No step makes more than max_bytes of new text; what it would have replaced stays then.
  virtual void Apply(std::vector<std::string>& tokens, size_t max_bytes) const = 0;
};

// Supported: Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip,
// BPEDecoder. Errors: kInvalidArgument, kUnimplemented.
absl::StatusOr<std::unique_ptr<TokenDecoder>> ParseTokenDecoder(const JsonView& json);

}  // namespace tundra
