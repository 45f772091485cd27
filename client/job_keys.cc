#include "client/job_keys.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_join.h"
#include "common/status.h"
#include "common/suggest.h"

namespace tundra::client {
namespace {

using tundra::v1::Job;

absl::Status Wrong(const YAML::Node& node, const std::string& expected) {
  const std::string value = node.IsScalar()     ? absl::StrCat("'", node.Scalar(), "'")
                            : node.IsSequence() ? "a list"
                            : node.IsMap()      ? "a map"
                                                : "nothing";
  return absl::InvalidArgumentError(absl::StrCat("is ", value, "; it takes ", expected));
}

// A setter of one scalar type.
template <typename T>
auto Scalar(const char* expected, std::function<void(const T&, Job*)> set) {
  return [=](const YAML::Node& node, Job* job) -> absl::Status {
    if (!node.IsScalar()) return Wrong(node, expected);
    try {
      set(node.as<T>(), job);
    } catch (const YAML::Exception&) {
      return Wrong(node, expected);
    }
    return absl::OkStatus();
  };
}

auto Text(std::function<void(const std::string&, Job*)> set) {
  return Scalar<std::string>("text", std::move(set));
}
auto Integer32(std::function<void(const int32_t&, Job*)> set) {
  return Scalar<int32_t>("a whole number", std::move(set));
}
auto Integer64(std::function<void(const int64_t&, Job*)> set) {
  return Scalar<int64_t>("a whole number", std::move(set));
}
auto Number(std::function<void(const double&, Job*)> set) {
  return Scalar<double>("a number", std::move(set));
}
auto Bool(std::function<void(const bool&, Job*)> set) {
  return Scalar<bool>("true or false", std::move(set));
}

// A setter of a word out of a list.
auto Word(std::map<std::string, int> words, std::function<void(int, Job*)> set) {
  return [=](const YAML::Node& node, Job* job) -> absl::Status {
    std::vector<std::string> names;
    for (const auto& [name, value] : words) names.push_back(name);
    const std::string expected = "one of: " + absl::StrJoin(names, ", ");
    if (!node.IsScalar()) return Wrong(node, expected);
    const auto it = words.find(node.Scalar());
    if (it == words.end()) return Wrong(node, expected);
    set(it->second, job);
    return absl::OkStatus();
  };
}

// A setter of a list of texts, or of one.
auto Texts(std::function<void(const std::string&, Job*)> add) {
  return [=](const YAML::Node& node, Job* job) -> absl::Status {
    if (node.IsScalar()) {
      add(node.Scalar(), job);
      return absl::OkStatus();
    }
    if (!node.IsSequence()) return Wrong(node, "a text or a list of texts");
    for (const YAML::Node& item : node) {
      if (!item.IsScalar()) return Wrong(item, "a list of texts");
      add(item.Scalar(), job);
    }
    return absl::OkStatus();
  };
}

// The YAML library takes a key that is given twice in silence.
absl::Status GivenTwice(const YAML::Node& key) {
  return absl::InvalidArgumentError(
      absl::StrCat("gives ", key.Scalar(), " twice, again in line ", key.Mark().line + 1));
}

absl::Status SetDevices(const YAML::Node& node, Job* job) {
  auto* resources = job->mutable_spec()->mutable_resources();
  const std::string expected = "a whole number, or {min: N, max: N}";
  try {
    if (node.IsScalar()) {
      resources->set_device_count(node.as<int32_t>());
      return absl::OkStatus();
    }
    if (!node.IsMap()) return Wrong(node, expected);
    std::set<std::string> seen;
    for (const auto& item : node) {
      const std::string key = item.first.as<std::string>();
      if (!seen.insert(key).second) return GivenTwice(item.first);
      if (key == "min") {
        resources->mutable_device_range()->set_min(item.second.as<int32_t>());
      } else if (key == "max") {
        resources->mutable_device_range()->set_max(item.second.as<int32_t>());
      } else {
        return absl::InvalidArgumentError(
            absl::StrCat("has no key '", key, "'; it takes ", expected));
      }
    }
  } catch (const YAML::Exception&) {
    return Wrong(node, expected);
  }
  return absl::OkStatus();
}

absl::Status SetShards(const YAML::Node& node, Job* job) {
  auto* resources = job->mutable_spec()->mutable_resources();
  if (node.IsScalar() && node.Scalar() == "auto") {
    resources->set_shards(0);
    return absl::OkStatus();
  }
  int32_t shards = 0;
  if (!node.IsScalar() || !YAML::convert<int32_t>::decode(node, shards) || shards < 1) {
    return Wrong(node, "auto, or a whole number from 1");
  }
  resources->set_shards(shards);
  return absl::OkStatus();
}

absl::Status SetLabels(const YAML::Node& node, Job* job) {
  if (!node.IsMap()) return Wrong(node, "a map of texts");
  for (const auto& item : node) {
    if (!item.second.IsScalar()) return Wrong(item.second, "a map of texts");
    const std::string key = item.first.Scalar();
    if (!job->mutable_labels()->insert({key, item.second.Scalar()}).second) {
      return GivenTwice(item.first);
    }
  }
  return absl::OkStatus();
}

std::vector<JobKey> LoraKeys() {
  const auto lora = [](Job* job) { return job->mutable_spec()->mutable_lora(); };
  return {
      {"lora.rank", "", Integer32([=](auto v, Job* j) { lora(j)->set_rank(v); })},
      {"lora.alpha", "", Number([=](auto v, Job* j) { lora(j)->set_alpha(v); })},
      {"lora.dropout", "", Number([=](auto v, Job* j) { lora(j)->set_dropout(v); })},
      {"lora.target_modules", "", Texts([=](auto v, Job* j) { lora(j)->add_target_modules(v); })},
      {"lora.use_rslora", "", Bool([=](auto v, Job* j) { lora(j)->set_use_rslora(v); })},
  };
}

std::vector<JobKey> TrainingKeys() {
  using namespace tundra::v1;  // NOLINT: the enumerators
  const auto training = [](Job* job) { return job->mutable_spec()->mutable_training(); };
  return {
      {"training.epochs", "", Integer32([=](auto v, Job* j) { training(j)->set_epochs(v); })},
      {"training.max_steps", "", Integer64([=](auto v, Job* j) { training(j)->set_max_steps(v); })},
      {"training.batch_size", "",
       Integer32([=](auto v, Job* j) { training(j)->set_batch_size(v); })},
      {"training.micro_batch_tokens", "",
       Integer32([=](auto v, Job* j) { training(j)->set_micro_batch_tokens(v); })},
      {"training.max_seq_length", "",
       Integer32([=](auto v, Job* j) { training(j)->set_max_seq_length(v); })},
      {"training.truncate", "", Bool([=](auto v, Job* j) { training(j)->set_truncate(v); })},
      {"training.packing", "", Bool([=](auto v, Job* j) { training(j)->set_packing(v); })},
      {"training.learning_rate", "",
       Number([=](auto v, Job* j) { training(j)->set_learning_rate(v); })},
      {"training.lr_scheduler", "",
       Word({{"constant", CONSTANT}, {"linear", LINEAR}, {"cosine", COSINE}},
            [=](int v, Job* j) { training(j)->set_lr_scheduler(static_cast<LrScheduler>(v)); })},
      {"training.warmup_ratio", "",
       Number([=](auto v, Job* j) { training(j)->set_warmup_ratio(v); })},
      {"training.weight_decay", "",
       Number([=](auto v, Job* j) { training(j)->set_weight_decay(v); })},
      {"training.max_grad_norm", "",
       Number([=](auto v, Job* j) { training(j)->set_max_grad_norm(v); })},
      {"training.precision", "",
       Word({{"f32", F32}, {"bf16", BF16}},
            [=](int v, Job* j) { training(j)->set_precision(static_cast<Precision>(v)); })},
      {"training.loss_on", "",
       Word({{"assistant", ASSISTANT}, {"completion", COMPLETION}, {"all", ALL}},
            [=](int v, Job* j) { training(j)->set_loss_on(static_cast<LossOn>(v)); })},
      {"training.seed", "", Integer64([=](auto v, Job* j) { training(j)->set_seed(v); })},
  };
}

std::vector<JobKey> OtherKeys() {
  const auto spec = [](Job* job) { return job->mutable_spec(); };
  return {
      {"name", "job.display_name", Text([](auto v, Job* j) { j->set_display_name(v); })},
      {"labels", "job.labels", SetLabels},
      {"base", "", Text([=](auto v, Job* j) { spec(j)->set_base(v); })},
      {"dataset.train", "",
       Text([=](auto v, Job* j) { spec(j)->mutable_dataset()->set_train(v); })},
      {"dataset.validation", "",
       Text([=](auto v, Job* j) { spec(j)->mutable_dataset()->set_validation(v); })},
      {"resources.devices", "job.spec.resources.device_count", SetDevices},
      {"resources.shards", "", SetShards},
      {"checkpoint.every_steps", "",
       Integer32([=](auto v, Job* j) { spec(j)->mutable_checkpoint()->set_every_steps(v); })},
      {"checkpoint.keep", "",
       Integer32([=](auto v, Job* j) { spec(j)->mutable_checkpoint()->set_keep(v); })},
      {"eval.every_steps", "",
       Integer32([=](auto v, Job* j) { spec(j)->mutable_eval()->set_every_steps(v); })},
      {"eval.samples", "", Texts([=](auto v, Job* j) { spec(j)->mutable_eval()->add_samples(v); })},
      {"eval.sample_max_tokens", "",
       Integer32([=](auto v, Job* j) { spec(j)->mutable_eval()->set_sample_max_tokens(v); })},
  };
}

// What other tools call a key of ours. Sources: PEFT LoraConfig, Transformers
// TrainingArguments, TRL SFTConfig, Axolotl's config reference.
const std::map<std::string, std::string>& Aliases() {
  static const auto* aliases = new std::map<std::string, std::string>{
      {"r", "lora.rank"},
      {"lora_r", "lora.rank"},
      {"lora_rank", "lora.rank"},
      {"lora_alpha", "lora.alpha"},
      {"lora_dropout", "lora.dropout"},
      {"lora_target_modules", "lora.target_modules"},
      {"lora_target_linear", "lora.target_modules"},
      {"num_train_epochs", "training.epochs"},
      {"num_epochs", "training.epochs"},
      {"n_epochs", "training.epochs"},
      {"per_device_train_batch_size", "training.batch_size (rows per step over all ranks)"},
      {"micro_batch_size", "training.batch_size (rows per step over all ranks)"},
      {"gradient_accumulation_steps",
       "training.batch_size (rows per step; micro-batches follow from micro_batch_tokens)"},
      {"lr", "training.learning_rate"},
      {"learning_rate_multiplier", "training.learning_rate"},
      {"lr_scheduler_type", "training.lr_scheduler"},
      {"warmup_steps", "training.warmup_ratio (a share of the steps)"},
      {"max_length", "training.max_seq_length"},
      {"max_seq_len", "training.max_seq_length"},
      {"sequence_len", "training.max_seq_length"},
      {"block_size", "training.max_seq_length"},
      {"sample_packing", "training.packing"},
      {"gradient_clipping", "training.max_grad_norm"},
      {"bf16", "training.precision (precision: bf16)"},
      {"fp16", "training.precision (f32 or bf16)"},
      {"torch_dtype", "training.precision"},
      {"dtype", "training.precision"},
      {"completion_only_loss", "training.loss_on (loss_on: completion)"},
      {"assistant_only_loss", "training.loss_on (loss_on: assistant)"},
      {"train_on_inputs", "training.loss_on (loss_on: all)"},
      {"random_seed", "training.seed"},
      {"model", "base"},
      {"model_name_or_path", "base"},
      {"base_model", "base"},
      {"training_file", "dataset.train"},
      {"train_file", "dataset.train"},
      {"datasets", "dataset"},
      {"data", "dataset"},
      {"validation_file", "dataset.validation"},
      {"val", "dataset.validation"},
      {"eval_dataset", "dataset.validation"},
      {"save_steps", "checkpoint.every_steps"},
      {"save_total_limit", "checkpoint.keep"},
      {"eval_steps", "eval.every_steps"},
      {"num_gpus", "resources.devices"},
      {"gpus", "resources.devices"},
      {"suffix", "name"},
      {"output_dir", "not needed: `tundra download JOB --to DIR` writes the adapter"},
      {"optim", "not needed: the optimizer is AdamW"},
  };
  return *aliases;
}

}  // namespace

const std::vector<JobKey>& JobKeys() {
  static const auto* keys = [] {
    auto* all = new std::vector<JobKey>(OtherKeys());
    for (auto& key : LoraKeys()) all->push_back(std::move(key));
    for (auto& key : TrainingKeys()) all->push_back(std::move(key));
    for (JobKey& key : *all) {
      if (key.field.empty()) key.field = "job.spec." + key.path;
    }
    return all;
  }();
  return *keys;
}

std::string DidYouMean(const std::string& section, const std::string& key) {
  if (const auto it = Aliases().find(key); it != Aliases().end()) {
    return absl::StrCat("here it is ", it->second);
  }
  const std::string prefix = section.empty() ? "" : section + ".";
  std::string best;
  size_t best_distance = 3;  // Farther is no misspelling.
  std::vector<std::string> here;
  for (const JobKey& known : JobKeys()) {
    const size_t dot = known.path.rfind('.');
    const std::string name = dot == std::string::npos ? known.path : known.path.substr(dot + 1);
    const std::string home = dot == std::string::npos ? "" : known.path.substr(0, dot);
    const std::string top = known.path.substr(0, known.path.find('.'));
    if (home == section) here.push_back(name);
    if (section.empty() && home != "" && std::find(here.begin(), here.end(), top) == here.end()) {
      here.push_back(top);
    }
    // A right key in the wrong section is the likeliest slip of all.
    if (name == key && home != section) return absl::StrCat("did you mean ", known.path, "?");
    for (const std::string& candidate : {name, top}) {
      if (home != section && !(section.empty() && candidate == top)) continue;
      const size_t distance = EditDistance(key, candidate);
      if (distance >= best_distance) continue;
      best_distance = distance;
      best = section.empty() ? candidate : prefix + candidate;
    }
  }
  if (!best.empty()) return absl::StrCat("did you mean ", best, "?");
  return absl::StrCat("it knows: ", absl::StrJoin(here, ", "));
}

}  // namespace tundra::client
