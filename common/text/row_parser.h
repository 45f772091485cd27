// One line of a data set to an example: which format it is, whether its keys and
// values are that format's, and the conversation or the texts in it. Knows no
// tokenizer.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/dataset.h"

namespace tundra {

struct RowExample {
  DatasetFormat format = DatasetFormat::kUnknown;

  // A conversation, when chat: messages as the template sees them.
  bool chat = false;
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  nlohmann::ordered_json tools;
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();
  std::vector<uint8_t> trained_turns;  // a message: 0 when its weight is 0
  size_t prompt_messages = 0;          // of prompt/completion: those before the completion

  // Plain texts otherwise; `text` rows have no prompt.
  std::string prompt;
  std::string completion;
};

// The format that a row's keys tell, kUnknown when none.
DatasetFormat RecognizeFormat(const nlohmann::ordered_json& row);

// `expected` is the file's format, kUnknown while no row has told it.
// `chat_template`: whether the base has one; Alpaca rows become conversations then.
RowProblem ParseRow(std::string_view line, DatasetFormat expected, bool chat_template,
                    RowExample* example);

}  // namespace tundra
