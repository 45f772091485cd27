#include "worker/train/checkpoint.h"

#include <filesystem>

#include "absl/synchronization/notification.h"
#include "common/files.h"
#include "common/status_test_util.h"
#include "worker/model/model_test_util.h"
#include "worker/train/adapter.h"
#include "worker/train/checkpoint_writer.h"

namespace tundra {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

ModelConfig Config() {
  absl::StatusOr<ModelConfig> config = ReadModelConfig(GoldenDir() + "/mqa_tied_llama3/base");
  TUNDRA_CHECK(config.ok()) << config.status().ToString();
  return *config;
}

class Checkpoints : public ::testing::Test {
 protected:
  Checkpoints() : layout_(*LoraLayout::Make(Config(), {.rank = 2, .target_modules = {"q_proj"}})) {
    state_.identity = {"spec", "base", "class \"quoted\" é"};
    state_.step = 12;
    state_.updates = 11;
    state_.non_finite = 1;
    state_.tokens = int64_t{1} << 40;
    const size_t n = static_cast<size_t>(layout_.parameters());
    for (size_t i = 0; i < n; ++i) {
      state_.weights.push_back(0.5F * static_cast<float>(i));
      state_.moment1.push_back(-static_cast<float>(i));
      state_.moment2.push_back(1e-30F * static_cast<float>(i));
    }
    for (size_t i = 0; i < layout_.tensors().size(); ++i) {
      state_.exponents.push_back(i % 2 == 0 ? -5 : std::numeric_limits<int32_t>::min());
    }
  }
  LoraLayout layout_;
  JobState state_;
};

TEST_F(Checkpoints, ReadBackWhole) {
  const std::string bytes = EncodeCheckpoint(layout_, state_);
  TUNDRA_ASSERT_OK_AND_ASSIGN(const JobState back,
                              DecodeCheckpoint(bytes, "c", layout_, state_.identity));
  EXPECT_EQ(back.step, 12);
  EXPECT_EQ(back.tokens, int64_t{1} << 40);
  EXPECT_EQ(back.weights, state_.weights);
  EXPECT_EQ(back.moment1, state_.moment1);
  EXPECT_EQ(back.moment2, state_.moment2);
  EXPECT_EQ(back.exponents, state_.exponents);
  EXPECT_EQ(EncodeCheckpoint(layout_, back), bytes);
  TUNDRA_ASSERT_OK_AND_ASSIGN(const CheckpointInfo info, ReadCheckpointInfo(bytes, "c"));
  EXPECT_EQ(info.step, 12);
  EXPECT_EQ(info.identity, state_.identity);
}

TEST_F(Checkpoints, EveryTruncationAndEveryFlippedByteIsRefused) {
  const std::string bytes = EncodeCheckpoint(layout_, state_);
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 50) {
    EXPECT_THAT(DecodeCheckpoint(bytes.substr(0, size), "c", layout_, state_.identity),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("c: ")))
        << size;
  }
  for (size_t at = 0; at < bytes.size(); at += 1 + at / 500) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x20);
    EXPECT_THAT(DecodeCheckpoint(flipped, "c", layout_, state_.identity),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("c: ")))
        << at;
  }
}

TEST_F(Checkpoints, OfAnotherJobBaseOrClassAreRefusedByName) {
  const std::string bytes = EncodeCheckpoint(layout_, state_);
  const auto status = [&](JobIdentity expected) {
    return DecodeCheckpoint(bytes, "c", layout_, expected).status();
  };
  JobIdentity other = state_.identity;
  other.spec_hash = "x";
  EXPECT_THAT(status(other),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("job specification")));
  other = state_.identity;
  other.base_hash = "x";
  EXPECT_THAT(status(other),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another base")));
  other = state_.identity;
  other.numerics_class = "x";
  EXPECT_THAT(status(other),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("numerics class")));
}

TEST_F(Checkpoints, ADamagedNewestFallsBackToTheOneBefore) {
  TempDir dir;
  const CheckpointSink sink = FileCheckpointSink(dir.path(), 2);
  for (int64_t step = 10; step <= 13; ++step) {
    state_.step = step;
    TUNDRA_ASSERT_OK(sink(step, EncodeCheckpoint(layout_, state_)));
  }
  EXPECT_FALSE(FileExists(dir / CheckpointFileName(11)));
  EXPECT_TRUE(FileExists(dir / CheckpointFileName(12)));
  TUNDRA_ASSERT_OK_AND_ASSIGN(JobState newest,
                              LoadNewestCheckpoint(dir.path(), layout_, state_.identity));
  EXPECT_EQ(newest.step, 13);
  std::filesystem::resize_file(dir / CheckpointFileName(13), 500);
  TUNDRA_ASSERT_OK_AND_ASSIGN(newest, LoadNewestCheckpoint(dir.path(), layout_, state_.identity));
  EXPECT_EQ(newest.step, 12);
  std::filesystem::resize_file(dir / CheckpointFileName(12), 0);
  EXPECT_THAT(LoadNewestCheckpoint(dir.path(), layout_, state_.identity),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir.path())));
}

TEST_F(Checkpoints, TheWriterNeverMakesTheStepWait) {
  absl::Notification release;
  std::vector<int64_t> seen;
  CheckpointWriter writer(layout_, [&](int64_t step, std::string bytes) -> absl::Status {
    release.WaitForNotification();
    seen.push_back(step);
    return DecodeCheckpoint(bytes, "c", layout_, state_.identity).status();
  });
  for (int64_t step = 1; step <= 10; ++step) {
    state_.step = step;
    writer.Submit(state_);  // returns though the sink hangs
  }
  EXPECT_THAT(writer.Flush(absl::Milliseconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, ::testing::_));
  release.Notify();
  TUNDRA_ASSERT_OK(writer.Flush(absl::Seconds(30)));
  EXPECT_EQ(writer.written() + writer.dropped(), 10);
  EXPECT_EQ(writer.last_written_step(), 10);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_F(Checkpoints, AFailedWriteIsReportedAndTheNextOneTried) {
  int calls = 0;
  CheckpointWriter writer(layout_, [&](int64_t, std::string) -> absl::Status {
    return ++calls == 1 ? absl::ResourceExhaustedError("disk full") : absl::OkStatus();
  });
  writer.Submit(state_);
  EXPECT_THAT(writer.Flush(absl::Seconds(30)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("disk full")));
  writer.Submit(state_);
  TUNDRA_EXPECT_OK(writer.Flush(absl::Seconds(30)));
  EXPECT_EQ(writer.written(), 1);
}

// ---- adapters -------------------------------------------------------------------------

TEST(Adapter, FilesAreThoseThatPeftWrites) {
  int compared = 0;
  for (const nlohmann::json& model : LoadJson(GoldenDir() + "/index.json")) {
    const std::string name = model["name"];
    if (model.contains("optional")) continue;
    TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig config,
                                ReadModelConfig(GoldenDir() + "/" + name + "/base"));
    for (const char* kind : {"adapters", "runs"}) {
      const nlohmann::json golden = LoadJson(GoldenDir() + "/" + name + "/golden.json");
      for (const nlohmann::json& record : golden[kind]) {
        if (record.contains("optional")) continue;
        const std::string dir =
            GoldenDir() + "/" + name + "/" + kind + "/" + record["name"].get<std::string>();
        TUNDRA_ASSERT_OK_AND_ASSIGN(const LoadedAdapter adapter, ReadAdapter(dir, config));
        EXPECT_EQ(adapter.origin.base_name, "tiny/" + name);
        const AdapterFiles files =
            MakeAdapterFiles(adapter.layout, adapter.weights, adapter.origin);
        TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string config_json,
                                    ReadFile(dir + "/adapter_config.json"));
        EXPECT_EQ(files.config, config_json) << dir;
        TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string model_bytes,
                                    ReadFile(dir + "/adapter_model.safetensors"));
        EXPECT_EQ(files.model, model_bytes) << dir;
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 10);
}

class AdapterFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = Config();
    layout_ = std::make_unique<LoraLayout>(*LoraLayout::Make(config_, {.rank = 2}));
    weights_.resize(static_cast<size_t>(layout_->parameters()));
    InitAdapter(*layout_, 3, weights_);
    TUNDRA_ASSERT_OK(
        WriteAdapter(dir_.path(), MakeAdapterFiles(*layout_, weights_, {"b", "h", "n"})));
  }
  void Set(const char* key, const nlohmann::json& value) {
    nlohmann::json config = LoadJson(dir_ / "adapter_config.json");
    config[key] = value;
    TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "adapter_config.json", config.dump()));
  }
  absl::Status Read() { return ReadAdapter(dir_.path(), config_).status(); }

  TempDir dir_;
  ModelConfig config_;
  std::unique_ptr<LoraLayout> layout_;
  std::vector<float> weights_;
};

TEST_F(AdapterFolder, KeepsWhereItComesFrom) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const LoadedAdapter adapter, ReadAdapter(dir_.path(), config_));
  EXPECT_EQ(adapter.weights, weights_);
  EXPECT_EQ(adapter.origin.base_hash, "h");
  EXPECT_EQ(adapter.origin.numerics_class, "n");
}

TEST_F(AdapterFolder, WhatPeftCanButWeCannotIsRefusedByName) {
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, nlohmann::json>>{{"use_dora", true},
                                                           {"bias", "all"},
                                                           {"fan_in_fan_out", true},
                                                           {"modules_to_save", {"lm_head"}},
                                                           {"rank_pattern", {{"q_proj", 4}}},
                                                           {"layers_to_transform", {1}},
                                                           {"peft_type", "LOHA"},
                                                           {"init_lora_weights", "pissa_niter_4"},
                                                           {"init_lora_weights", "olora"},
                                                           {"lora_bias", true}}) {
    SetUp();
    Set(key, value);
    EXPECT_THAT(Read(), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(key)));
  }
}

TEST_F(AdapterFolder, DamageAndMismatchAreTold) {
  constexpr absl::StatusCode kBad = absl::StatusCode::kInvalidArgument;
  Set("r", 3);
  EXPECT_THAT(Read(), StatusIs(kBad, HasSubstr("[2, ")));
  SetUp();
  Set("r", 0);
  EXPECT_THAT(Read(), StatusIs(kBad, HasSubstr("r = 0")));
  SetUp();
  Set("target_modules", {"q_proj"});
  EXPECT_THAT(Read(),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("belongs to no adapted")));
  SetUp();
  Set("target_modules", ".*q_proj");
  EXPECT_THAT(Read(), StatusIs(kBad, HasSubstr("patterns")));
  SetUp();
  std::filesystem::resize_file(dir_ / "adapter_model.safetensors", 1000);
  EXPECT_THAT(Read(), StatusIs(kBad, HasSubstr("adapter_model.safetensors")));
  SetUp();
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "adapter_config.json", "{"));
  EXPECT_THAT(Read(), StatusIs(kBad, HasSubstr("adapter_config.json")));
  std::filesystem::remove(dir_ / "adapter_config.json");
  EXPECT_THAT(Read(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("adapter_config.json")));
}

}  // namespace
}  // namespace tundra
