// What a data set and a base's files may cost, and what is said of rows that can be
// trained on but hardly mean what they say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/interrupt.h"
#include "common/status_test_util.h"
#include "common/text/dataset.h"
#include "common/text/dataset_test_util.h"
#include "common/text/validate.h"

namespace tundra {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

DatasetReport Report(const std::shared_ptr<const BaseText>& base, const std::string& lines,
                     const DatasetOptions& options = DatasetOptions()) {
  const auto report = ValidateDataset(lines, "data.jsonl", base, options);
  TUNDRA_EXPECT_OK(report.status());
  return report.value_or(DatasetReport());
}

// A conversation of so many pairs of turns.
std::string LongConversation(int pairs) {
  std::string line = R"({"messages": [)";
  for (int i = 0; i < pairs; ++i) {
    absl::StrAppend(&line, i == 0 ? "" : ", ", R"({"role": "user", "content": "Where?"}, )",
                    R"({"role": "assistant", "content": "At sea"})");
  }
  return line + "]}";
}

TEST(Rows, JoinPartsWhereTheTemplateKnowsTextsOnly) {
  const std::string parts =
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]},)"
      R"( {"role": "assistant", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "hoy"}]}]})";
  const std::string shown =
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Ahoy<|im_end|>]]\n";
  EXPECT_EQ(RowOf(ChatBase(), parts), shown);  // list + text fails in the template
  const std::string printing =
      "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
      "{{- message.content }}{{- '<|im_end|>\\n' }}{%- endfor %}"
      "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
  EXPECT_EQ(RowOf(ChatBase(printing), parts), shown);
  const std::string knowing =
      "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
      "{%- for part in message.content %}{{- '<' + part.text + '>' }}{%- endfor %}"
      "{{- '<|im_end|>\\n' }}{%- endfor %}"
      "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
  EXPECT_EQ(RowOf(ChatBase(knowing), parts),
            "<|im_start|>user\n<Hi><|im_end|>\n<|im_start|>assistant\n[[<A><hoy><|im_end|>]]\n");
  EXPECT_THAT(RowOf(ChatBase(), R"({"messages": [{"role": "user", "content": []}]})"),
              HasSubstr("empty list"));
  // Only what the template can't take is joined: others stay as it writes them.
  const std::string mixed =
      "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
      "{%- if message.role == 'user' and message.content is not string %}"
      "{%- for part in message.content %}{{- '(' + part.text + ')' }}{%- endfor %}"
      "{%- else %}{{- message.content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
      "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
  EXPECT_EQ(RowOf(ChatBase(mixed), parts),
            "<|im_start|>user\n(Hi)<|im_end|>\n<|im_start|>assistant\n[[Ahoy<|im_end|>]]\n");
}

TEST(Rows, RefuseKeysGivenTwice) {
  EXPECT_THAT(RowOf(ChatBase(), R"({"text": "a", "text": "b"})"),
              HasSubstr(R"(the key "text" is given twice)"));
  EXPECT_THAT(
      RowOf(ChatBase(), R"({"messages": [{"role": "user", "content": "a", "role": "assistant"}]})"),
      HasSubstr(R"(the key "role" is given twice)"));
  // Looking a key up takes as many steps as there are keys.
  std::string wide = R"({"text": "a", "metadata": {)";
  for (int i = 0; i < 200'000; ++i) absl::StrAppend(&wide, i == 0 ? "" : ",", "\"k", i, "\":1");
  EXPECT_THAT(RowOf(ChatBase(), wide + "}}"), HasSubstr("more than 1000 keys"));
}

TEST(Validate, WarnsOfTurnsThatTrainNothingButTheirEnd) {
  const std::string empty =
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " "}]})";
  EXPECT_THAT(Report(ChatBase(), empty).warnings,
              ElementsAre(HasSubstr("data.jsonl:1: an assistant turn of which nothing")));
  EXPECT_THAT(Report(ChatBase(), empty + "\n" + LongConversation(1) + "\n" + empty).warnings,
              Contains(HasSubstr("2 rows: an assistant turn of which nothing")));
  const std::string thought =
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", )"
      R"("reasoning_content": "Hm."}]})";
  EXPECT_THAT(Report(ChatBase(), thought).warnings,
              ElementsAre(HasSubstr("does not write reasoning"), HasSubstr("nothing is trained")));
  const std::string tools =
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}],)"
      R"( "tools": [{"type": "function", "function": {"name": "f"}}]})";
  EXPECT_THAT(Report(ChatBase(), tools).warnings, ElementsAre(HasSubstr("does not write tools")));
  EXPECT_THAT(Report(ChatBase(), LongConversation(2)).warnings, IsEmpty());
}

TEST(Rows, TooLongIsKnownBeforeTheTurnsAreLookedFor) {
  // Two renderings a turn would be 40,000 of a text of 1.6 MB.
  EXPECT_THAT(RowOf(ChatBase(), LongConversation(20'000)), HasSubstr("over max_seq_length"));
}

TEST(Rows, TemplatesMayTakeWhatTheRowsBytesPayFor) {
  DatasetOptions options;
  options.max_seq_length = 1'000'000;
  const TokenizedRow row = [&] {
    RowTokenizer tokenizer(ChatBase(), options);
    TokenizedRow made;
    EXPECT_TRUE(tokenizer.Tokenize(LongConversation(300), 1, &made).ok());
    return made;
  }();
  EXPECT_GT(row.targets(), 300);
  // Slow on every row: the first rows may take what all may, then the data set is refused, which
  // is no fault of its other rows.
  const std::string slow =
      "{%- for a in range(1000) %}{%- for b in range(1000) %}{%- endfor %}{%- endfor %}" +
      std::string(kChatMl);
  std::string lines;
  for (int i = 0; i < 2'000; ++i) lines += LongConversation(1) + "\n";
  const DatasetReport report = Report(ChatBase(slow), lines);
  EXPECT_THAT(report.errors, ElementsAre(HasSubstr("the base's chat template takes too long")));
}

TEST(Validate, IsGivenUpWhenNobodyWaits) {
  std::string lines;
  for (int i = 0; i < 100'000; ++i) lines += LongConversation(1) + "\n";
  int asked = 0;
  const InterruptScope scope([&] { return ++asked > 3; });
  EXPECT_THAT(ValidateDataset(lines, "data.jsonl", ChatBase(), DatasetOptions()).status(),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("given up")));
  EXPECT_THAT(TokenizeDataset(lines, "data.jsonl", ChatBase(), DatasetOptions()).status(),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("given up")));
}

TEST(Rows, ASlowTemplateIsGivenUpWhenNobodyWaits) {
  DatasetOptions options;
  options.loss_on = LossOn::kAll;
  int asked = 0;
  const InterruptScope scope([&] { return ++asked > 3; });
  EXPECT_THAT(RowOf(ChatBase("{%- for a in range(1000) %}{%- for b in range(1000) %}"
                             "{%- endfor %}{%- endfor %}x"),
                    LongConversation(1), options),
              HasSubstr("given up"));
}

TEST(Lines, CompressedDataMayNotGrowWithoutEnd) {
  // 1.1 GiB of one character.
  std::string packed(1 << 20, '\0');
  ZSTD_CStream* const stream = ZSTD_createCStream();
  const std::string piece(11 << 20, ' ');
  ZSTD_outBuffer out{packed.data(), packed.size(), 0};
  for (int i = 0; i < 103; ++i) {
    ZSTD_inBuffer in{piece.data(), piece.size(), 0};
    const auto end = i == 102 ? ZSTD_e_end : ZSTD_e_continue;
    ASSERT_EQ(ZSTD_isError(ZSTD_compressStream2(stream, &out, &in, end)), 0u);
    ASSERT_EQ(in.pos, in.size);
  }
  ZSTD_freeCStream(stream);
  packed.resize(out.pos);
  EXPECT_THAT(ForEachLine(packed, [](const DatasetLine&) { return true; }),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("upload it uncompressed")));
}

}  // namespace
}  // namespace tundra
