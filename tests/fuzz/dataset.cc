// Rows of a data set, checked and tokenized as before a job and in it.
#include "common/text/dataset.h"

#include "common/text/tokenizer.h"
#include "common/text/validate.h"
#include "tests/fuzz/target.h"

namespace {

using namespace tundra;

// Each byte is a token, and a template with a branch for each kind of message.
std::string TokenizerJson() {
  nlohmann::ordered_json vocab = nlohmann::ordered_json::object();
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    vocab[name] = byte;
  }
  nlohmann::ordered_json json = {{"model",
                                  {{"type", "BPE"},
                                   {"byte_fallback", true},
                                   {"vocab", vocab},
                                   {"merges", nlohmann::ordered_json::array()}}},
                                 {"added_tokens",
                                  {{{"id", 256}, {"content", "<s>"}, {"special", true}},
                                   {{"id", 257}, {"content", "</s>"}, {"special", true}}}}};
  return json.dump();
}

constexpr char kTemplate[] =
    "{%- if tools %}{{ tools | tojson }}{% endif %}"
    "{%- for message in messages %}{{ '<s>' + message.role + ':' }}"
    "{%- if message.content is string %}{{ message.content | trim }}{% endif %}"
    "{%- for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ '</s>' "
    "}}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<s>assistant:' }}{% endif %}";

std::shared_ptr<const BaseText> MakeBase(bool chat) {
  nlohmann::ordered_json config = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  if (chat) config["chat_template"] = kTemplate;
  auto base = BaseText::FromFiles(
      {{"tokenizer.json", TokenizerJson()}, {"tokenizer_config.json", config.dump()}}, "base");
  EXPECT_FUZZ(base.ok());
  return *base;
}

void Try(std::string_view bytes, const std::shared_ptr<const BaseText>& base, bool truncate) {
  DatasetOptions options;
  options.max_seq_length = 512;
  options.truncate = truncate;
  const auto report = ValidateDataset(bytes, "rows.jsonl", base, options, /*preview_rows=*/2);
  if (!report.ok()) return;
  const auto rows = TokenizeDataset(bytes, "rows.jsonl", base, options);
  // Training reads what validation took, and nothing else.
  EXPECT_FUZZ(rows.ok() == report->ok());
  if (!rows.ok()) return;
  EXPECT_FUZZ(rows->size() == report->rows);
  uint64_t tokens = 0;
  for (const TokenizedRow& row : *rows) {
    EXPECT_FUZZ(row.ids.size() == row.trained.size());
    EXPECT_FUZZ(static_cast<int64_t>(row.ids.size()) <= options.max_seq_length);
    EXPECT_FUZZ(row.targets() > 0);
    tokens += row.ids.size();
  }
  EXPECT_FUZZ(tokens == report->total_tokens);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto chat = MakeBase(true), plain = MakeBase(false);
  const std::string_view bytes = tundra::fuzz::View(data, size);
  // Compressed bytes have a target of their own.
  Try(bytes, chat, /*truncate=*/false);
  Try(bytes, plain, /*truncate=*/true);
  return 0;
}
