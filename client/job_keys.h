// The keys of a job file: their names, what they hold, what other tools call
// them, and which field of the API each one sets.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tundra/v1/job.pb.h"

namespace YAML {
class Node;
}

namespace tundra::client {

struct JobKey {
  // Path in the file: "training.learning_rate".
  std::string path;
  // Path of the field in the request: "job.spec.training.learning_rate".
  std::string field;
  // Sets the field. Errors: kInvalidArgument, what the value should be.
  std::function<absl::Status(const YAML::Node&, tundra::v1::Job*)> set;
};

const std::vector<JobKey>& JobKeys();

// What to say about an unknown key: the key that was meant, by spelling or
// because another tool calls it so (PEFT, Transformers, TRL, Axolotl), or all
// keys of the section. `section` is "" for the top.
std::string DidYouMean(const std::string& section, const std::string& key);

}  // namespace tundra::client
