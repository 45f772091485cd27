// The job file: YAML in, a Job of the API out, every fault with its line.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "tundra/v1/job.pb.h"

namespace tundra::client {

struct JobFile {
  // dataset.train and dataset.validation as written.
  tundra::v1::Job job;
  // Line of each key, by the API's field ("job.spec.lora.rank").
  std::map<std::string, int> lines;
  std::string path;

  // "job.yaml:12: " for a field, its nearest parent, or "job.yaml: ".
  std::string Place(const std::string& field) const;
  // Path of a data set named in the file: relative to the file's folder.
  std::string Resolve(const std::string& data_path) const;
};

// Errors: kNotFound, kInvalidArgument with all faults, one a line.
absl::StatusOr<JobFile> ReadJobFile(const std::string& path);

// The same from text; `path` is for messages.
absl::StatusOr<JobFile> ParseJobFile(const std::string& text, const std::string& path);

}  // namespace tundra::client
