// What the golden tests cannot show: bad files, bad text, long inputs, threads.
// Small tokenizers are built here from JSON.
#include "common/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <tuple>

#include "common/text/onig_regex.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

// a=0 b=1 c=2 ab=3 abc=4 é=5 ▁=6, merges ab and abc.
json SmallFile() {
  return json{
      {"version", "1.0"},
      {"added_tokens", json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", nullptr},
      {"post_processor", nullptr},
      {"decoder", nullptr},
      {"model",
       {{"type", "BPE"},
        {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"abc", 4}, {"é", 5}, {"▁", 6}}},
        {"merges", {"a b", "ab c"}}}}};
}

json Added(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

std::unique_ptr<Tokenizer> Make(const json& file) {
  auto tokenizer = Tokenizer::FromJson(file.dump(), "tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

Ids Encode(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.Encode(text, true);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids{};
}

// Loading fails and the message holds every one of `parts`.
void ExpectRefused(const std::string& file, absl::StatusCode code,
                   const std::vector<std::string>& parts) {
  const auto tokenizer = Tokenizer::FromJson(file, "base/tokenizer.json");
  ASSERT_FALSE(tokenizer.ok()) << file.substr(0, 200);
  EXPECT_EQ(tokenizer.status().code(), code) << tokenizer.status();
  const std::string message(tokenizer.status().message());
  EXPECT_THAT(message, HasSubstr("base/tokenizer.json"));
  for (const std::string& part : parts) EXPECT_THAT(message, HasSubstr(part));
}

TEST(TokenizerTest, MergesByRankFromTheLeft) {
  const auto tokenizer = Make(SmallFile());
  EXPECT_THAT(Encode(*tokenizer, "abcab"), ElementsAre(4, 3));
  EXPECT_THAT(Encode(*tokenizer, "xaxb"), ElementsAre(3));  // no unk_token: x is left out
  EXPECT_THAT(Encode(*tokenizer, ""), ElementsAre());
}

TEST(TokenizerTest, ReadsMergesAsPairs) {
  json file = SmallFile();
  file["model"]["merges"] = json::parse(R"([["a", "b"], ["ab", "c"]])");
  EXPECT_THAT(Encode(*Make(file), "abc"), ElementsAre(4));
}

TEST(TokenizerTest, RefusesInvalidUtf8WithItsOffset) {
  const auto tokenizer = Make(SmallFile());
  for (const std::string bad :
       {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\x80", "ab\xF5\x80\x80\x80"}) {
    const auto ids = tokenizer->Encode(bad, false);
    ASSERT_FALSE(ids.ok());
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("at byte 2"));
  }
}

TEST(TokenizerTest, NamesWhatItDoesNotSupport) {
  const auto refuse = [](const char* key, const json& part, const std::string& name) {
    json file = SmallFile();
    file[key] = part;
    ExpectRefused(file.dump(), absl::StatusCode::kUnimplemented, {key, name});
  };
  refuse("model", {{"type", "Unigram"}, {"vocab", json::array()}}, "Unigram");
  refuse("model", {{"type", "WordPiece"}, {"vocab", json::object()}}, "WordPiece");
  refuse("normalizer", {{"type", "Precompiled"}}, "Precompiled");
  refuse("pre_tokenizer", {{"type", "UnicodeScripts"}}, "UnicodeScripts");
  refuse("decoder", {{"type", "CTC"}}, "CTC");
  refuse("post_processor", {{"type", "Other"}}, "Other");
  json file = SmallFile();
  file["model"]["dropout"] = 0.1;
  ExpectRefused(file.dump(), absl::StatusCode::kUnimplemented, {"model.dropout", "null"});
}

TEST(TokenizerTest, NamesFileKeyAndRemedyOfBadFiles) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused("", invalid, {"not valid JSON"});
  ExpectRefused("[]", invalid, {"object"});
  ExpectRefused("{}", invalid, {"model"});
  ExpectRefused(R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})", invalid,
                {"\"a\"", "twice"});
  json file = SmallFile();
  file["model"]["vocab"]["b"] = 0;
  ExpectRefused(file.dump(), invalid, {"model.vocab", "ids must differ"});
  for (const json& id : {json(-1), json(1.5), json("1"), json(uint64_t{1} << 63), json(1 << 30)}) {
    file = SmallFile();
    file["model"]["vocab"]["b"] = id;
    ExpectRefused(file.dump(), invalid, {"model.vocab.b"});
  }
  for (const json& merge :
       {json("ab"), json("a b c"), json("a x"), json("b a"), json(1), json::array({"a"})}) {
    file = SmallFile();
    file["model"]["merges"][1] = merge;
    ExpectRefused(file.dump(), invalid, {"model.merges[1]"});
  }
  file = SmallFile();
  file["added_tokens"] = json::array({Added(9, "<s>")});
  ExpectRefused(file.dump(), invalid, {"added_tokens[0].id", "<s>", "7"});
  file["added_tokens"] = json::array({Added(7, "<s>"), Added(7, "<s>")});
  ExpectRefused(file.dump(), invalid, {"added_tokens[1]", "twice"});
  file = SmallFile();
  file["post_processor"] = json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [99], "tokens": ["<s>"]}}})");
  ExpectRefused(file.dump(), invalid, {"post_processor", "99"});
  file = SmallFile();
  file["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
  ExpectRefused(file.dump(), invalid, {"pre_tokenizer.pattern.Regex", "')'"});
}

TEST(TokenizerTest, SurvivesEveryTruncationAndFlippedBit) {
  json file = SmallFile();
  file["added_tokens"] = json::array({Added(7, "<s>")});
  file["normalizer"] = json::parse(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}]})");
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  const std::string good = file.dump();
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_FALSE(Tokenizer::FromJson(good.substr(0, n), "tokenizer.json").ok()) << n;
  }
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      const auto tokenizer = Tokenizer::FromJson(bad, "tokenizer.json");
      if (tokenizer.ok()) (*tokenizer)->Encode("abc é <s>", true).status().IgnoreError();
    }
  }
  const std::string deep(100000, '[');
  EXPECT_FALSE(Tokenizer::FromJson(deep, "tokenizer.json").ok());
}

// A quadratic merge would need hours for this, so a generous limit suffices.
TEST(TokenizerTest, EncodesAMegabyteWithoutABlank) {
  json file = SmallFile();
  std::string text;
  while (text.size() < (1 << 20)) text += "abcab";
  const auto start = std::chrono::steady_clock::now();
  const Ids ids = Encode(*Make(file), text);
  EXPECT_EQ(ids.size(), text.size() / 5 * 2);
  file["normalizer"] = {{"type", "NFC"}};
  std::string marks = "b";
  for (int i = 0; i < (1 << 18); ++i) marks += i % 2 == 0 ? "\u0301" : "\u0316";
  EXPECT_FALSE(Encode(*Make(file), marks).empty());
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  Encode(*Make(file), std::string(1 << 20, ' ') + "a");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(120));
}

TEST(TokenizerTest, RefusesNormalizersThatMultiplyTheText) {
  json file = SmallFile();
  const json doubling = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", json::array()}};
  for (int i = 0; i < 40; ++i) file["normalizer"]["normalizers"].push_back(doubling);
  // The same in reverse: a token's text may not grow without end either.
  file["decoder"] = {{"type", "Sequence"}, {"decoders", file["normalizer"]["normalizers"]}};
  const auto tokenizer = Make(file);
  ASSERT_NE(tokenizer, nullptr);
  const auto ids = tokenizer->Encode("abc", true);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kResourceExhausted) << ids.status();
  EXPECT_LT(tokenizer->Decode({0, 1}, false).size(), 1u << 20);
  // What doubles once is let through, also where a step before it halved the memory left.
  file["normalizer"]["normalizers"] = {doubling, {{"type", "NFC"}}, {{"type", "Lowercase"}}};
  const auto mild = Make(file);
  ASSERT_NE(mild, nullptr);
  EXPECT_EQ(Encode(*mild, std::string(100'000, 'a')).size(), 200'000u);
}

TEST(TokenizerTest, RefusesPipelinesWithoutEnd) {
  for (const auto& [key, list, step] :
       {std::tuple{"normalizer", "normalizers", json{{"type", "NFC"}}},
        std::tuple{"pre_tokenizer", "pretokenizers", json{{"type", "Whitespace"}}},
        std::tuple{"decoder", "decoders", json{{"type", "Fuse"}}}}) {
    json file = SmallFile();
    file[key] = {{"type", "Sequence"}, {list, json::array()}};
    for (int i = 0; i < 1'000; ++i) file[key][list].push_back(step);
    ExpectRefused(file.dump(), absl::StatusCode::kUnimplemented, {key, "over 64 steps"});
  }
}

TEST(TokenizerTest, GivesTheSameIdsFromManyThreads) {
  json file = SmallFile();
  file["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
  const auto tokenizer = Make(file);
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += std::string(1 + i % 7, 'a') + "bc" + std::string(i % 3, 'b') + " ";
  const Ids want = Encode(*Make(file), text);
  std::vector<Ids> got(4);
  std::vector<std::thread> threads;
  for (Ids& ids : got) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) ids = *tokenizer->Encode(text, true);
    });
  }
  for (std::thread& t : threads) t.join();
  for (const Ids& ids : got) EXPECT_EQ(ids, want);
}

TEST(StreamDecoderTest, HoldsBackUnfinishedCharacters) {
  json file = SmallFile();
  file["model"]["vocab"] = {{"a", 0}, {"\u00c3", 1}, {"\u00a9", 2}};  // bytes C3 and A9: é
  file["model"]["merges"] = json::array();
  file["decoder"] = {{"type", "ByteLevel"}};
  const auto tokenizer = Make(file);
  StreamDecoder stream(*tokenizer, false);
  EXPECT_EQ(stream.Put(0), "a");
  EXPECT_EQ(stream.Put(1), "");
  EXPECT_EQ(stream.Put(2), "é");
  EXPECT_EQ(stream.Put(1), "");
  EXPECT_EQ(stream.Finish(), "\uFFFD");
  EXPECT_EQ(stream.Finish(), "");
  // Bytes that never become a character are given out in the end.
  std::string text;
  for (int i = 0; i < 1000; ++i) text += stream.Put(2);
  EXPECT_GT(text.size(), 900 * 3u);
}

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  const auto regex = OnigRegex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<std::string> out;
  if (!regex.ok()) return out;
  EXPECT_TRUE(
      (*regex)
          ->ForEachMatch(text, [&](size_t b, size_t e) { out.emplace_back(text.substr(b, e - b)); })
          .ok());
  return out;
}

TEST(OnigRegexTest, ReadsRubysDialect) {
  EXPECT_THAT(Matches("\\h+", "xyz09af"), ElementsAre("09af"));  // hexadecimal, not blanks
  EXPECT_THAT(Matches("[a-z&&[^aeiou]]+", "bcade"), ElementsAre("bc", "d"));
  EXPECT_THAT(Matches("[a[0-9]]+", "ba1c"), ElementsAre("a1"));
  EXPECT_THAT(Matches("\\d{1,2}+", "12345"), ElementsAre("12345"));  // repeated, not possessive
  EXPECT_THAT(Matches("a{,2}b", "aaab"), ElementsAre("aab"));
  EXPECT_THAT(Matches("^b$", "a\nb\nc"), ElementsAre("b"));       // lines
  EXPECT_THAT(Matches("(?m:a.b)", "a\nb"), ElementsAre("a\nb"));  // m: dot matches newline
  EXPECT_THAT(Matches("\\s", "\u180E\u0085\u3000"), ElementsAre("\u0085", "\u3000"));
  EXPECT_THAT(Matches("\\p{^L}+", "a1é2"), ElementsAre("1", "2"));
  EXPECT_THAT(Matches("[\\P{L}a]+", "ba1c"), ElementsAre("a1"));
  EXPECT_THAT(Matches("\\p{Lu}", "\u1C89"), ElementsAre("\u1C89"));  // Unicode 16
  EXPECT_THAT(Matches("(?i:'s|'LL)", "'S 'ſ 'll"), ElementsAre("'S", "'ſ", "'ll"));
  EXPECT_THAT(Matches("\\p{Han}+", "a漢字、b"), ElementsAre("漢字"));
  EXPECT_THAT(Matches("x*", "axb"), ElementsAre("", "x", ""));
}

TEST(OnigRegexTest, RefusesWhatHasNoCounterpart) {
  for (const char* pattern :
       {"(a)\\1", "\\R", "\\X", "\\p{Greek}", "a(?i)b", "[[:punct:]]", "a{2}?", "(?i:\\p{Lu})"}) {
    EXPECT_EQ(OnigRegex::Compile(pattern).status().code(), absl::StatusCode::kUnimplemented)
        << pattern;
  }
  for (const char* pattern :
       {"[a", "a)", "(a", "[]", "*a", "\\", "[b-a]", "\\x{110000}", "\\p{L"}) {
    EXPECT_EQ(OnigRegex::Compile(pattern).status().code(), absl::StatusCode::kInvalidArgument)
        << pattern;
  }
}

TEST(UnicodeTest, ReplacesMaximalInvalidParts) {
  EXPECT_EQ(Utf8Lossy("a\xF0\x9F\x98z"), "a\uFFFDz");
  EXPECT_EQ(Utf8Lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Utf8Lossy("\xE2\x82"), "\uFFFD");
  EXPECT_EQ(Utf8Lossy("\xC0\xAFé"), "\uFFFD\uFFFDé");
}

}  // namespace
}  // namespace tundra
