#include "common/text/tokenizer_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tundra {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(TokenizerConfigTest, ReadsTokensAsStringsAndAsObjects) {
  TokenizerConfigFiles files;
  files.tokenizer_config_json = R"({
    "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": false},
    "eos_token": "</s>", "pad_token": null, "add_bos_token": true,
    "additional_special_tokens": ["<a>", {"content": "<b>"}],
    "model_max_length": 1000000000000000019884624838656,
    "chat_template": "{{ bos_token }}", "tokenizer_class": "X", "anything": {"else": [1]}})";
  const auto config = TokenizerConfig::FromFiles(files, "base");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->bos_token, "<s>");
  EXPECT_EQ(config->eos_token, "</s>");
  EXPECT_EQ(config->pad_token, std::nullopt);
  EXPECT_EQ(config->add_bos_token, true);
  EXPECT_EQ(config->add_eos_token, std::nullopt);
  EXPECT_EQ(config->model_max_length, std::nullopt);
  EXPECT_THAT(config->additional_special_tokens, ElementsAre("<a>", "<b>"));
  ASSERT_NE(config->DefaultChatTemplate(), nullptr);
  EXPECT_EQ(*config->DefaultChatTemplate(), "{{ bos_token }}");
}

TEST(TokenizerConfigTest, TakesFromTheSpecialTokensMapWhatTheConfigLacks) {
  TokenizerConfigFiles files;
  files.tokenizer_config_json = R"({"eos_token": "</s>", "model_max_length": 2048})";
  files.special_tokens_map_json = R"({"eos_token": "other", "unk_token": {"content": "<unk>"}})";
  const auto config = TokenizerConfig::FromFiles(files, "base");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->eos_token, "</s>");
  EXPECT_EQ(config->unk_token, "<unk>");
  EXPECT_EQ(config->model_max_length, 2048);
  EXPECT_EQ(config->DefaultChatTemplate(), nullptr);
}

TEST(TokenizerConfigTest, ReadsSeveralTemplatesAndTheFilesThatReplaceThem) {
  TokenizerConfigFiles files;
  files.tokenizer_config_json = R"({"chat_template": [{"name": "default", "template": "D"},
                                                      {"name": "tool_use", "template": "T"}]})";
  auto config = TokenizerConfig::FromFiles(files, "base");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config->DefaultChatTemplate(), "D");
  EXPECT_EQ(*config->FindChatTemplate("tool_use"), "T");
  EXPECT_EQ(config->FindChatTemplate("rag"), nullptr);
  files.chat_template_json = R"({"chat_template": "J"})";
  EXPECT_EQ(*TokenizerConfig::FromFiles(files, "base")->DefaultChatTemplate(), "J");
  files.chat_template_jinja = "file";
  EXPECT_EQ(*TokenizerConfig::FromFiles(files, "base")->DefaultChatTemplate(), "file");
}

TEST(TokenizerConfigTest, NamesFileAndKeyOfWhatIsWrong) {
  const auto refuse = [](std::string_view json, const char* place) {
    TokenizerConfigFiles files;
    files.tokenizer_config_json = json;
    const auto config = TokenizerConfig::FromFiles(files, "base");
    ASSERT_FALSE(config.ok()) << json;
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("base/tokenizer_config.json"));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(place));
  };
  refuse("{", "JSON");
  refuse("[]", "object");
  refuse(R"({"bos_token": 3})", "bos_token");
  refuse(R"({"eos_token": {"id": 3}})", "eos_token");
  refuse(R"({"add_bos_token": "yes"})", "add_bos_token");
  refuse(R"({"chat_template": [{"name": "a"}]})", "chat_template[0]");
  refuse(R"({"chat_template": [{"name": "a", "template": "x"}, {"name": "a", "template": "y"}]})",
         "chat_template[1]");
  refuse(R"({"model_max_length": "long"})", "model_max_length");
  TokenizerConfigFiles files;
  files.chat_template_jinja = "a\xFF";
  EXPECT_FALSE(TokenizerConfig::FromFiles(files, "base").ok());
  EXPECT_TRUE(TokenizerConfig::FromFiles({}, "base").ok());
}

}  // namespace
}  // namespace tundra
