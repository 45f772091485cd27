#include "common/text/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/status_test_util.h"
#include "common/text/base_text.h"
#include "common/text/dataset_test_util.h"
#include "common/text/decompress.h"
#include "common/text/tokenizer.h"
#include "common/text/validate.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

constexpr char kConversation[] =
    R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"},)"
    R"( {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "At sea"}]})";
constexpr char kShown[] =
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Ahoy<|im_end|>]]\n"
    "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n[[At sea<|im_end|>]]\n";

TEST(Rows, TrainAssistantTurnsWithTheirEndMarkers) {
  EXPECT_EQ(RowOf(ChatBase(), kConversation), kShown);
  EXPECT_EQ(RowOf(ChatBase(kMarked), kConversation), kShown);
}

TEST(Rows, LeaveOutTurnsOfWeightZero) {
  std::string line = kConversation;
  line.insert(line.find(R"("content": "Ahoy")"), R"("weight": 0, )");
  std::string shown = kShown;
  shown.replace(shown.find("[[Ahoy<|im_end|>]]"), 18, "Ahoy<|im_end|>");
  EXPECT_EQ(RowOf(ChatBase(), line), shown);
  EXPECT_EQ(RowOf(ChatBase(kMarked), line), shown);
}

TEST(Rows, TrainWhatLossOnSays) {
  DatasetOptions options;
  options.loss_on = LossOn::kCompletion;
  EXPECT_EQ(RowOf(ChatBase(), kConversation, options),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nAhoy<|im_end|>\n"
            "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n[[At sea<|im_end|>\n]]");
  options.loss_on = LossOn::kAll;
  EXPECT_EQ(RowOf(ChatBase(), R"({"messages": [{"role": "user", "content": "Hi"}]})", options),
            "<|im_start|>[[user\nHi<|im_end|>\n]]");
}

TEST(Rows, AppendEosToTextsOnce) {
  const auto base = MakeBase("", "", "<|endoftext|>");
  EXPECT_EQ(RowOf(base, R"({"prompt": "Say ahoy:", "completion": " ahoy"})"),
            "Say ahoy:[[ ahoy<|endoftext|>]]");
  EXPECT_EQ(RowOf(base, R"({"prompt": "Say ahoy:", "completion": " ahoy<|endoftext|>"})"),
            "Say ahoy:[[ ahoy<|endoftext|>]]");
  RowTokenizer tokenizer(base, DatasetOptions());
  TokenizedRow row;
  ASSERT_TRUE(tokenizer.Tokenize(R"({"text": "ahoy there"})", 3, &row).ok());
  EXPECT_EQ(row.ids.back(), *base->eos_id());
  EXPECT_EQ(row.line, 3u);
  EXPECT_EQ(row.targets(), static_cast<int64_t>(row.ids.size()) - 1);
  EXPECT_EQ(row.trained[0], 0);
}

TEST(Rows, BeginWithOneBos) {
  const auto base = MakeBase("", "<|begin_of_text|>", "<|end_of_text|>", "llama3_style");
  EXPECT_EQ(RowOf(base, R"({"prompt": "a", "completion": " b"})"),
            "<|begin_of_text|>a[[ b<|end_of_text|>]]");
  EXPECT_EQ(RowOf(base, R"({"prompt": "<|begin_of_text|>a", "completion": " b"})"),
            "<|begin_of_text|>a[[ b<|end_of_text|>]]");
  const auto chat = MakeBase(std::string("{{- bos_token }}") + kChatMl, "<|begin_of_text|>",
                             "<|im_end|>", "llama3_style");
  EXPECT_EQ(RowOf(chat, kConversation), std::string("<|begin_of_text|>") + kShown);
}

TEST(Rows, ReadEveryFormat) {
  const auto chat = ChatBase();
  const std::string expected =
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Ahoy<|im_end|>]]\n";
  EXPECT_EQ(
      RowOf(
          chat,
          R"({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ahoy"}], "id": 7})"),
      expected);
  EXPECT_EQ(RowOf(chat, R"({"instruction": "Hi", "input": "", "output": "Ahoy"})"), expected);
  EXPECT_EQ(
      RowOf(chat, R"({"instruction": "Greet", "input": "Tom", "output": "Ahoy"})"),
      "<|im_start|>user\nGreet\n\nTom<|im_end|>\n<|im_start|>assistant\n[[Ahoy<|im_end|>]]\n");
  EXPECT_EQ(
      RowOf(
          chat,
          R"({"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ahoy"}]})"),
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Ahoy<|im_end|>\n]]");
  EXPECT_THAT(
      RowOf(MakeBase("", "", "<|endoftext|>"), R"({"instruction": "Hi", "output": "Ahoy"})"),
      HasSubstr("### Instruction:\nHi\n\n### Response:\n[[Ahoy<|endoftext|>]]"));
}

TEST(Rows, GiveToolCallsAsObjectsToTheTemplate) {
  const auto base = ChatBase(
      "{%- for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}{% for c in "
      "m.tool_calls %}"
      "{{ c.function.name }}({{ c.function.arguments.city }}){% endfor %}{% else %}{{ m.content "
      "}}{% endif %}<|im_end|>\n"
      "{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  EXPECT_THAT(
      RowOf(
          base,
          R"({"messages": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": null,)"
          R"( "tool_calls": [{"type": "function", "function": {"name": "get", "arguments": "{\"city\": \"Bern\"}"}}]}],)"
          R"( "tools": [{"type": "function", "function": {"name": "get"}}]})"),
      HasSubstr("get(Bern)<|im_end|>"));
}

TEST(Rows, RefuseCallsThatTheTemplateLeavesOut) {
  const auto base = ChatBase(
      "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') + "
      "'<|im_end|>\\n' }}{%- endfor %}"
      "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}");
  const auto row = [](const std::string& call) {
    return R"({"messages": [{"role": "user", "content": "Weather?"},)"
           R"( {"role": "assistant", "content": null, )" +
           call + "}]}";
  };
  for (const std::string call :
       {R"("tool_calls": [{"type": "function", "function": {"name": "weather?"}}])",
        R"("tool_calls": [{"name": "get_weather", "arguments": {}}])",
        R"("function_call": {"name": "get_weather", "arguments": "{}"})"}) {
    EXPECT_THAT(RowOf(base, row(call)),
                AllOf(HasSubstr("template_refused: "), HasSubstr("of messages[1]")))
        << call;
  }
}

TEST(Rows, RefuseTemplatesWhosePrefixesDiffer) {
  // Shows the thoughts of the last turn only.
  const auto base = ChatBase(
      "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if loop.last and m.role "
      "== 'assistant' %}"
      "{{- 'think ' }}{%- endif %}{{- m.content + '<|im_end|>\\n' }}{%- endfor %}"
      "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}");
  EXPECT_THAT(RowOf(base, kConversation), HasSubstr("assistant_spans_unclear: "));
  EXPECT_THAT(
      RowOf(
          base,
          R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}]})"),
      HasSubstr("[[think Ahoy<|im_end|>]]"));
}

TEST(Rows, RefuseBadRowsByName) {
  const auto base = ChatBase();
  const std::vector<std::pair<std::string, std::string>> bad = {
      {R"({"messages": )", "malformed_json"},
      {std::string(1000, '['), "malformed_json"},
      {"{\"text\": \"\xff\"}", "bad_utf8"},
      {"[1]", "not_an_object"},
      {R"({"txt": "a"})", "unknown_keys"},
      {R"({"text": "a", "label": 1})", "unknown_keys"},
      {R"({"prompt": "a", "chosen": "b", "rejected": "c"})", "preference_unsupported"},
      {R"({"input": {}, "preferred_output": [], "non_preferred_output": []})",
       "preference_unsupported"},
      {R"({"messages": [{"role": "pirate", "content": "a"}]})", "unknown_role"},
      {R"({"conversations": [{"from": "parrot", "value": "a"}]})", "unknown_role"},
      {R"({"messages": []})", "empty_row"},
      {R"({"messages": "a"})", "bad_field"},
      {R"({"messages": [1]})", "bad_field"},
      {R"({"messages": [{"role": "user"}]})", "bad_field"},
      {R"({"messages": [{"role": "user", "content": 1}]})", "bad_field"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "bad_field"},
      {R"({"messages": [{"role": "user", "content": "a", "weight": 1}]})", "bad_field"},
      {R"({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]})", "bad_field"},
      {R"({"messages": [{"role": "user", "content": "a"}], "tools": 5})", "bad_field"},
      {R"({"messages": [{"role": "user", "content": "a"}]})", "no_target_token"},
      {R"({"prompt": "a", "completion": ""})", "empty_row"},
      {R"({"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]})", "bad_field"},
      {R"({"instruction": "a", "output": 5})", "bad_field"},
  };
  for (const auto& [line, error] : bad) {
    EXPECT_THAT(RowOf(base, line), ::testing::StartsWith(error + ": ")) << line;
  }
  EXPECT_THAT(RowOf(MakeBase("", "", ""), kConversation), HasSubstr("no chat template"));
  EXPECT_THAT(RowOf(ChatBase("{{ raise_exception('only users here') }}"), kConversation),
              HasSubstr("only users here"));
  DatasetOptions options;
  options.loss_on = LossOn::kAssistant;
  EXPECT_THAT(RowOf(base, R"({"text": "a"})", options), HasSubstr("no_target_token"));
}

TEST(Rows, OverTheLimitAreRefusedOrCut) {
  DatasetOptions options;
  options.max_seq_length = 30;
  EXPECT_THAT(RowOf(ChatBase(), kConversation, options), HasSubstr("over_max_seq_length: "));
  options.truncate = true;
  RowTokenizer tokenizer(ChatBase(), options);
  TokenizedRow row;
  ASSERT_TRUE(tokenizer.Tokenize(kConversation, 1, &row).ok());
  EXPECT_EQ(row.ids.size(), 30u);
  EXPECT_TRUE(row.truncated);
  options.max_seq_length = 4;
  EXPECT_THAT(RowOf(ChatBase(), kConversation, options), HasSubstr("no_target_token: "));
}

// --- lines and compression

std::string Gzip(const std::string& text) {
  std::string out(text.size() + 1000, '\0');
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

TEST(Decompression, TakesFilesThatEndWithAPiece) {
  constexpr size_t kPiece = 256 << 10;
  for (const size_t size : {kPiece - 1, kPiece, kPiece + 1, 3 * kPiece}) {
    const std::string text(size, 'x');
    for (const std::string& packed : {Zstd(text), Zstd(text) + Zstd(text)}) {
      const auto read = DecompressAll(packed, 1 << 30);
      ASSERT_THAT(read, IsOk()) << size;
      EXPECT_EQ(read->size() % size, 0u);
      EXPECT_GE(read->size(), size);
    }
  }
}

std::vector<std::string> Lines(const std::string& bytes) {
  std::vector<std::string> lines;
  EXPECT_THAT(
      ForEachLine(bytes,
                  [&](const DatasetLine& line) {
                    lines.push_back(std::to_string(line.number) + ":" + std::string(line.text));
                    return true;
                  }),
      IsOk());
  return lines;
}

TEST(Lines, AreTheSameFromPlainGzipAndZstd) {
  std::string text =
      "\xEF\xBB\xBF"
      "first\r\n\n  \nfourth\n" +
      std::string(600000, 'x') + "\nlast";
  const std::vector<std::string> plain = Lines(text);
  EXPECT_THAT(plain, ElementsAre("1:first", "4:fourth", "5:" + std::string(600000, 'x'), "6:last"));
  EXPECT_EQ(Lines(Gzip(text)), plain);
  EXPECT_EQ(Lines(Zstd(text)), plain);
  EXPECT_EQ(Lines(Gzip(text.substr(0, 7)) + Gzip(text.substr(7))), plain);
  EXPECT_THAT(Lines(""), ElementsAre());
}

TEST(Lines, CutOffStreamsAreErrorsAtEveryLength) {
  const std::string text = "{\"text\": \"ahoy\"}\n{\"text\": \"there\"}\n";
  const auto ignore = [](const DatasetLine&) { return true; };
  for (const std::string& bytes : {Gzip(text), Zstd(text)}) {
    for (size_t size = 4; size < bytes.size(); ++size) {
      EXPECT_FALSE(ForEachLine(bytes.substr(0, size), ignore).ok()) << size;
    }
    for (size_t at = 4; at < bytes.size(); ++at) {  // no crash, whatever comes out
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x55);
      (void)ForEachLine(flipped, ignore);
    }
  }
  EXPECT_THAT(ForEachLine(Gzip(std::string(100000, 'x')), ignore, 1000),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1000")));
}

TEST(TokenizeDataset, StopsAtTheFirstBadRowWithItsLine) {
  const std::string good = R"({"text": "ahoy"})";
  EXPECT_THAT(TokenizeDataset(good + "\n" + good, "train.jsonl", ChatBase(), DatasetOptions()),
              IsOk());
  EXPECT_THAT(TokenizeDataset(good + "\n\n{\n", "train.jsonl", ChatBase(), DatasetOptions()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::StartsWith("train.jsonl:3: malformed JSON")));
  EXPECT_THAT(TokenizeDataset("\n", "train.jsonl", ChatBase(), DatasetOptions()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no rows")));
}

// --- validation

TEST(Validate, ReportsEveryProblemByLineInOnePass) {
  std::string file = std::string(kConversation) + "\n" + kConversation + "\n";
  file +=
      "{bad\n{\"text\": \"a\"}\n\n{\"messages\": [{\"role\": \"pirate\", \"content\": \"a\"}]}\n";
  for (int i = 0; i < 30; ++i)
    file += R"({"messages": [{"role": "user", "content": "a"}]})"
            "\n";
  DatasetOptions options;
  options.max_errors = 4;
  const auto report = ValidateDataset(file, "train.jsonl", ChatBase(), options, 1);
  TUNDRA_ASSERT_OK(report);
  EXPECT_FALSE(report->ok());
  EXPECT_EQ(report->format, DatasetFormat::kMessages);
  EXPECT_EQ(report->rows, 2u);
  EXPECT_EQ(report->bad_rows, 33u);
  EXPECT_THAT(report->error_counts,
              ElementsAre(std::pair("format_mix", 1u), std::pair("malformed_json", 1u),
                          std::pair("no_target_token", 30u), std::pair("unknown_role", 1u)));
  ASSERT_EQ(report->errors.size(), 4u);
  EXPECT_THAT(report->errors[0], ::testing::StartsWith("train.jsonl:3: malformed JSON"));
  EXPECT_THAT(
      report->errors[1],
      HasSubstr("train.jsonl:4: a row of the format text in a file of the format messages"));
  EXPECT_THAT(report->errors[2], ::testing::StartsWith("train.jsonl:6: unknown role \"pirate\""));
  EXPECT_THAT(report->errors[3], ::testing::StartsWith("train.jsonl:7: no assistant turn"));
  EXPECT_EQ(report->duplicate_rows, 1u);
  EXPECT_THAT(report->warnings, ElementsAre(HasSubstr("train.jsonl:2: the same row as line 1")));
  ASSERT_EQ(report->preview.size(), 1u);
  EXPECT_EQ(FormatPreview(report->preview[0]), kShown);
  const auto& tokens = report->preview[0].tokens;
  EXPECT_EQ(report->total_tokens, 2 * tokens.size());
  EXPECT_EQ(report->target_tokens,
            2 * std::count_if(tokens.begin(), tokens.end(),
                              [](const PreviewToken& t) { return t.trained; }));
  EXPECT_EQ(report->length_histogram.at(64), 2u);
}

TEST(Validate, AnEmptyFileAndADamagedOneAreErrors) {
  for (const std::string& file : {std::string(), std::string("\n\n"), Gzip("")}) {
    const auto report = ValidateDataset(file, "train.jsonl", ChatBase(), DatasetOptions());
    TUNDRA_ASSERT_OK(report);
    EXPECT_FALSE(report->ok());
    EXPECT_EQ(report->error_counts.at("empty_file"), 1u);
  }
  const std::string gzip = Gzip(kConversation);
  const auto report = ValidateDataset(gzip.substr(0, gzip.size() - 9), "train.jsonl.gz", ChatBase(),
                                      DatasetOptions());
  TUNDRA_ASSERT_OK(report);
  EXPECT_FALSE(report->ok());
  EXPECT_THAT(report->errors, ElementsAre(HasSubstr("damaged")));
}

TEST(Validate, CutRowsAreWarnings) {
  DatasetOptions options;
  options.max_seq_length = 30;
  options.truncate = true;
  const auto report = ValidateDataset(kConversation, "train.jsonl", ChatBase(), options);
  TUNDRA_ASSERT_OK(report);
  EXPECT_TRUE(report->ok());
  EXPECT_EQ(report->truncated_rows, 1u);
  EXPECT_EQ(report->longest_row, 30u);
}

// --- the mask of Transformers

TEST(Golden, IdsAndAssistantMaskAreThoseOfTransformers) {
  size_t compared = 0;
  for (const char* name : {"generation_chatml", "generation_mixed"}) {
    const auto bytes = ReadFile(GoldenDir() + "/templates/" + name + ".json.gz");
    TUNDRA_ASSERT_OK(bytes);
    const Json golden = Json::parse(DecompressAll(*bytes, 1 << 30).value_or("null"));
    for (const Json& expected : golden["cases"]) {
      if (!expected.contains("tokens")) continue;
      for (const auto& [tokenizer_name, tokens] : expected["tokens"].items()) {
        static std::map<std::string, std::shared_ptr<const BaseText>> bases;
        auto& base = bases[std::string(name) + tokenizer_name];
        if (base == nullptr) base = MakeBase(golden["template"], "", "", tokenizer_name);
        ChatInput chat = base->NewChat();
        chat.messages = expected["request"]["messages"];
        for (const auto& [key, value] : expected["request"].items()) {
          if (key == "tools") chat.tools = value;
          if (key == "documents") chat.documents = value;
          if (key == "add_generation_prompt") chat.add_generation_prompt = value.get<bool>();
          chat.variables[key] = value;
        }
        for (const auto& [key, value] : golden["variables"].items())
          chat.special_tokens[key] = value;
        const auto rendered = base->chat_template()->Render(chat);
        TUNDRA_ASSERT_OK(rendered);
        const auto encoding = base->tokenizer().EncodeWithOffsets(rendered->text, false);
        TUNDRA_ASSERT_OK(encoding);
        EXPECT_EQ(Json(encoding->ids), tokens["ids"]);
        const std::vector<uint8_t> trained = MarkTokens(*encoding, rendered->generation_spans);
        std::string mask;
        for (const uint8_t mark : trained) mask += mark != 0 ? '1' : '0';
        EXPECT_EQ(mask, tokens["mask"].get<std::string>())
            << name << " " << tokenizer_name << " " << rendered->text;
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 100u);
}

}  // namespace
}  // namespace tundra
