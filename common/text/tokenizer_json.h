// TokenizerParts: the pipeline that a tokenizer.json describes, read and built.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/text/added_tokens.h"
#include "common/text/bpe.h"
#include "common/text/normalizer.h"
#include "common/text/post_processor.h"
#include "common/text/pre_tokenizer.h"
#include "common/text/token_decoder.h"

namespace tundra {

// Any of the optional parts may be null.
struct TokenizerParts {
  std::string name;  // of the file, for messages
  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  std::unique_ptr<Bpe> model;
  std::unique_ptr<AddedTokens> added;
  std::unique_ptr<PostProcessor> post_processor;
  std::unique_ptr<TokenDecoder> decoder;

  // The string of an id; nullptr when there is none.
  const std::string* IdToToken(int32_t id) const;
};

// Errors as Tokenizer::FromJson.
absl::StatusOr<std::unique_ptr<TokenizerParts>> ParseTokenizerJson(std::string_view json,
                                                                   std::string_view name);

}  // namespace tundra
