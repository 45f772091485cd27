#include "client/job_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <vector>

#include "absl/strings/str_join.h"
#include "client/job_keys.h"
#include "client/output.h"
#include "common/files.h"
#include "common/status.h"

namespace tundra::client {
namespace {

constexpr uint64_t kMaxJobFile = 1 << 20;

class Reader {
 public:
  explicit Reader(JobFile* file) : file_(file) {}

  void ReadMap(const YAML::Node& map, const std::string& section) {
    std::set<std::string> seen;
    for (const auto& item : map) {
      const int line = item.first.Mark().line + 1;
      if (!item.first.IsScalar()) {
        Fault(line, "a key must be a word");
        continue;
      }
      const std::string key = item.first.Scalar();
      const std::string path = section.empty() ? key : section + "." + key;
      if (!seen.insert(key).second) {
        Fault(line, absl::StrCat(path, " is given twice"));
        continue;
      }
      ReadKey(item.second, section, key, path, line);
    }
  }

  const std::vector<std::string>& faults() const { return faults_; }

  void Fault(int line, const std::string& what) {
    faults_.push_back(absl::StrCat(file_->path, ":", line, ": ", what));
  }

 private:
  void ReadKey(const YAML::Node& value, const std::string& section, const std::string& key,
               const std::string& path, int line) {
    const auto& keys = JobKeys();
    const auto known =
        std::find_if(keys.begin(), keys.end(), [&](const JobKey& k) { return k.path == path; });
    if (known != keys.end()) {
      file_->lines[known->field] = line;
      const absl::Status status = known->set(value, &file_->job);
      if (!status.ok()) Fault(line, absl::StrCat(path, " ", status.message()));
      return;
    }
    const bool is_section = std::any_of(
        keys.begin(), keys.end(), [&](const JobKey& k) { return k.path.starts_with(path + "."); });
    if (!is_section) {
      Fault(line, absl::StrCat("unknown key '", path, "'; ", DidYouMean(section, key)));
    } else if (!value.IsMap()) {
      Fault(line, absl::StrCat(path, " takes a map of keys, for example ", path, ": {…}"));
    } else {
      ReadMap(value, path);
    }
  }

  JobFile* const file_;
  std::vector<std::string> faults_;
};

}  // namespace

std::string JobFile::Place(const std::string& field) const {
  std::string at = field;
  while (!at.empty()) {
    // Where a section as a whole is at fault, its first key will do.
    const auto it = lines.lower_bound(at);
    if (it != lines.end() && (it->first == at || it->first.starts_with(at + "."))) {
      return absl::StrCat(path, ":", it->second, ": ");
    }
    const size_t dot = at.find_last_of(".[");
    at = dot == std::string::npos ? "" : at.substr(0, dot);
    if (at == "job" || at == "job.spec") break;
  }
  return absl::StrCat(path, ": ");
}

std::string JobFile::Resolve(const std::string& data_path) const {
  return (std::filesystem::path(path).parent_path() / data_path).string();
}

absl::StatusOr<JobFile> ReadJobFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxJobFile));
  if (!IsUtf8(text)) {
    return absl::InvalidArgumentError(path + ": not valid UTF-8; save the file as UTF-8");
  }
  return ParseJobFile(text, path);
}

absl::StatusOr<JobFile> ParseJobFile(const std::string& text, const std::string& path) {
  JobFile file;
  file.path = path;
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":", error.mark.line + 1, ": not YAML: ", error.msg));
  }
  if (!root.IsMap()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a job file is a map of keys; `tundra submit --help` shows one"));
  }
  Reader reader(&file);
  try {
    reader.ReadMap(root, "");
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
  const auto epochs = file.lines.find("job.spec.training.epochs");
  const auto max_steps = file.lines.find("job.spec.training.max_steps");
  if (epochs != file.lines.end() && max_steps != file.lines.end()) {
    reader.Fault(std::max(epochs->second, max_steps->second),
                 "training.epochs and training.max_steps are both given; give one of the two");
  }
  if (!reader.faults().empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(reader.faults(), "\n"));
  }
  return file;
}

}  // namespace tundra::client
