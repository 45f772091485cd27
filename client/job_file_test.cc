#include "client/job_file.h"

#include "client/job_keys.h"
#include "common/files.h"
#include "common/status_test_util.h"

namespace tundra::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

constexpr char kWhole[] = R"(name: pirate-support
base: tiny-tales
dataset: {train: train.jsonl, validation: val.jsonl}
lora: {rank: 8, alpha: 16, dropout: 0.0, target_modules: all-linear, use_rslora: false}
training:
  epochs: 3                 # or max_steps
  batch_size: 16
  micro_batch_tokens: 1024
  max_seq_length: 512
  packing: true
  learning_rate: 2e-4
  lr_scheduler: cosine
  warmup_ratio: 0.03
  weight_decay: 0.0
  max_grad_norm: 1.0
  precision: f32
  loss_on: assistant
  seed: 17
resources: {devices: 2, shards: auto}
checkpoint: {every_steps: 20, keep: 2}
eval: {every_steps: 20, samples: ["Where is my parcel?"]}
)";

TEST(JobFile, ReadsEveryKeyOfTheDocumentedFile) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const JobFile file, ParseJobFile(kWhole, "job.yaml"));
  const auto& spec = file.job.spec();
  EXPECT_EQ(file.job.display_name(), "pirate-support");
  EXPECT_EQ(spec.base(), "tiny-tales");
  EXPECT_EQ(spec.dataset().validation(), "val.jsonl");
  EXPECT_EQ(spec.lora().rank(), 8);
  EXPECT_EQ(spec.lora().target_modules(0), "all-linear");
  EXPECT_TRUE(spec.lora().has_use_rslora());
  EXPECT_EQ(spec.training().epochs(), 3);
  EXPECT_DOUBLE_EQ(spec.training().learning_rate(), 2e-4);
  EXPECT_EQ(spec.training().lr_scheduler(), tundra::v1::COSINE);
  EXPECT_EQ(spec.training().precision(), tundra::v1::F32);
  EXPECT_EQ(spec.training().seed(), 17);
  EXPECT_EQ(spec.resources().device_count(), 2);
  EXPECT_EQ(spec.resources().shards(), 0);
  EXPECT_EQ(spec.checkpoint().keep(), 2);
  EXPECT_EQ(spec.eval().samples(0), "Where is my parcel?");
}

TEST(JobFile, ReadsARangeOfDevicesAndListsOfModules) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const JobFile file,
                              ParseJobFile("resources: {devices: {min: 1, max: 4}, shards: 2}\n"
                                           "lora: {target_modules: [q_proj, v_proj]}\n",
                                           "job.yaml"));
  EXPECT_EQ(file.job.spec().resources().device_range().max(), 4);
  EXPECT_EQ(file.job.spec().resources().shards(), 2);
  EXPECT_EQ(file.job.spec().lora().target_modules_size(), 2);
}

struct Fault {
  const char* text;
  const char* message;
};

class JobFileFaults : public ::testing::TestWithParam<Fault> {};

TEST_P(JobFileFaults, AreToldWithTheirLineAndARemedy) {
  EXPECT_THAT(ParseJobFile(GetParam().text, "job.yaml"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, JobFileFaults,
    ::testing::Values(
        Fault{"base: x\nlora: {r: 8}\n", "job.yaml:2: unknown key 'lora.r'; here it is lora.rank"},
        Fault{"lora: {lora_alpha: 8}\n", "here it is lora.alpha"},
        Fault{"training: {num_train_epochs: 8}\n", "here it is training.epochs"},
        Fault{"training: {lerning_rate: 8}\n", "did you mean training.learning_rate?"},
        Fault{"learning_rate: 8\n", "did you mean training.learning_rate?"},
        Fault{"trianing: {epochs: 8}\n", "did you mean training?"},
        Fault{"zzzzzz: 8\n", "it knows: name, labels, base, dataset"},
        Fault{"training:\n  epochs: three\n",
              "job.yaml:2: training.epochs is 'three'; it takes a whole number"},
        Fault{"training: {lr_scheduler: cos}\n", "one of: constant, cosine, linear"},
        Fault{"training: 5\n", "training takes a map"},
        Fault{"training: {packing: [1]}\n", "training.packing is a list; it takes true or false"},
        Fault{"base: a\nbase: b\n", "job.yaml:2: base is given twice"},
        Fault{"labels:\n  team: a\n  team: b\n",
              "job.yaml:1: labels gives team twice, again in line 3"},
        Fault{"resources:\n  devices: {min: 1, min: 2}\n",
              "job.yaml:2: resources.devices gives min twice, again in line 2"},
        Fault{"training: {epochs: 1, max_steps: 2}\n", "give one of the two"},
        Fault{"resources: {devices: many}\n", "{min: N, max: N}"},
        Fault{"resources: {shards: 0}\n", "auto, or a whole number from 1"},
        Fault{"base: [\n", "not YAML"}, Fault{"just text", "a map of keys"},
        Fault{"", "a map of keys"}));

TEST(JobFile, TellsAllFaultsAtOnce) {
  EXPECT_THAT(ParseJobFile("lora: {r: 8}\ntraining: {epochs: x}\n", "job.yaml"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("job.yaml:1:"), HasSubstr("job.yaml:2:"))));
}

TEST(JobFile, FindsTheLineOfAFieldThatTheServiceRefuses) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const JobFile file, ParseJobFile(kWhole, "job.yaml"));
  EXPECT_EQ(file.Place("job.spec.training.learning_rate"), "job.yaml:11: ");
  EXPECT_EQ(file.Place("job.spec.lora.target_modules[0]"), "job.yaml:4: ");
  EXPECT_EQ(file.Place("job.spec.resources"), "job.yaml:19: ");
  EXPECT_EQ(file.Place("job.unknown"), "job.yaml: ");
}

TEST(JobFile, DataSetsAreRelativeToTheFile) {
  JobFile file;
  file.path = "some/folder/job.yaml";
  EXPECT_EQ(file.Resolve("train.jsonl"), "some/folder/train.jsonl");
  EXPECT_EQ(file.Resolve("/abs/train.jsonl"), "/abs/train.jsonl");
}

}  // namespace
}  // namespace tundra::client
