#include "worker/model/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/model/strict_json.h"

namespace tundra {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxDimensions = 8;
constexpr int64_t kMaxElements = int64_t{1} << 48;

struct TypeRow {
  StoredType type;
  const char* name;
  int64_t size;
};
constexpr TypeRow kTypes[] = {{StoredType::kF32, "F32", 4},
                              {StoredType::kBF16, "BF16", 2},
                              {StoredType::kF16, "F16", 2},
                              {StoredType::kI64, "I64", 8}};

const TypeRow& RowOf(StoredType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row;
  }
  TUNDRA_CHECK(false) << "no such stored type";
  return kTypes[0];
}

// An error at a place of a file, with what to do about it.
absl::Status Malformed(std::string_view source, uint64_t offset, std::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(source), ": at byte ", offset, ": ", std::string(why),
                   "; the file is damaged or incomplete: fetch it again"));
}

std::optional<uint64_t> AsUnsigned(const nlohmann::json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

absl::StatusOr<Shape> ParseShape(const nlohmann::json& value, std::string_view what) {
  if (!value.is_array() || value.size() > kMaxDimensions) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": shape is not a list of at most 8 sizes"));
  }
  Shape shape;
  int64_t elements = 1;
  for (const nlohmann::json& item : value) {
    const std::optional<uint64_t> size = AsUnsigned(item);
    if (!size || *size > static_cast<uint64_t>(kMaxElements) ||
        (*size > 0 && elements > kMaxElements / static_cast<int64_t>(*size))) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(what), ": shape is not of sizes in range"));
    }
    shape.push_back(static_cast<int64_t>(*size));
    elements *= shape.back();
  }
  return shape;
}

absl::StatusOr<TensorEntry> ParseEntry(const std::string& name, const nlohmann::json& value,
                                       uint64_t data_begin, uint64_t data_size,
                                       std::string_view source) {
  const std::string what = absl::StrCat("tensor \"", name, "\"");
  const auto bad = [&](std::string_view why) {
    return Malformed(source, kLengthBytes, absl::StrCat(what, ": ", std::string(why)));
  };
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
      !value.contains("shape") || !value.contains("data_offsets")) {
    return bad("its entry is not {dtype, shape, data_offsets}");
  }
  TensorEntry entry;
  entry.name = name;
  const nlohmann::json& dtype = value["dtype"];
  bool known = false;
  for (const TypeRow& row : kTypes) {
    if (dtype.is_string() && dtype.get_ref<const std::string&>() == row.name) {
      entry.type = row.type;
      known = true;
    }
  }
  if (!known) {
    return absl::InvalidArgumentError(absl::StrCat(
        std::string(source), ": ", what, ": dtype ", dtype.dump(), " is not supported; use F32, ",
        "BF16 or F16 (quantized bases are not supported: take the unquantized one)"));
  }
  absl::StatusOr<Shape> shape = ParseShape(value["shape"], what);
  if (!shape.ok()) {
    const absl::string_view why = shape.status().message();
    return Malformed(source, kLengthBytes, {why.data(), why.size()});
  }
  entry.shape = *std::move(shape);
  const nlohmann::json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) return bad("data_offsets is not [begin, end]");
  const std::optional<uint64_t> begin = AsUnsigned(offsets[0]);
  const std::optional<uint64_t> end = AsUnsigned(offsets[1]);
  if (!begin || !end || *begin > *end) return bad("data_offsets are not in order");
  if (*end > data_size) {
    return Malformed(source, data_begin + data_size,
                     absl::StrCat("the file ends here, but ", what, " reaches to byte ",
                                  data_begin + *end));
  }
  const uint64_t wanted =
      static_cast<uint64_t>(NumElements(entry.shape)) * static_cast<uint64_t>(StoredSize(entry.type));
  if (*end - *begin != wanted) {
    return bad(absl::StrCat("spans ", *end - *begin, " bytes, but ", std::string(StoredName(entry.type)),
                            " ", ShapeText(entry.shape), " takes ", wanted));
  }
  entry.begin = data_begin + *begin;
  entry.end = data_begin + *end;
  return entry;
}

absl::Status CheckTiling(const SafetensorsHeader& header, uint64_t file_size,
                         std::string_view source) {
  uint64_t at = header.data_begin;
  for (const TensorEntry& tensor : header.tensors) {
    if (tensor.begin != at) {
      return Malformed(source, at,
                       absl::StrCat("tensor \"", tensor.name, "\" begins at byte ", tensor.begin,
                                    tensor.begin < at ? ", overlapping its neighbour"
                                                      : ", leaving a hole"));
    }
    at = tensor.end;
  }
  if (at != file_size) {
    return Malformed(source, at, absl::StrCat(file_size - at, " bytes belong to no tensor"));
  }
  return absl::OkStatus();
}

std::string HeaderJson(const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += absl::StrCat("\"__metadata__\":", nlohmann::json(metadata).dump(), ",");
  }
  uint64_t at = 0;
  for (const TensorToWrite& tensor : tensors) {
    absl::StrAppend(&json, nlohmann::json(tensor.name).dump(), ":{\"dtype\":\"",
                    std::string(StoredName(tensor.type)), "\",\"shape\":[",
                    absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", at, ",",
                    at + tensor.bytes.size(), "]},");
    at += tensor.bytes.size();
  }
  if (json.back() == ',') json.pop_back();
  json += "}";
  // The data starts at a multiple of 8 bytes, as the reference writer has it.
  json.resize((json.size() + 7) / 8 * 8, ' ');
  return json;
}

}  // namespace

int64_t StoredSize(StoredType type) { return RowOf(type).size; }
std::string_view StoredName(StoredType type) { return RowOf(type).name; }
std::string ShapeText(const Shape& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

int64_t NumElements(const Shape& shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  return elements;
}

const TensorEntry* SafetensorsHeader::Find(std::string_view name) const {
  for (const TensorEntry& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view head, uint64_t file_size,
                                                         std::string_view source) {
  if (file_size < kLengthBytes || head.size() < kLengthBytes) {
    return Malformed(source, file_size, "the file is too short for a safetensors header");
  }
  uint64_t length = 0;
  std::memcpy(&length, head.data(), kLengthBytes);
  if (length > kMaxSafetensorsHeaderBytes) {
    return Malformed(source, 0, absl::StrCat("header of ", length, " bytes is over the limit of ",
                                             kMaxSafetensorsHeaderBytes));
  }
  if (length > file_size - kLengthBytes || length > head.size() - kLengthBytes) {
    return Malformed(source, file_size,
                     absl::StrCat("the file ends here, inside its header of ", length, " bytes"));
  }
  ASSIGN_OR_RETURN(const nlohmann::json json,
                   ParseStrictJson(head.substr(kLengthBytes, length),
                                   absl::StrCat(std::string(source), ": header")));
  if (!json.is_object()) return Malformed(source, kLengthBytes, "the header is not a JSON object");
  if (json.size() > kMaxTensors) {
    return Malformed(source, kLengthBytes, absl::StrCat("over ", kMaxTensors, " tensors"));
  }
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  for (const auto& [name, value] : json.items()) {
    if (name != "__metadata__") {
      ASSIGN_OR_RETURN(TensorEntry entry, ParseEntry(name, value, header.data_begin,
                                                     file_size - header.data_begin, source));
      header.tensors.push_back(std::move(entry));
      continue;
    }
    if (!value.is_object()) return Malformed(source, kLengthBytes, "__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) {
        return Malformed(source, kLengthBytes, absl::StrCat("metadata \"", key, "\" is not text"));
      }
      header.metadata[key] = text.get<std::string>();
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  RETURN_IF_ERROR(CheckTiling(header, file_size, source));
  return header;
}

std::string WriteSafetensors(std::vector<TensorToWrite> tensors,
                             const std::map<std::string, std::string>& metadata) {
  // The reference writer sorts by (element type descending, name). Its type order
  // puts wider types later, with bf16 after f16.
  const auto order = [](StoredType type) {
    switch (type) {
      case StoredType::kI64:
        return 0;
      case StoredType::kF32:
        return 1;
      case StoredType::kBF16:
        return 2;
      case StoredType::kF16:
        return 3;
    }
    return 4;
  };
  std::sort(tensors.begin(), tensors.end(), [&](const TensorToWrite& a, const TensorToWrite& b) {
    return std::pair(order(a.type), std::string_view(a.name)) <
           std::pair(order(b.type), std::string_view(b.name));
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    TUNDRA_CHECK(i == 0 || tensors[i].name != tensors[i - 1].name) << tensors[i].name << " twice";
    TUNDRA_CHECK(static_cast<int64_t>(tensors[i].bytes.size()) ==
                 NumElements(tensors[i].shape) * StoredSize(tensors[i].type))
        << tensors[i].name;
  }
  const std::string json = HeaderJson(tensors, metadata);
  const uint64_t length = json.size();
  size_t total = kLengthBytes + json.size();
  for (const TensorToWrite& tensor : tensors) total += tensor.bytes.size();
  std::string file;
  file.reserve(total);
  file.append(reinterpret_cast<const char*>(&length), kLengthBytes);
  file += json;
  for (const TensorToWrite& tensor : tensors) file.append(tensor.bytes);
  return file;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile file;
  file.path_ = path;
  file.fd_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.fd_.valid()) return ErrnoStatus(errno, path);
  struct stat info {};
  if (::fstat(file.fd_.get(), &info) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  uint64_t length = 0;
  std::string head;
  if (size >= kLengthBytes &&
      ::pread(file.fd_.get(), &length, kLengthBytes, 0) != static_cast<ssize_t>(kLengthBytes)) {
    return ErrnoStatus(errno, path);
  }
  // An over-long length is left for the parser to refuse.
  const bool plausible = length <= kMaxSafetensorsHeaderBytes && size >= kLengthBytes;
  head.resize(std::min(size, kLengthBytes + (plausible ? length : 0)));
  size_t done = 0;
  while (done < head.size()) {
    const ssize_t n = ::pread(file.fd_.get(), head.data() + done, head.size() - done,
                              static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, path);
    if (n == 0) return absl::DataLossError(absl::StrCat(path, ": became shorter while being read"));
    done += static_cast<size_t>(n);
  }
  ASSIGN_OR_RETURN(file.header_, ParseSafetensorsHeader(head, size, path));
  return file;
}

absl::Status SafetensorsFile::Read(const TensorEntry& tensor, uint64_t offset, uint64_t size,
                                   void* to) const {
  TUNDRA_CHECK(offset <= tensor.end - tensor.begin && size <= tensor.end - tensor.begin - offset)
      << tensor.name;
  uint64_t done = 0;
  while (done < size) {
    const ssize_t n = ::pread(fd_.get(), static_cast<char*>(to) + done, size - done,
                              static_cast<off_t>(tensor.begin + offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, path_);
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(
          path_, ": at byte ", tensor.begin + offset + done, ": the file ended inside tensor \"",
          tensor.name, "\"; it was changed after it was opened: fetch it again"));
    }
    done += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace tundra
