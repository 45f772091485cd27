// Bases and rows for tests of data sets.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "common/files.h"
#include "common/status_test_util.h"
#include "common/text/base_text.h"
#include "common/text/dataset.h"
#include "common/text/tokenizer.h"
#include "common/text/validate.h"

namespace tundra {

inline constexpr char kChatMl[] =
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + "
    "'<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

inline constexpr char kMarked[] =
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.role "
    "== 'assistant' %}"
    "{%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}{%- else %}"
    "{{- message.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

inline std::string GoldenDir() {
  const char* source = std::getenv("TUNDRA_SOURCE_DIR");
  return std::string(source == nullptr ? "." : source) + "/tests/parity/golden";
}

inline std::shared_ptr<const BaseText> MakeBase(const std::string& chat_template,
                                                const std::string& bos, const std::string& eos,
                                                const std::string& tokenizer = "qwen_style") {
  std::map<std::string, std::string> files;
  const auto json = ReadFile(GoldenDir() + "/tokenizers/" + tokenizer + "/tokenizer.json");
  EXPECT_THAT(json, testing::IsOk());
  files["tokenizer.json"] = json.value_or("");
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  if (!bos.empty()) config["bos_token"] = bos;
  if (!eos.empty()) config["eos_token"] = {{"content", eos}, {"special", true}};
  if (!chat_template.empty()) config["chat_template"] = chat_template;
  files["tokenizer_config.json"] = config.dump();
  const auto base = BaseText::FromFiles(files, "base");
  EXPECT_THAT(base, testing::IsOk());
  return base.value_or(nullptr);
}

inline std::shared_ptr<const BaseText> ChatBase(const std::string& chat_template = kChatMl) {
  return MakeBase(chat_template, "", "<|im_end|>");
}

// The row with its trained tokens in [[ ]].
inline std::string Show(const TokenizedRow& row, const BaseText& base) {
  PreviewRow preview;
  for (size_t i = 0; i < row.ids.size(); ++i) {
    preview.tokens.push_back(
        {row.ids[i], base.tokenizer().Decode({&row.ids[i], 1}, false), row.trained[i] != 0});
  }
  return FormatPreview(preview);
}

inline std::string RowOf(const std::shared_ptr<const BaseText>& base, const std::string& line,
                         const DatasetOptions& options = DatasetOptions()) {
  RowTokenizer tokenizer(base, options);
  TokenizedRow row;
  const RowProblem problem = tokenizer.Tokenize(line, 1, &row);
  return problem.ok() ? Show(row, *base)
                      : std::string(RowErrorName(problem.error)) + ": " + problem.what;
}

}  // namespace tundra
