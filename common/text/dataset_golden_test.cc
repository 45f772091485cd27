// Rows against TRL: the same ids, and the same tokens trained, as its SFTTrainer
// prepares them (tests/parity/golden/datasets).
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/status_test_util.h"
#include "common/text/base_text.h"
#include "common/text/dataset.h"
#include "common/text/golden_files.h"

namespace tundra {
namespace {

using Json = nlohmann::json;
using testing::IsOk;

class DatasetGolden : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    golden_ = Json::parse(ReadGolden("datasets/" + GetParam() + ".json.gz"));
    Json config = golden_["special_tokens"];
    config["chat_template"] = golden_["chat_template"];
    const auto base = BaseText::FromFiles(
        {{"tokenizer.json", ReadGolden("tokenizers/" + GetParam() + "/tokenizer.json")},
         {"tokenizer_config.json", config.dump()}},
        "base");
    ASSERT_THAT(base, IsOk());
    base_ = *base;
  }

  // The case's row as this code reads it. `refusal` is set instead where it is refused.
  TokenizedRow Tokenize(const Json& golden_case, std::string* refusal) const {
    DatasetOptions options;
    options.loss_on = *ParseLossOn(golden_case["loss_on"].get<std::string>());
    RowTokenizer tokenizer(base_, options);
    TokenizedRow row;
    const RowProblem problem = tokenizer.Tokenize(golden_case["row"].dump(), 1, &row);
    if (!problem.ok()) *refusal = problem.what;
    return row;
  }

  Json golden_;
  std::shared_ptr<const BaseText> base_;
};

TEST_P(DatasetGolden, GivesTheIdsAndTargetsOfTrl) {
  ASSERT_GE(golden_["cases"].size(), 30u);
  for (const Json& golden_case : golden_["cases"]) {
    const std::string where = golden_case["row"].dump() + " " + golden_case["loss_on"].dump();
    std::string refusal;
    const TokenizedRow row = Tokenize(golden_case, &refusal);
    ASSERT_EQ(refusal, "") << where;
    EXPECT_EQ(Json(row.ids), golden_case["input_ids"]) << where;
    if (Json(row.ids) != golden_case["input_ids"]) continue;
    const Json& labels = golden_case["labels"];
    for (size_t i = 1; i < row.ids.size(); ++i) {  // nothing predicts the first
      EXPECT_EQ(row.trained[i] != 0, labels[i] != -100) << where << ", token " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DatasetGolden,
                         ::testing::Values("gpt2_style", "llama3_style", "qwen_style",
                                           "sentencepiece_style", "metaspace_first_style"));

}  // namespace
}  // namespace tundra
