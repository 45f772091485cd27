// PostProcessor: the `post_processor` of a tokenizer.json, which puts special
// tokens around the ids of a text and trims offsets.
#pragma once

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/text/json_view.h"
#include "common/text/tokenizer.h"

namespace tundra {

// Immutable; thread-safe.
class PostProcessor {
 public:
  using IdToToken = absl::FunctionRef<std::string(int32_t)>;

  virtual ~PostProcessor() = default;
  // encoding.offsets is empty where nobody asked for offsets.
  virtual void Apply(bool add_special_tokens, IdToToken id_to_token, Encoding& encoding) const = 0;
};

// Supported: Sequence, TemplateProcessing (its template for one text),
// ByteLevel, BertProcessing, RobertaProcessing.
// `known` says whether an id exists.
// Errors: kInvalidArgument, kUnimplemented.
absl::StatusOr<std::unique_ptr<PostProcessor>> ParsePostProcessor(
    const JsonView& json, absl::FunctionRef<bool(int32_t)> known);

}  // namespace tundra
