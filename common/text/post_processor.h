// PostProcessor: the `post_processor` of a tokenizer.json, which puts special
// tokens around the ids of a text and trims offsets.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/text/json_view.h"
#include "common/text/tokenizer.h"

namespace tundra {

// How many blanks a token begins and ends with, as trim_offsets counts them.
struct EdgeBlanks {
  uint32_t leading = 0, trailing = 0;
};
// Of a token's string as the vocabulary spells it, or of an added token's text.
EdgeBlanks CountEdgeBlanks(std::string_view token);

// A text on its way through the post-processor. `encoding.offsets` and `blanks`
// have one element an id when with_offsets is set, and are empty otherwise.
struct PostProcessed {
  Encoding encoding;
  bool with_offsets = false;
  std::vector<EdgeBlanks> blanks;
};

// Immutable; thread-safe.
class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  virtual void Apply(bool add_special_tokens, PostProcessed& text) const = 0;
};

// Supported: Sequence, TemplateProcessing (its template for one text),
// ByteLevel, BertProcessing, RobertaProcessing.
// `known` says whether an id exists.
// Errors: kInvalidArgument, kUnimplemented.
absl::StatusOr<std::unique_ptr<PostProcessor>> ParsePostProcessor(
    const JsonView& json, absl::FunctionRef<bool(int32_t)> known);

}  // namespace tundra
