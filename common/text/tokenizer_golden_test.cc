// Compares ids, offsets and decoded text with Hugging Face tokenizers: for each
// small tokenizer of tests/parity/golden/tokenizers, the same strings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/text/golden_files.h"
#include "common/text/tokenizer.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

constexpr int kFailuresShown = 5;

// Byte offsets as the golden files count: in code points.
std::vector<std::pair<uint32_t, uint32_t>> InCodePoints(
    const std::string& text, const std::vector<std::pair<uint32_t, uint32_t>>& offsets) {
  std::vector<uint32_t> count(text.size() + 1, 0);
  for (size_t i = 0; i < text.size(); ++i) {
    count[i + 1] = count[i] + (i + 1 == text.size() || !IsUtf8Continuation(text[i + 1]) ? 1 : 0);
  }
  std::vector<std::pair<uint32_t, uint32_t>> out;
  for (const auto& [begin, end] : offsets) out.emplace_back(count[begin], count[end]);
  return out;
}

class TokenizerGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string folder = "tokenizers/" + GetParam();
    auto tokenizer = Tokenizer::FromJson(ReadGolden(folder + "/tokenizer.json"), "tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerGolden, EncodesToTheSameIdsAndOffsets) {
  const auto strings = ReadGoldenLines("tokenizers/strings.jsonl.gz");
  const auto goldens = ReadGoldenLines("tokenizers/" + GetParam() + "/encodings.jsonl.gz");
  ASSERT_EQ(strings.size(), goldens.size());
  ASSERT_GE(strings.size(), 2000u);
  int failures = 0, offsets_compared = 0;
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto text = strings[i].at("text").get<std::string>();
    for (const bool special : {false, true}) {
      const auto want = goldens[i].at(special ? "with_special" : "ids").get<Ids>();
      const auto ids = tokenizer_->Encode(text, special);
      ASSERT_TRUE(ids.ok()) << ids.status();
      if (*ids != want && ++failures <= kFailuresShown) {
        EXPECT_EQ(*ids, want) << "string " << i << ", special " << special << ": "
                              << strings[i].dump();
      }
    }
    if (!goldens[i].contains("offsets")) continue;
    ++offsets_compared;
    const auto encoding = tokenizer_->EncodeWithOffsets(text, false);
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    const auto want = goldens[i].at("offsets").get<std::vector<std::pair<uint32_t, uint32_t>>>();
    const auto offsets = InCodePoints(text, encoding->offsets);
    if (offsets != want && ++failures <= kFailuresShown) {
      EXPECT_EQ(offsets, want) << "offsets of string " << i << ": " << strings[i].dump();
    }
  }
  EXPECT_EQ(failures, 0);
  EXPECT_GT(offsets_compared, 100);
  RecordProperty("strings", static_cast<int>(strings.size()));
}

TEST_P(TokenizerGolden, DecodesToTheSameText) {
  const auto goldens = ReadGoldenLines("tokenizers/" + GetParam() + "/decodings.jsonl.gz");
  ASSERT_GT(goldens.size(), 100u);
  int failures = 0;
  for (const json& golden : goldens) {
    const auto ids = golden.at("ids").get<Ids>();
    for (const bool skip : {true, false}) {
      const auto want = golden.at(skip ? "skip" : "keep").get<std::string>();
      const std::string text = tokenizer_->Decode(ids, skip);
      if (text != want && ++failures <= kFailuresShown) {
        EXPECT_EQ(text, want) << golden.dump();
      }
    }
  }
  EXPECT_EQ(failures, 0);
}

// Put … Put, Finish give the text of Decode, in parts that are whole UTF-8.
TEST_P(TokenizerGolden, StreamsTheTextOfDecode) {
  const auto goldens = ReadGoldenLines("tokenizers/" + GetParam() + "/encodings.jsonl.gz");
  int compared = 0;
  for (size_t i = 0; i < goldens.size(); i += 5) {
    const auto ids = goldens[i].at("ids").get<Ids>();
    if (ids.size() > 300) continue;
    StreamDecoder stream(*tokenizer_, true);
    std::string text;
    for (const int32_t id : ids) {
      const std::string part = stream.Put(id);
      ASSERT_EQ(ValidUtf8Prefix(part), part.size());
      text += part;
    }
    text += stream.Finish();
    ASSERT_EQ(text, tokenizer_->Decode(ids, true)) << "string " << i;
    ++compared;
  }
  EXPECT_GT(compared, 300);
}

TEST_P(TokenizerGolden, KnowsItsVocabulary) {
  const json index = json::parse(ReadGolden("tokenizers/index.json"));
  for (const json& entry : index) {
    if (entry.at("name") == GetParam()) {
      EXPECT_EQ(tokenizer_->token_count(), entry.at("vocab_size").get<int>());
    }
  }
  const json file = json::parse(ReadGolden("tokenizers/" + GetParam() + "/tokenizer.json"));
  for (const auto& [token, id] : file.at("model").at("vocab").items()) {
    EXPECT_EQ(tokenizer_->TokenToId(token), id.get<int32_t>());
  }
  for (const json& token : file.at("added_tokens")) {
    const auto content = token.at("content").get<std::string>();
    const auto id = token.at("id").get<int32_t>();
    EXPECT_EQ(tokenizer_->TokenToId(content), id);
    EXPECT_EQ(tokenizer_->IsSpecial(id), token.at("special").get<bool>()) << content;
    if (!token.at("normalized").get<bool>()) {
      EXPECT_EQ(tokenizer_->IdToToken(id), content);
    }
  }
  EXPECT_EQ(tokenizer_->IdToToken(-1), "");
  EXPECT_EQ(tokenizer_->IdToToken(tokenizer_->vocab_size()), "");
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const json& entry : json::parse(ReadGolden("tokenizers/index.json"))) {
    names.push_back(entry.at("name"));
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden, testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

TEST(TokenizerGoldens, HoldTwoThousandStringsOfEachKind) {
  std::map<std::string, size_t> strings_of_kind;
  const size_t strings = ReadGoldenLines("tokenizers/strings.jsonl.gz").size();
  for (const json& entry : json::parse(ReadGolden("tokenizers/index.json"))) {
    strings_of_kind[entry.at("kind")] += strings;
  }
  for (const char* kind : {"gpt2", "llama3", "sentencepiece"}) {
    EXPECT_GE(strings_of_kind[kind], 2000u) << kind;
  }
}

}  // namespace
}  // namespace tundra
