// The weight files of a base folder, opened: model.safetensors, or the shards
// that model.safetensors.index.json lists; tensors are found by name.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/safetensors.h"

namespace tundra {

// Movable. Reads may come from several threads.
class BaseFiles {
 public:
  struct Located {
    // Index into files().
    size_t file = 0;
    TensorEntry entry;
  };

  // Errors: kNotFound (folder, weights or a listed shard missing),
  // kInvalidArgument (damaged or contradictory files), each with the file, the
  // reason and what to do.
  static absl::StatusOr<BaseFiles> Open(const std::string& dir);

  const std::string& dir() const { return dir_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  const std::map<std::string, Located, std::less<>>& tensors() const { return tensors_; }

  // Errors: kNotFound when the base has no such tensor.
  absl::StatusOr<const Located*> Find(std::string_view name) const;

  // As SafetensorsFile::Read.
  absl::Status Read(const Located& tensor, uint64_t offset, uint64_t size, void* to) const {
    return files_[tensor.file].Read(tensor.entry, offset, size, to);
  }

 private:
  absl::Status OpenIndexed(const std::string& index_path);

  std::string dir_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Located, std::less<>> tensors_;
};

}  // namespace tundra
