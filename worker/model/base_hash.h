// The content hash of a base folder: what "the same base" means everywhere.
//
// SHA-256 over a manifest, one line each, sorted: "tensor NAME TYPE SHAPE SHA256"
// for every tensor of the weights, and "file NAME SHA256" for each of the files
// that change what the model computes or how text becomes tokens. So the hash does
// not depend on how the weights are cut into files, and changes with any byte that
// matters.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/ids.h"

namespace tundra {

// Reads every byte of the base.
// Errors: those of BaseFiles::Open; kDataLoss when a file changes meanwhile.
absl::StatusOr<BaseHash> HashBase(const std::string& dir);

// As HashBase, but returns the hash that cache_path holds for the folder when no
// file's name, size or modification time has changed since. Writes the cache; one
// that can't be read or written is only slower.
absl::StatusOr<BaseHash> HashBaseCached(const std::string& dir, const std::string& cache_path);

}  // namespace tundra
