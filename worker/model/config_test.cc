#include "worker/model/config.h"

#include <cmath>

#include "common/files.h"
#include "common/status_test_util.h"
#include "worker/model/strict_json.h"

namespace tundra {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::StatusIs;

json Llama() {
  return json::parse(R"({"architectures":["LlamaForCausalLM"],"vocab_size":128,"hidden_size":32,
    "intermediate_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
    "max_position_embeddings":256,"rms_norm_eps":1e-5,"hidden_act":"silu"})");
}

TEST(Config, ReadsClassicAndNewRopeAlike) {
  json classic = Llama();
  classic["rope_theta"] = 500000.0;
  classic["rope_scaling"] = json::parse(
      R"({"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
          "original_max_position_embeddings":32})");
  json modern = Llama();
  modern["rope_parameters"] = classic["rope_scaling"];
  modern["rope_parameters"]["rope_theta"] = 500000.0;
  TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig a, ParseModelConfig(classic, "c"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig b, ParseModelConfig(modern, "c"));
  EXPECT_EQ(a.rope.theta, 500000.0);
  EXPECT_EQ(RopeFrequencies(a), RopeFrequencies(b));
  // The highest frequency stays, the lowest is divided by the factor.
  const std::vector<float> scaled = RopeFrequencies(a);
  EXPECT_EQ(scaled[0], 1.0F);
  EXPECT_NEAR(scaled.back(), std::pow(500000.0, -6.0 / 8.0) / 8, 1e-9);
}

TEST(Config, ReadsTheActivationByTransformersNames) {
  json config = Llama();
  for (const auto& [name, want] : {std::pair{"silu", Activation::kSilu},
                                   {"swish", Activation::kSilu},
                                   {"gelu_new", Activation::kGeluTanh},
                                   {"gelu_pytorch_tanh", Activation::kGeluTanh}}) {
    config["hidden_act"] = name;
    TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig got, ParseModelConfig(config, "c"));
    EXPECT_EQ(got.activation, want) << name;
  }
}

TEST(Config, UnknownArchitecturesAreRefusedByNameWithTheList) {
  json config = Llama();
  config["architectures"] = {"GPT2LMHeadModel"};
  EXPECT_THAT(ParseModelConfig(config, "base/config.json"),
              StatusIs(absl::StatusCode::kUnimplemented,
                       ::testing::AllOf(HasSubstr("base/config.json"), HasSubstr("GPT2LMHeadModel"),
                                        HasSubstr("LlamaForCausalLM, MistralForCausalLM"))));
}

struct Bad {
  const char* field;
  const char* value;
  absl::StatusCode code;
  const char* why;
};
class BadConfigs : public ::testing::TestWithParam<Bad> {};

TEST_P(BadConfigs, AreRefusedWithFieldAndReason) {
  json config = Llama();
  config[GetParam().field] = json::parse(GetParam().value);
  EXPECT_THAT(ParseModelConfig(config, "c"), StatusIs(GetParam().code, HasSubstr(GetParam().why)));
}

constexpr absl::StatusCode kBad = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kNot = absl::StatusCode::kUnimplemented;
INSTANTIATE_TEST_SUITE_P(
    Config, BadConfigs,
    ::testing::Values(
        Bad{"vocab_size", "0", kBad, "vocab_size = 0"},
        Bad{"vocab_size", "1.5", kBad, "an integer"}, Bad{"hidden_size", "-4", kBad, "hidden_size"},
        Bad{"hidden_size", "null", kBad, "hidden_size"},
        Bad{"hidden_size", "30", kBad, "no multiple"}, Bad{"head_dim", "7", kBad, "even"},
        Bad{"num_key_value_heads", "3", kBad, "divide"},
        Bad{"num_hidden_layers", "1000000", kBad, "num_hidden_layers"},
        Bad{"vocab_size", "18446744073709551615", kBad, "vocab_size"},
        Bad{"rms_norm_eps", "\"x\"", kBad, "rms_norm_eps"},
        Bad{"architectures", "[]", kBad, "supported"},
        Bad{"eos_token_id", "\"x\"", kBad, "eos_token_id"},
        Bad{"tie_word_embeddings", "1", kBad, "true or false"},
        Bad{"rope_scaling", "{\"type\":\"yarn\",\"factor\":2}", kNot, "yarn"},
        Bad{"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":2}", kBad, "low_freq_factor"},
        Bad{"rope_theta", "0", kBad, "rope_theta"},
        Bad{"attention_bias", "true", kNot, "attention_bias"},
        Bad{"mlp_bias", "true", kNot, "mlp_bias"},
        Bad{"hidden_act", "\"gelu\"", kNot, "hidden_act \"gelu\""},
        Bad{"sliding_window", "64", kNot, "sliding_window"},
        Bad{"num_local_experts", "8", kNot, "mixture of experts"},
        Bad{"attention_dropout", "0.1", kNot, "attention_dropout"},
        Bad{"layer_types", "[\"full_attention\",\"sliding_attention\"]", kNot, "sliding_attention"},
        Bad{"rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}", kNot, "dynamic"},
        Bad{"rope_scaling", "{\"rope_type\":\"longrope\",\"factor\":2}", kNot, "longrope"},
        Bad{"rope_parameters", "{\"rope_type\":\"yarn\",\"rope_theta\":1e4}", kNot, "yarn"},
        Bad{"rope_parameters", "{\"full_attention\":{\"rope_theta\":1e4}}", kNot,
            "differ between layers"},
        Bad{"rope_parameters", "{\"partial_rotary_factor\":0.5}", kNot, "partial_rotary_factor"},
        // As far as the attention operation goes, and no further.
        Bad{"head_dim", "258", kNot, "heads of 258 dimensions"},
        Bad{"quantization_config", "{}", kNot, "quantized"}));

TEST(Config, MistralNeedsItsWindowSwitchedOff) {
  json config = Llama();
  config["architectures"] = {"MistralForCausalLM"};
  config["max_position_embeddings"] = 32768;
  EXPECT_THAT(ParseModelConfig(config, "c"), StatusIs(kNot, HasSubstr("sliding_window")));
  config["sliding_window"] = nullptr;
  TUNDRA_EXPECT_OK(ParseModelConfig(config, "c"));
}

TEST(Config, EndOfTextIdsComeFromTheGenerationConfig) {
  TempDir dir;
  json config = Llama();
  config["eos_token_id"] = 5;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "config.json", config.dump()));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig one, ReadModelConfig(dir.path()));
  EXPECT_EQ(one.eos_ids, std::vector<int64_t>{5});
  TUNDRA_ASSERT_OK(
      WriteFileAtomically(dir / "generation_config.json", R"({"eos_token_id":[2,7]})"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig two, ReadModelConfig(dir.path()));
  EXPECT_EQ(two.eos_ids, (std::vector<int64_t>{2, 7}));
}

TEST(StrictJson, RefusesWhatIsNotStrict) {
  EXPECT_THAT(ParseStrictJson(R"({"a":1,"a":2})", "s"), StatusIs(kBad, HasSubstr("\"a\" twice")));
  EXPECT_THAT(ParseStrictJson("{\"a\":\"\xff\"}", "s"), StatusIs(kBad, HasSubstr("s: ")));
  EXPECT_THAT(ParseStrictJson("{} x", "s"), StatusIs(kBad, HasSubstr("not JSON")));
  EXPECT_THAT(ParseStrictJson(std::string(100000, '['), "s"), StatusIs(kBad, HasSubstr("deep")));
  EXPECT_THAT(ParseStrictJson("1e999", "s"), StatusIs(kBad, HasSubstr("s: ")));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const json value,
                              ParseStrictJson(R"({"a":[1,{"b":null}],"c":"é"})", "s"));
  EXPECT_EQ(value["a"][1]["b"], nullptr);
}

}  // namespace
}  // namespace tundra
