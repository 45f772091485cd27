#include "worker/model/base_files.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/model/strict_json.h"

namespace tundra {
namespace {

constexpr uint64_t kMaxIndexBytes = 256 << 20;
constexpr size_t kMaxShardFiles = 4096;
constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

// File names come from the index, hence from outside: never a path.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.size() < 256 && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos && name != "." && name != "..";
}

}  // namespace

absl::StatusOr<BaseFiles> BaseFiles::Open(const std::string& dir) {
  if (!FileExists(dir)) {
    return absl::NotFoundError(absl::StrCat(dir, ": no such base folder; check the base's name"));
  }
  BaseFiles base;
  base.dir_ = dir;
  const std::string single = dir + "/" + kSingle;
  const std::string index = dir + "/" + kIndex;
  if (!FileExists(single)) {
    if (!FileExists(index)) {
      return absl::NotFoundError(absl::StrCat(dir, ": neither ", kSingle, " nor ", kIndex,
                                              " is there; put a base in Hugging Face layout with ",
                                              "safetensors weights here"));
    }
    RETURN_IF_ERROR(base.OpenIndexed(index));
    return base;
  }
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(single));
  for (const TensorEntry& entry : file.header().tensors) base.tensors_[entry.name] = {0, entry};
  base.files_.push_back(std::move(file));
  return base;
}

absl::Status BaseFiles::OpenIndexed(const std::string& index_path) {
  ASSIGN_OR_RETURN(const nlohmann::json index, ReadStrictJson(index_path, kMaxIndexBytes));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": no \"weight_map\" object; fetch the base again"));
  }
  std::map<std::string, size_t> opened;
  std::vector<std::map<std::string, const TensorEntry*>> entries;
  files_.reserve(kMaxShardFiles);  // entries point into them
  for (const auto& [name, value] : index["weight_map"].items()) {
    if (!value.is_string() || !IsPlainFileName(value.get<std::string>())) {
      return absl::InvalidArgumentError(absl::StrCat(
          index_path, ": tensor \"", name, "\": ", value.dump(), " is not the name of a file"));
    }
    const std::string file_name = value.get<std::string>();
    auto at = opened.find(file_name);
    if (at == opened.end()) {
      if (opened.size() >= kMaxShardFiles) {
        return absl::InvalidArgumentError(
            absl::StrCat(index_path, ": over ", kMaxShardFiles, " weight files"));
      }
      absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(dir_ + "/" + file_name);
      if (absl::IsNotFound(file.status())) {
        return absl::NotFoundError(absl::StrCat(dir_, "/", file_name, ": missing, but ", kIndex,
                                                " says that tensor \"", name,
                                                "\" lies in it; fetch the base again"));
      }
      RETURN_IF_ERROR(file.status());
      at = opened.emplace(file_name, files_.size()).first;
      files_.push_back(*std::move(file));
      entries.emplace_back();
      for (const TensorEntry& entry : files_.back().header().tensors) {
        entries.back()[entry.name] = &entry;
      }
    }
    const auto entry = entries[at->second].find(name);
    if (entry == entries[at->second].end()) {
      return absl::InvalidArgumentError(absl::StrCat(dir_, "/", file_name, ": has no tensor \"",
                                                     name, "\", but ", kIndex,
                                                     " says so; fetch the base again"));
    }
    tensors_[name] = {at->second, *entry->second};
  }
  return absl::OkStatus();
}

absl::StatusOr<const BaseFiles::Located*> BaseFiles::Find(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(dir_, ": no tensor \"", std::string(name),
                                            "\" in its weights; the base is incomplete or not of ",
                                            "the architecture that its config.json says"));
  }
  return &it->second;
}

}  // namespace tundra
