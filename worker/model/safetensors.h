// The safetensors file format: bases, adapters and checkpoints are read and
// written with it.
//
// A file is: u64 little-endian header length N, N bytes of JSON, then the data.
// The JSON maps a tensor's name to {"dtype", "shape", "data_offsets": [begin,
// end)} with offsets from the start of the data, and "__metadata__" to strings.
// Reading is strict, because the bytes come from outside: the header has a size
// cap, dtype x shape must equal the span, spans may neither overlap nor leave a
// hole, and must fill the file exactly.
// Source: https://github.com/huggingface/safetensors, README, "Format".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/files.h"

namespace tundra {

// How a tensor's elements are stored in a file.
enum class StoredType : uint8_t { kF32, kBF16, kF16, kI64 };

// Bytes of an element.
int64_t StoredSize(StoredType type);
// "F32", "BF16", "F16", "I64".
std::string_view StoredName(StoredType type);

using Shape = std::vector<int64_t>;

// "[2, 3]".
std::string ShapeText(const Shape& shape);
// The product; shapes are bounded when parsed, so that it cannot overflow.
int64_t NumElements(const Shape& shape);

struct TensorEntry {
  std::string name;
  StoredType type = StoredType::kF32;
  Shape shape;
  // Bytes [begin, end) of the file.
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  // By begin.
  std::vector<TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
  // Where the data starts in the file.
  uint64_t data_begin = 0;

  // Null when there is none.
  const TensorEntry* Find(std::string_view name) const;
};

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// Parses the header of a file of file_size bytes, of which `head` is a prefix
// that holds the whole header. `source` names the file in messages.
// Errors: kInvalidArgument with source, offset, reason and what to do.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view head, uint64_t file_size,
                                                         std::string_view source);

// A tensor to be written. The bytes are little-endian, row-major, and must
// outlive the call.
struct TensorToWrite {
  std::string name;
  StoredType type = StoredType::kF32;
  Shape shape;
  std::string_view bytes;
};

// The bytes of a file with these tensors, in the order that the reference
// writer uses (wider element types first, then names in byte order), whatever
// order they come in; so equal tensors give equal bytes.
// A name twice, or bytes that don't fit the shape, are broken invariants.
std::string WriteSafetensors(std::vector<TensorToWrite> tensors,
                             const std::map<std::string, std::string>& metadata);

// An open safetensors file. Movable. Reads may come from several threads.
class SafetensorsFile {
 public:
  // Errors: kNotFound, kInvalidArgument as ParseSafetensorsHeader.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const SafetensorsHeader& header() const { return header_; }
  const std::string& path() const { return path_; }

  // Reads `size` bytes at `offset` of the tensor into `to`.
  // Errors: kDataLoss when the file has become shorter; kInternal.
  absl::Status Read(const TensorEntry& tensor, uint64_t offset, uint64_t size, void* to) const;

 private:
  std::string path_;
  Fd fd_;
  SafetensorsHeader header_;
};

}  // namespace tundra
