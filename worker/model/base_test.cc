// Base folders on disk: damaged ones are refused with a reason; shards hold what the
// files hold, are read-only, and never change.
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "common/sha256.h"
#include "common/status_test_util.h"
#include "worker/model/base_hash.h"
#include "worker/model/model_test_util.h"

namespace tundra {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
namespace fs = std::filesystem;
constexpr auto kCopy = fs::copy_options::recursive | fs::copy_options::overwrite_existing;

class Base : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::copy(GoldenDir() + "/gqa_untied_head_dim/base", dir_.path(), kCopy);
    fs::copy(GoldenDir() + "/gqa_tied_bf16/base", single_.path(), kCopy);
  }
  absl::Status OpenStatus(const std::string& dir) { return TestBase::Open(dir, {}).status(); }
  TempDir dir_;     // three files and an index
  TempDir single_;  // one file
};

TEST_F(Base, MissingFolderWeightsOrShardIsNamed) {
  EXPECT_THAT(OpenStatus("/no/such/base"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/base")));
  fs::remove(dir_ / "model-00002-of-00003.safetensors");
  EXPECT_THAT(OpenStatus(dir_.path()),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("model-00002-of-00003.safetensors"), HasSubstr("fetch"))));
  fs::remove(single_ / "model.safetensors");
  EXPECT_THAT(OpenStatus(single_.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("neither model.safetensors nor")));
}

TEST_F(Base, TruncatedShardIsRefusedWithFileAndOffset) {
  const std::string path = dir_ / "model-00003-of-00003.safetensors";
  const uintmax_t size = fs::file_size(path);
  fs::resize_file(path, size - 1);
  EXPECT_THAT(OpenStatus(dir_.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(path), HasSubstr(std::to_string(size - 1)),
                             HasSubstr("the file ends here"))));
}

TEST_F(Base, WrongShapeNamesTensorAndBothShapes) {
  nlohmann::json config = LoadJson(single_ / "config.json");
  config["intermediate_size"] = 52;
  TUNDRA_ASSERT_OK(WriteFileAtomically(single_ / "config.json", config.dump()));
  EXPECT_THAT(OpenStatus(single_.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("model.layers.0.mlp.gate_proj.weight"),
                             HasSubstr("[48, 32]"), HasSubstr("[52, 32]"))));
}

TEST_F(Base, MissingTensorIsNamed) {
  nlohmann::json config = LoadJson(single_ / "config.json");
  config["num_hidden_layers"] = 3;
  TUNDRA_ASSERT_OK(WriteFileAtomically(single_ / "config.json", config.dump()));
  EXPECT_THAT(
      OpenStatus(single_.path()),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("model.layers.2.input_layernorm.weight")));
}

std::string SameName(const std::string& name) { return name; }

// The tensors of a base with changes to their names and one more, in one file.
void Rewrite(const std::string& dir, const std::function<std::string(const std::string&)>& rename,
             const std::string& extra = "") {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseFiles files, BaseFiles::Open(dir));
  std::vector<std::string> data;
  std::vector<TensorToWrite> tensors;
  data.reserve(files.tensors().size());
  for (const auto& [name, tensor] : files.tensors()) {
    data.emplace_back(tensor.entry.end - tensor.entry.begin, '\0');
    TUNDRA_ASSERT_OK(files.Read(tensor, 0, data.back().size(), data.back().data()));
    tensors.push_back({rename(name), tensor.entry.type, tensor.entry.shape, data.back()});
  }
  if (!extra.empty()) tensors.push_back({extra, StoredType::kF32, {1}, std::string_view("abcd")});
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir + "/model.safetensors", WriteSafetensors(tensors, {})));
}

TEST_F(Base, WeightsThatWouldBeLeftOutAreRefusedByName) {
  Rewrite(single_.path(), SameName, "model.layers.1.self_attn.q_proj.bias");
  EXPECT_THAT(OpenStatus(single_.path()),
              StatusIs(absl::StatusCode::kUnimplemented,
                       AllOf(HasSubstr("layers.1.self_attn.q_proj.bias"), HasSubstr("biases"))));
  SetUp();
  nlohmann::json config = LoadJson(single_ / "config.json");
  config["num_hidden_layers"] = 1;
  TUNDRA_ASSERT_OK(WriteFileAtomically(single_ / "config.json", config.dump()));
  EXPECT_THAT(OpenStatus(single_.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("model.layers.1.input_layernorm.weight"),
                             HasSubstr("num_hidden_layers = 1"))));
  SetUp();
  // Saved without its head: names lack "model.".
  Rewrite(single_.path(), [](const std::string& name) { return name.substr(6); });
  EXPECT_THAT(OpenStatus(single_.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("model.embed_tokens.weight")));
  SetUp();
  // What old tools leave behind changes nothing.
  Rewrite(single_.path(), SameName, "model.layers.0.self_attn.rotary_emb.inv_freq");
  TUNDRA_EXPECT_OK(OpenStatus(single_.path()));
}

TEST_F(Base, AnIndexNeverLeadsOutOfTheFolder) {
  nlohmann::json index = LoadJson(dir_ / "model.safetensors.index.json");
  index["weight_map"]["lm_head.weight"] = "../evil.safetensors";
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "model.safetensors.index.json", index.dump()));
  EXPECT_THAT(OpenStatus(dir_.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not the name of a file")));
}

TEST_F(Base, HashIgnoresFilesCutAndSeesEveryByte) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseHash before, HashBase(dir_.path()));
  // The same tensors in one file.
  Rewrite(dir_.path(), SameName);
  TUNDRA_ASSERT_OK_AND_ASSIGN(std::string whole, ReadFile(dir_ / "model.safetensors"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseHash same, HashBase(dir_.path()));
  EXPECT_EQ(before, same);
  whole.back() = static_cast<char>(whole.back() ^ 1);
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir_ / "model.safetensors", whole));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseHash flipped, HashBase(dir_.path()));
  EXPECT_NE(before, flipped);
}

TEST_F(Base, CachedHashFollowsChangesAndOutlivesADamagedCache) {
  TempDir cache;
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseHash plain, HashBase(single_.path()));
  for (int i = 0; i < 2; ++i) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseHash hash, HashBaseCached(single_.path(), cache / "c"));
    EXPECT_EQ(hash, plain);
  }
  TUNDRA_ASSERT_OK(WriteFileAtomically(cache / "c", "{"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseHash again, HashBaseCached(single_.path(), cache / "c"));
  EXPECT_EQ(again, plain);
  TUNDRA_ASSERT_OK(WriteFileAtomically(single_ / "tokenizer.json", "{}"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseHash changed, HashBaseCached(single_.path(), cache / "c"));
  EXPECT_NE(changed, plain);
}

TEST_F(Base, ShardsTogetherHoldEveryTensorAndEachHoldsItsShare) {
  for (const int shards : {1, 2, 3, 7}) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto base, TestBase::Open(dir_.path(), {.shards = shards}));
    TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseFiles files, BaseFiles::Open(dir_.path()));
    uint64_t rounding = 0;
    for (size_t u = 0; u < base->plan->units().size(); ++u) {
      const Unit& unit = base->plan->units()[u];
      rounding += kPageBytes + 64 * unit.tensors.size();
      for (const UnitTensor& tensor : unit.tensors) {
        TUNDRA_ASSERT_OK_AND_ASSIGN(const BaseFiles::Located* located, files.Find(tensor.name));
        std::string want(tensor.bytes, '\0');
        TUNDRA_ASSERT_OK(files.Read(*located, 0, tensor.bytes, want.data()));
        const std::byte* at = base->weights->ResidentAddress(static_cast<int>(u)) + tensor.offset;
        EXPECT_EQ(want, std::string_view(reinterpret_cast<const char*>(at), tensor.bytes))
            << tensor.name << " in " << shards << " shards";
        EXPECT_EQ(tensor.offset % 64, 0u);
      }
    }
    const uint64_t share = base->plan->base_bytes() / static_cast<uint64_t>(shards);
    EXPECT_GE(base->plan->shard_bytes(), share);
    EXPECT_LE(base->plan->shard_bytes(), share + rounding);
    EXPECT_EQ(base->weights->stats().resident_shard_bytes, base->plan->shard_bytes());
  }
}

using BaseDeathTest = Base;

TEST_F(BaseDeathTest, WritingToAResidentWeightFaults) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto base, TestBase::Open(single_.path(), {.shards = 2}));
  std::byte* weight = const_cast<std::byte*>(base->weights->ResidentAddress(1));
  EXPECT_EXIT({ *weight = std::byte{1}; }, ::testing::KilledBySignal(SIGSEGV), "");
}

TEST_F(Base, SealedShardsCannotBeWrittenMappedWritableOrResized) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto base, TestBase::Open(single_.path(), {}));
  const ResidentShard& shard = base->shards[0];
  if (!shard.sealed()) GTEST_SKIP() << "this kernel doesn't seal memory";
  TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string before, shard.Hash());
  const char byte = 1;
  EXPECT_LT(::pwrite(shard.fd(), &byte, 1, 0), 0);
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shard.fd(), 0), MAP_FAILED);
  EXPECT_LT(::ftruncate(shard.fd(), 0), 0);
  TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string after, shard.Hash());
  EXPECT_EQ(before, after);
}

TEST_F(Base, ShardsOfAnotherPlanAreNotMapped) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto two, TestBase::Open(single_.path(), {.shards = 2}));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto one, TestBase::Open(single_.path(), {.shards = 1}));
  const int fds[] = {two->shards[0].fd()};
  EXPECT_THAT(MappedBase::Map(*one->plan, fds),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not hold the same base")));
}

}  // namespace
}  // namespace tundra
