#include "worker/train/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status.h"
#include "worker/model/safetensors.h"

namespace tundra {
namespace {

constexpr char kFormat[] = "tundra.checkpoint.1";
constexpr char kShaKey[] = "sha256";
constexpr size_t kShaSize = 64;
constexpr char kExponents[] = "exponents";
constexpr uint64_t kMaxCheckpointBytes = uint64_t{64} << 30;

// The counters, by their names in the metadata.
struct Counter {
  const char* name;
  int64_t JobState::*field;
};
constexpr Counter kCounters[] = {{"step", &JobState::step},
                                 {"updates", &JobState::updates},
                                 {"non_finite", &JobState::non_finite},
                                 {"non_finite_in_row", &JobState::non_finite_in_row},
                                 {"redone", &JobState::redone},
                                 {"tokens", &JobState::tokens},
                                 {"target_tokens", &JobState::target_tokens}};
struct Part {
  const char* prefix;
  std::vector<float> JobState::*field;
};
constexpr Part kParts[] = {
    {"", &JobState::weights}, {"moment1.", &JobState::moment1}, {"moment2.", &JobState::moment2}};

absl::Status Damaged(std::string_view source, std::string_view why) {
  return absl::DataLossError(absl::StrCat(std::string(source), ": ", std::string(why),
                                          "; the checkpoint is damaged and is not used: an older ",
                                          "one can be"));
}

// Where the hash stands: right after `"sha256":"` in the header.
std::optional<size_t> FindSha(std::string_view bytes, uint64_t data_begin) {
  const std::string key = absl::StrCat("\"", kShaKey, "\":\"");
  const std::string_view header = bytes.substr(0, data_begin);
  const size_t at = header.find(key);
  if (at == std::string_view::npos || at + key.size() + kShaSize > header.size() ||
      header.find(key, at + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return at + key.size();
}

std::string HashWithoutSha(std::string_view bytes, size_t sha_at) {
  Sha256 hash;
  hash.Update(bytes.substr(0, sha_at));
  hash.Update(std::string(kShaSize, '0'));
  hash.Update(bytes.substr(sha_at + kShaSize));
  return hash.Finish();
}

absl::StatusOr<SafetensorsHeader> CheckedHeader(std::string_view bytes, std::string_view source) {
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(bytes, bytes.size(), source);
  if (!header.ok()) {
    return absl::DataLossError(header.status().message());
  }
  const std::optional<size_t> sha_at = FindSha(bytes, header->data_begin);
  if (!sha_at) return Damaged(source, "its header holds no hash");
  if (HashWithoutSha(bytes, *sha_at) != bytes.substr(*sha_at, kShaSize)) {
    return Damaged(source, "its bytes don't have the hash that its header says");
  }
  const auto format = header->metadata.find("format");
  if (format == header->metadata.end() || format->second != kFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat(std::string(source), ": not a checkpoint of this version (", kFormat, ")"));
  }
  return header;
}

absl::StatusOr<std::string> Metadata(const SafetensorsHeader& header, const char* key,
                                     std::string_view source) {
  const auto it = header.metadata.find(key);
  if (it == header.metadata.end()) {
    return Damaged(source, absl::StrCat("its header lacks \"", key, "\""));
  }
  return it->second;
}

absl::StatusOr<JobIdentity> IdentityOf(const SafetensorsHeader& header, std::string_view source) {
  JobIdentity identity;
  ASSIGN_OR_RETURN(identity.spec_hash, Metadata(header, "spec_hash", source));
  ASSIGN_OR_RETURN(identity.base_hash, Metadata(header, "base_hash", source));
  ASSIGN_OR_RETURN(identity.numerics_class, Metadata(header, "numerics_class", source));
  return identity;
}

absl::StatusOr<int64_t> CounterOf(const SafetensorsHeader& header, const char* key,
                                  std::string_view source) {
  ASSIGN_OR_RETURN(const std::string text, Metadata(header, key, source));
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < 0) {
    return Damaged(source, absl::StrCat("\"", key, "\" is \"", text, "\""));
  }
  return value;
}

absl::Status CheckIdentity(const JobIdentity& found, const JobIdentity& expected,
                           std::string_view source) {
  const auto check = [&](const char* what, const std::string& a, const std::string& b) {
    if (a == b) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        std::string(source), ": of another ", what, " (", a, ", not ", b,
        "), so resuming from it would not give the bytes of an undisturbed run; start anew"));
  };
  RETURN_IF_ERROR(check("job specification or data set", found.spec_hash, expected.spec_hash));
  RETURN_IF_ERROR(check("base", found.base_hash, expected.base_hash));
  return check("numerics class", found.numerics_class, expected.numerics_class);
}

// Copies a tensor's bytes out. Errors: kDataLoss when it isn't as the layout says.
absl::Status CopyTensor(const SafetensorsHeader& header, std::string_view bytes,
                        std::string_view source, const std::string& name, StoredType type,
                        const Shape& shape, void* to) {
  const TensorEntry* entry = header.Find(name);
  if (entry == nullptr || entry->type != type || entry->shape != shape) {
    return Damaged(source, absl::StrCat("tensor \"", name, "\" is missing or of another shape"));
  }
  std::memcpy(to, bytes.data() + entry->begin, entry->end - entry->begin);
  return absl::OkStatus();
}

// The checkpoint files of a folder, newest first.
absl::StatusOr<std::vector<std::string>> ListCheckpoints(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("checkpoint-") && name.ends_with(".safetensors")) names.push_back(name);
  }
  if (error) return ErrnoStatus(error.value(), dir);
  std::sort(names.rbegin(), names.rend());
  return names;
}

}  // namespace

std::string EncodeCheckpoint(const LoraLayout& layout, const JobState& state) {
  std::vector<TensorToWrite> tensors;
  for (const Part& part : kParts) {
    const std::vector<float>& values = state.*part.field;
    TUNDRA_CHECK(static_cast<int64_t>(values.size()) == layout.parameters());
    for (const LoraTensor& tensor : layout.tensors()) {
      tensors.push_back({absl::StrCat(part.prefix, tensor.name),
                         StoredType::kF32,
                         tensor.shape,
                         {reinterpret_cast<const char*>(values.data() + tensor.offset),
                          static_cast<size_t>(tensor.size) * sizeof(float)}});
    }
  }
  TUNDRA_CHECK(state.exponents.size() == layout.tensors().size());
  const std::vector<int64_t> exponents(state.exponents.begin(), state.exponents.end());
  tensors.push_back({kExponents,
                     StoredType::kI64,
                     {static_cast<int64_t>(exponents.size())},
                     {reinterpret_cast<const char*>(exponents.data()), exponents.size() * 8}});
  std::map<std::string, std::string> metadata = {{"format", kFormat},
                                                 {"spec_hash", state.identity.spec_hash},
                                                 {"base_hash", state.identity.base_hash},
                                                 {"numerics_class", state.identity.numerics_class},
                                                 {kShaKey, std::string(kShaSize, '0')}};
  for (const Counter& counter : kCounters)
    metadata[counter.name] = absl::StrCat(state.*counter.field);
  std::string bytes = WriteSafetensors(std::move(tensors), metadata);
  const std::optional<size_t> at = FindSha(bytes, bytes.size());
  TUNDRA_CHECK(at.has_value());
  bytes.replace(*at, kShaSize, Sha256Hex(bytes));
  return bytes;
}

absl::StatusOr<JobState> DecodeCheckpoint(std::string_view bytes, std::string_view source,
                                          const LoraLayout& layout, const JobIdentity& expected) {
  ASSIGN_OR_RETURN(const SafetensorsHeader header, CheckedHeader(bytes, source));
  JobState state;
  ASSIGN_OR_RETURN(state.identity, IdentityOf(header, source));
  RETURN_IF_ERROR(CheckIdentity(state.identity, expected, source));
  for (const Counter& counter : kCounters) {
    ASSIGN_OR_RETURN(state.*counter.field, CounterOf(header, counter.name, source));
  }
  for (const Part& part : kParts) {
    std::vector<float>& values = state.*part.field;
    values.resize(static_cast<size_t>(layout.parameters()));
    for (const LoraTensor& tensor : layout.tensors()) {
      RETURN_IF_ERROR(CopyTensor(header, bytes, source, absl::StrCat(part.prefix, tensor.name),
                                 StoredType::kF32, tensor.shape, values.data() + tensor.offset));
    }
  }
  std::vector<int64_t> exponents(layout.tensors().size());
  RETURN_IF_ERROR(CopyTensor(header, bytes, source, kExponents, StoredType::kI64,
                             {static_cast<int64_t>(exponents.size())}, exponents.data()));
  for (const int64_t exponent : exponents) {
    if (exponent != static_cast<int32_t>(exponent)) {
      return Damaged(source, absl::StrCat("it has the exponent ", exponent));
    }
    state.exponents.push_back(static_cast<int32_t>(exponent));
  }
  return state;
}

absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(std::string_view bytes, std::string_view source) {
  ASSIGN_OR_RETURN(const SafetensorsHeader header, CheckedHeader(bytes, source));
  CheckpointInfo info;
  ASSIGN_OR_RETURN(info.identity, IdentityOf(header, source));
  ASSIGN_OR_RETURN(info.step, CounterOf(header, "step", source));
  return info;
}

std::string CheckpointFileName(int64_t step) {
  return absl::StrFormat("checkpoint-%08d.safetensors", step);
}

absl::StatusOr<JobState> LoadNewestCheckpoint(const std::string& dir, const LoraLayout& layout,
                                              const JobIdentity& expected) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListCheckpoints(dir));
  for (const std::string& name : names) {
    const std::string path = dir + "/" + name;
    absl::StatusOr<std::string> bytes = ReadFile(path, kMaxCheckpointBytes);
    absl::StatusOr<JobState> state = bytes.ok() ? DecodeCheckpoint(*bytes, path, layout, expected)
                                                : absl::StatusOr<JobState>(bytes.status());
    if (state.ok()) return state;
    LogWarning("checkpoint passed over: {}", std::string(state.status().message()));
  }
  return absl::NotFoundError(absl::StrCat(dir, ": no checkpoint that is whole and of this job"));
}

absl::Status PruneCheckpoints(const std::string& dir, int keep) {
  TUNDRA_CHECK(keep >= 1);
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListCheckpoints(dir));
  for (size_t i = static_cast<size_t>(keep); i < names.size(); ++i) {
    std::error_code error;
    std::filesystem::remove(std::filesystem::path(dir) / names[i], error);
    if (error) return ErrnoStatus(error.value(), dir + "/" + names[i]);
  }
  return absl::OkStatus();
}

}  // namespace tundra
