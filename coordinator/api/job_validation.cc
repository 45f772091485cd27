#include "coordinator/api/job_validation.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/printable.h"

namespace tundra::coordinator {
namespace {

constexpr int32_t kMicroBatchMultiple = 128;
constexpr int32_t kDefaultMicroBatch = 1024;
constexpr int32_t kLargestMicroBatch = 1'048'576;
constexpr int32_t kDefaultSeqLength = 2048;

// Characters, not bytes: continuation bytes of UTF-8 are not counted.
size_t CountCharacters(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// A range check that also refuses NaN.
bool In(double value, double low, double high) { return value >= low && value <= high; }

bool IsLabelKey(const std::string& key) {
  return !key.empty() && key.size() <= 63 &&
         key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.-") == std::string::npos;
}

void CheckLabels(const v1::Job& job, Violations& v) {
  v.Require(job.labels_size() <= 64, "job.labels", "at most 64 labels");
  for (const auto& [key, value] : job.labels()) {
    v.Require(IsLabelKey(key), absl::StrCat("job.labels.", key),
              "a key has 1 to 63 characters of a-z, 0-9, _, . and -");
    v.Require(value.size() <= 256, absl::StrCat("job.labels.", key),
              "a value has at most 256 bytes");
  }
}

void CheckLora(const v1::LoraSpec& lora, Violations& v) {
  v.Require(!lora.has_rank() || In(lora.rank(), 1, 1024), "job.spec.lora.rank",
            absl::StrCat("must be 1 to 1024, not ", lora.rank()));
  v.Require(!lora.has_alpha() || (lora.alpha() > 0 && std::isfinite(lora.alpha())),
            "job.spec.lora.alpha", "must be a number above 0");
  v.Require(!lora.has_dropout() || (lora.dropout() >= 0 && lora.dropout() < 1),
            "job.spec.lora.dropout", "must be 0 to below 1");
  std::set<std::string> seen;
  for (const std::string& module : lora.target_modules()) {
    v.Require(!module.empty(), "job.spec.lora.target_modules", "a name is empty");
    v.Require(seen.insert(module).second, "job.spec.lora.target_modules",
              absl::StrCat(module, " is there twice"));
    v.Require(module != "all-linear" || lora.target_modules_size() == 1,
              "job.spec.lora.target_modules", "all-linear must stand alone");
  }
}

void CheckTraining(const v1::TrainingSpec& t, Violations& v) {
  const std::string p = "job.spec.training.";
  v.Require(!t.has_epochs() || In(t.epochs(), 1, 10'000), p + "epochs", "must be 1 to 10,000");
  v.Require(!t.has_max_steps() || (t.max_steps() >= 1 && t.max_steps() <= 100'000'000),
            p + "max_steps", "must be 1 to 100,000,000");
  v.Require(!t.has_batch_size() || In(t.batch_size(), 1, 65'536), p + "batch_size",
            "must be 1 to 65,536");
  v.Require(!t.has_micro_batch_tokens() ||
                (In(t.micro_batch_tokens(), kMicroBatchMultiple, kLargestMicroBatch) &&
                 t.micro_batch_tokens() % kMicroBatchMultiple == 0),
            p + "micro_batch_tokens", "must be a multiple of 128, 128 to 1,048,576");
  v.Require(!t.has_max_seq_length() || t.max_seq_length() >= 8, p + "max_seq_length",
            "must be 8 or more");
  v.Require(!t.has_learning_rate() || (t.learning_rate() > 0 && t.learning_rate() <= 1),
            p + "learning_rate",
            absl::StrCat("must be above 0 and at most 1, not ", t.learning_rate()));
  v.Require(v1::LrScheduler_IsValid(t.lr_scheduler()), p + "lr_scheduler", "is unknown");
  v.Require(!t.has_warmup_ratio() || In(t.warmup_ratio(), 0, 1), p + "warmup_ratio",
            "must be 0 to 1");
  v.Require(!t.has_weight_decay() || In(t.weight_decay(), 0, 1), p + "weight_decay",
            "must be 0 to 1");
  v.Require(!t.has_max_grad_norm() || (t.max_grad_norm() >= 0 && std::isfinite(t.max_grad_norm())),
            p + "max_grad_norm", "must be above 0, or 0 for no clipping");
  v.Require(v1::Precision_IsValid(t.precision()), p + "precision", "is unknown");
  v.Require(v1::LossOn_IsValid(t.loss_on()), p + "loss_on", "is unknown");
  v.Require(!t.has_seed() || t.seed() >= 0, p + "seed", "must be 0 to 2^63 - 1");
}

void CheckResources(const v1::ResourcesSpec& r, Violations& v) {
  const std::string p = "job.spec.resources.";
  int32_t most = 4096;
  if (r.has_device_count()) {
    most = r.device_count();
    v.Require(In(r.device_count(), 1, 4096), p + "devices", "must be 1 to 4096");
  } else if (r.has_device_range()) {
    most = r.device_range().max();
    v.Require(r.device_range().min() >= 1, p + "devices.min", "must be 1 or more");
    v.Require(r.device_range().max() >= r.device_range().min() && most <= 4096, p + "devices.max",
              "must be at least min and at most 4096");
  }
  v.Require(r.shards() >= 0, p + "shards", "must be 1 or more, or 0 for auto");
  if (r.shards() <= 1) return;
  v.Require(r.shards() <= most, p + "shards", "must not be more than the devices");
  v.Require(!r.has_device_count() || r.device_count() % r.shards() == 0, p + "shards",
            absl::StrCat("must divide the number of devices, ", r.device_count()));
  if (r.has_device_range() && r.device_range().min() >= 1) {
    v.Require(most / r.shards() * r.shards() >= r.device_range().min(), p + "shards",
              "divides no number of devices between min and max");
  }
}

}  // namespace

void CheckJob(const v1::Job& job, Violations& v) {
  const size_t name = CountCharacters(job.display_name());
  v.Require(name >= 1 && name <= 128, "job.display_name", "must have 1 to 128 characters");
  v.Require(!HasControlCharacters(job.display_name()), "job.display_name",
            "must have no control characters or line breaks");
  CheckLabels(job, v);
  const v1::JobSpec& spec = job.spec();
  v.Require(!spec.base().empty(), "job.spec.base", "is required: a name as ListBases gives it");
  v.Require(!spec.dataset().train().empty(), "job.spec.dataset.train",
            "is required: upload a data set first");
  CheckLora(spec.lora(), v);
  CheckTraining(spec.training(), v);
  CheckResources(spec.resources(), v);
  const v1::CheckpointSpec& c = spec.checkpoint();
  v.Require(!c.has_every_steps() || c.every_steps() >= 1, "job.spec.checkpoint.every_steps",
            "must be 1 or more");
  v.Require(!c.has_keep() || In(c.keep(), 1, 100), "job.spec.checkpoint.keep", "must be 1 to 100");
  const v1::EvalSpec& e = spec.eval();
  v.Require(!e.has_every_steps() || e.every_steps() >= 1, "job.spec.eval.every_steps",
            "must be 1 or more");
  v.Require(!e.has_every_steps() || !spec.dataset().validation().empty(),
            "job.spec.eval.every_steps", "needs dataset.validation");
  v.Require(e.samples_size() <= 16, "job.spec.eval.samples", "at most 16 prompts");
  for (const std::string& prompt : e.samples()) {
    v.Require(!prompt.empty() && prompt.size() <= 8192, "job.spec.eval.samples",
              "a prompt has 1 to 8192 bytes");
  }
  v.Require(!e.has_sample_max_tokens() || In(e.sample_max_tokens(), 1, 1024),
            "job.spec.eval.sample_max_tokens", "must be 1 to 1024");
}

void CheckAgainstBase(const v1::JobSpec& spec, const v1::Base& base, Violations& v) {
  const std::set<std::string> known(base.linear_modules().begin(), base.linear_modules().end());
  for (const std::string& module : spec.lora().target_modules()) {
    v.Require(
        module == "all-linear" || known.contains(module), "job.spec.lora.target_modules",
        absl::StrCat("base ", base.display_name(), " has no linear layer \"", module, "\"; it has ",
                     absl::StrJoin(base.linear_modules(), ", "), ", or write all-linear"));
  }
  const v1::TrainingSpec& t = spec.training();
  v.Require(!t.has_max_seq_length() || base.max_seq_length() <= 0 ||
                t.max_seq_length() <= base.max_seq_length(),
            "job.spec.training.max_seq_length",
            absl::StrCat("base ", base.display_name(), " supports at most ", base.max_seq_length(),
                         " tokens, not ", t.max_seq_length()));
  v1::JobSpec filled = spec;
  FillDefaults(base, filled);
  v.Require(filled.training().micro_batch_tokens() >= filled.training().max_seq_length(),
            "job.spec.training.micro_batch_tokens",
            absl::StrCat("must be at least max_seq_length, ", filled.training().max_seq_length()));
}

void FillDefaults(const v1::Base& base, v1::JobSpec& spec) {
  v1::LoraSpec* const lora = spec.mutable_lora();
  if (!lora->has_rank()) lora->set_rank(8);
  if (!lora->has_alpha()) lora->set_alpha(16);
  if (!lora->has_dropout()) lora->set_dropout(0);
  if (lora->target_modules().empty()) lora->add_target_modules("all-linear");
  if (!lora->has_use_rslora()) lora->set_use_rslora(false);
  v1::TrainingSpec* const t = spec.mutable_training();
  if (t->length_case() == v1::TrainingSpec::LENGTH_NOT_SET) t->set_epochs(1);
  if (!t->has_batch_size()) t->set_batch_size(16);
  if (!t->has_max_seq_length()) {
    t->set_max_seq_length(base.max_seq_length() > 0
                              ? std::min(kDefaultSeqLength, base.max_seq_length())
                              : kDefaultSeqLength);
  }
  if (!t->has_micro_batch_tokens()) {
    const int64_t length = t->max_seq_length();
    const int64_t rounded =
        (length + kMicroBatchMultiple - 1) / kMicroBatchMultiple * kMicroBatchMultiple;
    t->set_micro_batch_tokens(
        static_cast<int32_t>(std::clamp<int64_t>(rounded, kDefaultMicroBatch, kLargestMicroBatch)));
  }
  if (!t->has_truncate()) t->set_truncate(false);
  if (!t->has_packing()) t->set_packing(true);
  if (!t->has_learning_rate()) t->set_learning_rate(2e-4);
  if (t->lr_scheduler() == v1::LR_SCHEDULER_UNSPECIFIED) t->set_lr_scheduler(v1::COSINE);
  if (!t->has_warmup_ratio()) t->set_warmup_ratio(0.03);
  if (!t->has_weight_decay()) t->set_weight_decay(0);
  if (!t->has_max_grad_norm()) t->set_max_grad_norm(1.0);
  if (t->precision() == v1::PRECISION_UNSPECIFIED) t->set_precision(v1::F32);
  if (t->loss_on() == v1::LOSS_ON_UNSPECIFIED) t->set_loss_on(v1::ASSISTANT);
  if (!t->has_seed()) t->set_seed(0);
  spec.mutable_resources();
  if (!spec.checkpoint().has_every_steps()) spec.mutable_checkpoint()->set_every_steps(50);
  if (!spec.checkpoint().has_keep()) spec.mutable_checkpoint()->set_keep(2);
  if (!spec.eval().has_sample_max_tokens()) spec.mutable_eval()->set_sample_max_tokens(64);
}

int64_t TotalSteps(const v1::JobSpec& spec, int64_t rows) {
  const v1::TrainingSpec& t = spec.training();
  if (t.has_max_steps()) return t.max_steps();
  return t.epochs() * ((rows + t.batch_size() - 1) / t.batch_size());
}

}  // namespace tundra::coordinator
