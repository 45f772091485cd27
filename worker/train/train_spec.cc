#include "worker/train/train_spec.h"

#include <bit>
#include <cmath>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra {
namespace {

constexpr int64_t kMany = int64_t{1} << 30;

// Collects what is wrong with a spec, all of it, so that one answer tells everything.
class Violations {
 public:
  void Integer(const char* name, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return;
    list_.push_back(absl::StrCat(name, " = ", value, ": use a whole number from ", low, " to ", high));
  }
  void Number(const char* name, double value, double low, double high) {
    if (value >= low && value <= high) return;  // false for NaN
    list_.push_back(absl::StrCat(name, " = ", value, ": use a number from ", low, " to ", high));
  }
  void Add(std::string text) { list_.push_back(std::move(text)); }
  absl::Status status() const {
    if (list_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrJoin(list_, "; "));
  }

 private:
  std::vector<std::string> list_;
};

// Feeds values to a hash without ambiguity.
class SpecHasher {
 public:
  void Add(std::string_view name, int64_t value) {
    hash_.Update(absl::StrCat(std::string(name), "=", value, "\n"));
  }
  // The bits: every double is told apart from every other.
  void Add(std::string_view name, double value) { Add(name, std::bit_cast<int64_t>(value)); }
  void Add(std::string_view name, const std::string& value) {
    hash_.Update(absl::StrCat(std::string(name), "=", value.size(), ":", value, "\n"));
  }
  void Bytes(std::string_view bytes) { hash_.Update(bytes); }
  std::string Finish() { return hash_.Finish(); }

 private:
  Sha256 hash_;
};

}  // namespace

absl::Status CheckTrainSpec(const TrainSpec& spec, const ModelConfig& config) {
  Violations bad;
  if ((spec.epochs > 0) == (spec.max_steps > 0)) {
    bad.Add(absl::StrCat("epochs = ", spec.epochs, " and max_steps = ", spec.max_steps,
                         ": set exactly one of them, above 0"));
  }
  bad.Integer("epochs", spec.epochs, 0, kMany);
  bad.Integer("max_steps", spec.max_steps, 0, kMany);
  bad.Integer("batch_size", spec.batch_size, 1, 1 << 24);
  bad.Integer("max_seq_length", spec.max_seq_length, 2, config.max_positions);
  bad.Integer("micro_batch_tokens", spec.micro_batch_tokens, spec.max_seq_length, 1 << 26);
  bad.Number("learning_rate", spec.learning_rate, 0, 10);
  bad.Number("warmup_ratio", spec.warmup_ratio, 0, 1);
  bad.Integer("warmup_steps", spec.warmup_steps, -1, kMany);
  bad.Number("weight_decay", spec.adamw.weight_decay, 0, 10);
  bad.Number("adam_beta1", spec.adamw.beta1, 0, 0.999999);
  bad.Number("adam_beta2", spec.adamw.beta2, 0, 0.9999999);
  bad.Number("adam_epsilon", spec.adamw.epsilon, 1e-30, 1);
  bad.Number("max_grad_norm", spec.max_grad_norm, -1, 1e12);
  bad.Integer("non_finite_limit", spec.non_finite_limit, 1, kMany);
  // All of LoRA's own are checked where the layout is made.
  if (const absl::Status lora = LoraLayout::Make(config, spec.lora).status(); !lora.ok()) {
    if (absl::IsUnimplemented(lora) && bad.status().ok()) return lora;
    bad.Add(std::string(lora.message()));
  }
  return bad.status();
}

std::string SpecHash(const TrainSpec& spec, std::span<const RowView> train) {
  SpecHasher hash;
  hash.Add("rank", spec.lora.rank);
  hash.Add("alpha", spec.lora.alpha);
  hash.Add("use_rslora", int64_t{spec.lora.use_rslora});
  hash.Add("dropout", spec.lora.dropout);
  for (const std::string& target : spec.lora.target_modules) hash.Add("target", target);
  hash.Add("epochs", spec.epochs);
  hash.Add("max_steps", spec.max_steps);
  hash.Add("batch_size", spec.batch_size);
  hash.Add("micro_batch_tokens", spec.micro_batch_tokens);
  hash.Add("max_seq_length", spec.max_seq_length);
  hash.Add("packing", int64_t{spec.packing});
  hash.Add("learning_rate", spec.learning_rate);
  hash.Add("lr_scheduler", static_cast<int64_t>(spec.lr_scheduler));
  hash.Add("warmup_ratio", spec.warmup_ratio);
  hash.Add("warmup_steps", spec.warmup_steps);
  hash.Add("weight_decay", spec.adamw.weight_decay);
  hash.Add("beta1", spec.adamw.beta1);
  hash.Add("beta2", spec.adamw.beta2);
  hash.Add("epsilon", spec.adamw.epsilon);
  hash.Add("max_grad_norm", spec.max_grad_norm);
  hash.Add("precision", static_cast<int64_t>(spec.precision));
  hash.Add("seed", static_cast<int64_t>(spec.seed));
  hash.Add("rows", static_cast<int64_t>(train.size()));
  for (const RowView& row : train) {
    hash.Add("tokens", static_cast<int64_t>(row.ids.size()));
    hash.Bytes({reinterpret_cast<const char*>(row.ids.data()), row.ids.size_bytes()});
    for (const uint8_t trained : row.trained) hash.Bytes(trained != 0 ? "1" : "0");
  }
  return hash.Finish();
}

}  // namespace tundra
