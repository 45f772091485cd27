#include "worker/model/base_hash.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status.h"
#include "worker/model/base_files.h"
#include "worker/model/strict_json.h"

namespace tundra {
namespace {

// Files beside the weights that decide results.
constexpr const char* kFiles[] = {"chat_template.jinja",     "chat_template.json",
                                  "config.json",             "generation_config.json",
                                  "special_tokens_map.json", "tokenizer.json",
                                  "tokenizer_config.json"};
constexpr uint64_t kChunkBytes = 1 << 20;
constexpr uint64_t kMaxCacheBytes = 16 << 20;

absl::StatusOr<std::string> HashTensor(const BaseFiles& base, const BaseFiles::Located& tensor,
                                       std::string& buffer) {
  Sha256 hash;
  const uint64_t size = tensor.entry.end - tensor.entry.begin;
  for (uint64_t at = 0; at < size; at += kChunkBytes) {
    const uint64_t n = std::min(kChunkBytes, size - at);
    RETURN_IF_ERROR(base.Read(tensor, at, n, buffer.data()));
    hash.Update(std::string_view(buffer).substr(0, n));
  }
  return hash.Finish();
}

// Name, size and modification time of every file that HashBase reads.
absl::StatusOr<std::string> StampOf(const std::string& dir, const BaseFiles& base) {
  std::set<std::string> paths;
  for (const SafetensorsFile& file : base.files()) paths.insert(file.path());
  for (const char* name : kFiles) {
    if (FileExists(dir + "/" + name)) paths.insert(dir + "/" + name);
  }
  std::string stamp;
  for (const std::string& path : paths) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, path);
    absl::StrAppend(&stamp, path, " ", info.st_size, " ", info.st_mtim.tv_sec, ".",
                    info.st_mtim.tv_nsec, "\n");
  }
  return Sha256Hex(stamp);
}

absl::StatusOr<BaseHash> HashOpened(const std::string& dir, const BaseFiles& base) {
  std::vector<std::string> lines;
  std::string buffer(kChunkBytes, '\0');
  for (const auto& [name, tensor] : base.tensors()) {
    ASSIGN_OR_RETURN(const std::string hash, HashTensor(base, tensor, buffer));
    lines.push_back(absl::StrCat("tensor ", name, " ", std::string(StoredName(tensor.entry.type)),
                                 " ", ShapeText(tensor.entry.shape), " ", hash));
  }
  for (const char* name : kFiles) {
    absl::StatusOr<std::string> hash = Sha256OfFile(dir + "/" + name);
    if (absl::IsNotFound(hash.status())) continue;
    RETURN_IF_ERROR(hash.status());
    lines.push_back(absl::StrCat("file ", name, " ", *hash));
  }
  std::sort(lines.begin(), lines.end());
  return BaseHash{Sha256Hex(absl::StrJoin(lines, "\n"))};
}

}  // namespace

absl::StatusOr<BaseHash> HashBase(const std::string& dir) {
  ASSIGN_OR_RETURN(const BaseFiles base, BaseFiles::Open(dir));
  return HashOpened(dir, base);
}

absl::StatusOr<BaseHash> HashBaseCached(const std::string& dir, const std::string& cache_path) {
  ASSIGN_OR_RETURN(const BaseFiles base, BaseFiles::Open(dir));
  ASSIGN_OR_RETURN(const std::string stamp, StampOf(dir, base));
  absl::StatusOr<nlohmann::json> cache = ReadStrictJson(cache_path, kMaxCacheBytes);
  if (!cache.ok() || !cache->is_object()) cache = nlohmann::json::object();
  const auto it = cache->find(stamp);
  if (it != cache->end() && it->is_string() && IsSha256Hex(it->get<std::string>())) {
    return BaseHash{it->get<std::string>()};
  }
  ASSIGN_OR_RETURN(const BaseHash hash, HashOpened(dir, base));
  ASSIGN_OR_RETURN(const std::string after, StampOf(dir, base));
  if (after != stamp) {
    return absl::DataLossError(absl::StrCat(dir, ": changed while it was being hashed; try again"));
  }
  (*cache)[stamp] = hash.value;
  if (const absl::Status status = WriteFileAtomically(cache_path, cache->dump()); !status.ok()) {
    LogWarning("base hash not cached: {}", std::string(status.message()));
  }
  return hash;
}

}  // namespace tundra
