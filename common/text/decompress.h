// Bytes that may be gzip or zstd, given out in pieces as they are decompressed,
// so that a large data set never stands in memory whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tundra {

enum class Compression { kNone, kGzip, kZstd };

// By the first bytes.
Compression DetectCompression(std::string_view bytes);

// Calls on_piece with piece after piece of the decompressed bytes; it returns
// false to stop early, which is no error. Concatenated gzip members and zstd
// frames are one stream.
// Errors: kInvalidArgument when the stream is damaged or cut off,
// kResourceExhausted when it is longer than max_bytes.
absl::Status Decompress(std::string_view bytes, absl::FunctionRef<bool(std::string_view)> on_piece,
                        uint64_t max_bytes);

// All of it at once.
absl::StatusOr<std::string> DecompressAll(std::string_view bytes, uint64_t max_bytes);

}  // namespace tundra
