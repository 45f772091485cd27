// Validation of a data set against a base: an interface, so that the API does not
// depend on tokenizers; the implementation in common/text reads every row as
// training will.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "tundra/v1/dataset.pb.h"

namespace tundra::coordinator {

struct ValidationInput {
  // The data set as uploaded, and its file name.
  std::string_view bytes;
  std::string display_name;
  // The base's name and its text files, by file name.
  std::string base_name;
  std::map<std::string, std::string> base_files;
  int32_t max_seq_length = 2048;
  bool truncate = false;
  v1::LossOn loss_on = v1::ASSISTANT;
  int32_t preview_rows = 0;
};

// Thread-safe.
class DatasetValidator {
 public:
  virtual ~DatasetValidator() = default;
  // Problems of the data are in the report. Errors: kInvalidArgument when the
  // base's files cannot be read.
  virtual absl::StatusOr<v1::ValidationReport> Validate(const ValidationInput& input) = 0;
};

// The real one.
std::unique_ptr<DatasetValidator> NewTextValidator();

}  // namespace tundra::coordinator
