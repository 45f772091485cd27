// Validation reports as text.
#pragma once

#include <string>

#include "tundra/v1/dataset.pb.h"

namespace tundra::client {

// "train.jsonl: 400 rows (messages), 61,000 tokens, 20,000 of them targets, …".
std::string SummaryText(const tundra::v1::ValidationReport& report, const std::string& name);

// One line a finding: "train.jsonl:17: …".
std::string FindingsText(const tundra::v1::ValidationReport& report, const std::string& name);

// The previewed rows: trained tokens in colour or in [[ ]].
std::string PreviewText(const tundra::v1::ValidationReport& report, bool colours);

}  // namespace tundra::client
