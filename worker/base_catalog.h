// The bases that a worker offers: the folders beneath its base folders that hold
// a model the engine can read, each with its content hash.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tundra/v1/worker.pb.h"

namespace tundra::worker {

class BaseCatalog {
 public:
  // Reads every base beneath `base_dirs` (each folder may be a base itself, or
  // hold bases). A base that cannot be read is logged with the reason and left
  // out. Hashes are cached in `cache_dir` by size and modification time.
  // Errors: kNotFound for a base folder that does not exist.
  static absl::StatusOr<BaseCatalog> Scan(const std::vector<std::string>& base_dirs,
                                          const std::string& cache_dir);

  const std::vector<tundra::v1::BaseInfo>& bases() const { return bases_; }

  // Folder of the base with this content hash. Errors: kNotFound.
  absl::StatusOr<std::string> DirOf(const std::string& base_hash) const;

  // Path of a text file (config, tokenizer, template) by its SHA-256; empty when
  // there is none.
  std::string TextFile(const std::string& sha256) const;

 private:
  absl::Status Add(const std::string& dir, const std::string& cache_dir);

  std::vector<tundra::v1::BaseInfo> bases_;
  std::map<std::string, std::string> dirs_;
  std::map<std::string, std::string> text_files_;
};

}  // namespace tundra::worker
