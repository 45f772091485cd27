#include "worker/base_catalog.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "common/files.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status.h"
#include "worker/model/base_files.h"
#include "worker/model/base_hash.h"
#include "worker/model/config.h"
#include "worker/model/shard_plan.h"

namespace tundra::worker {
namespace {

// What the coordinator needs to tokenize and to render templates.
constexpr std::array kTextFiles = {
    "config.json",           "generation_config.json",  "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "chat_template.json",
};

// Of one text file; tokenizers of 256k tokens take about 35 MiB.
constexpr uint64_t kMaxTextFile = 256u << 20;

std::string DTypeName(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return "F32";
    case StoredType::kBF16:
      return "BF16";
    case StoredType::kF16:
      return "F16";
    default:
      return "";
  }
}

bool HasChatTemplate(const tundra::v1::BaseInfo& info, const std::string& dir) {
  for (const auto& file : info.text_files()) {
    if (file.filename().starts_with("chat_template.")) return true;
    if (file.filename() != "tokenizer_config.json") continue;
    const auto bytes = ReadFile(dir + "/" + file.filename(), kMaxTextFile);
    if (bytes.ok() && bytes->find("\"chat_template\"") != std::string::npos) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<BaseCatalog> BaseCatalog::Scan(const std::vector<std::string>& base_dirs,
                                              const std::string& cache_dir) {
  namespace fs = std::filesystem;
  RETURN_IF_ERROR(MakeDirs(cache_dir));
  BaseCatalog catalog;
  for (const std::string& base_dir : base_dirs) {
    std::error_code error;
    if (!fs::is_directory(base_dir, error)) {
      return absl::NotFoundError(absl::StrCat(
          "base folder ", base_dir, " does not exist; give --base-dir a folder that holds bases"));
    }
    std::vector<std::string> candidates;
    if (FileExists(base_dir + "/config.json")) candidates.push_back(base_dir);
    for (const auto& entry : fs::directory_iterator(base_dir, error)) {
      if (FileExists(entry.path().string() + "/config.json")) {
        candidates.push_back(entry.path().string());
      }
    }
    std::sort(candidates.begin(), candidates.end());
    for (const std::string& dir : candidates) {
      const absl::Status status = catalog.Add(fs::weakly_canonical(dir).string(), cache_dir);
      if (!status.ok()) LogWarning("base {} is left out: {}", dir, std::string(status.message()));
    }
  }
  return catalog;
}

absl::Status BaseCatalog::Add(const std::string& dir, const std::string& cache_dir) {
  ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(dir));
  ASSIGN_OR_RETURN(const BaseFiles files, BaseFiles::Open(dir));
  // Finds missing and misshapen tensors now rather than in a job.
  ASSIGN_OR_RETURN(const ShardPlan plan, ShardPlan::Make(config, files, 1));
  ASSIGN_OR_RETURN(const BaseHash hash,
                   HashBaseCached(dir, cache_dir + "/" + Sha256Hex(dir) + ".json"));
  if (dirs_.contains(hash.value)) return absl::OkStatus();

  tundra::v1::BaseInfo info;
  tundra::v1::Base& base = *info.mutable_base();
  base.set_name("bases/" + hash.value);
  base.set_display_name(std::filesystem::path(dir).filename().string());
  base.set_architecture(config.architecture);
  base.set_max_seq_length(static_cast<int32_t>(config.max_positions));
  int64_t parameters = 0;
  for (const Unit& unit : plan.units()) {
    for (const UnitTensor& tensor : unit.tensors) {
      int64_t elements = 1;
      for (const int64_t extent : tensor.shape) elements *= extent;
      parameters += elements;
    }
  }
  base.set_parameters(parameters);
  base.set_size_bytes(static_cast<int64_t>(plan.base_bytes()));
  base.set_dtype(DTypeName(plan.output_tensor().type));
  for (const char* module :
       {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}) {
    base.add_linear_modules(module);
  }
  for (const char* name : kTextFiles) {
    const std::string path = dir + "/" + name;
    if (!FileExists(path)) continue;
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxTextFile));
    tundra::v1::AdapterFile& file = *info.add_text_files();
    file.set_filename(name);
    file.set_sha256(Sha256Hex(bytes));
    file.set_size_bytes(static_cast<int64_t>(bytes.size()));
    text_files_[file.sha256()] = path;
  }
  base.set_has_chat_template(HasChatTemplate(info, dir));
  LogInfo("base {}: {}, {} parameters, {}", base.display_name(), base.architecture(), parameters,
          hash.value.substr(0, 12));
  dirs_[hash.value] = dir;
  bases_.push_back(std::move(info));
  return absl::OkStatus();
}

absl::StatusOr<std::string> BaseCatalog::DirOf(const std::string& base_hash) const {
  const auto it = dirs_.find(base_hash);
  if (it == dirs_.end()) {
    return absl::NotFoundError(absl::StrCat("this worker has no base ", base_hash));
  }
  return it->second;
}

std::string BaseCatalog::TextFile(const std::string& sha256) const {
  const auto it = text_files_.find(sha256);
  return it == text_files_.end() ? "" : it->second;
}

}  // namespace tundra::worker
