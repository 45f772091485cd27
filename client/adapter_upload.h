// An adapter folder on its way to a group that generates with it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/rpc_calls.h"

namespace tundra::client {

// Uploads adapter_config.json and adapter_model.safetensors of `dir`.
// Returns "uploads/ID". Errors: kNotFound for a missing file.
absl::StatusOr<std::string> UploadAdapter(const Service& service, const std::string& dir);

}  // namespace tundra::client
