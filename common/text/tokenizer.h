// Tokenizer: text to token ids and back, exactly as Hugging Face tokenizers
// reads a `tokenizer.json`.
//
// The file describes a pipeline, and so does the code:
//   text -> added tokens cut out (added_tokens) -> normalizer -> pre-tokenizer
//        -> BPE model (bpe) -> post-processor (special tokens around the text)
//   ids  -> token strings -> decoder chain -> text
// What a file asks for beyond what is built here (Unigram, WordPiece, a
// Precompiled normalizer, …) is refused by name when it is read; nothing is
// skipped or guessed. `truncation` and `padding` of the file are not applied:
// the caller cuts and pads.
//
// Reference: huggingface/tokenizers; the golden tests hold the ids of its
// release 0.23.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace tundra {

struct TokenizerParts;  // tokenizer_json.h

// Ids and, for each, the bytes [begin, end) of the input that it stands for.
// An id that splits a character has the range of the whole character; an id
// the post-processor added has (0, 0).
struct Encoding {
  std::vector<int32_t> ids;
  std::vector<std::pair<uint32_t, uint32_t>> offsets;
};

// Immutable after construction apart from a cache of words with its own locks:
// any number of threads may call any const method at once.
class Tokenizer {
 public:
  // Largest tokenizer.json read, and largest text encoded in one call.
  static constexpr size_t kMaxJsonBytes = size_t{256} << 20;
  static constexpr size_t kMaxTextBytes = size_t{64} << 20;

  // `tokenizer_json` are the bytes of the file, `name` its path, for messages.
  // Errors: kInvalidArgument (malformed or inconsistent) and kUnimplemented (a
  // part that is not supported); each names the file, the key and the remedy.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json,
                                                             std::string_view name);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Token ids of `utf8`. Special tokens written in the text are recognised
  // whatever `add_special_tokens` says; it decides only whether the
  // post-processor adds its own (BOS, EOS) around them.
  // Errors: kInvalidArgument when `utf8` is not valid UTF-8 (with the offset of
  // the first bad byte) or longer than kMaxTextBytes; kResourceExhausted when a
  // regular expression of the file runs away on this text, or its normalizer multiplies it;
  // kCancelled when the work is no longer wanted (common/interrupt.h).
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view utf8, bool add_special_tokens) const;

  // As Encode, with the place of every token in `utf8`.
  absl::StatusOr<Encoding> EncodeWithOffsets(std::string_view utf8, bool add_special_tokens) const;

  // Text of `ids`; unknown ids are left out, as the reference does, and bytes
  // that are not UTF-8 become U+FFFD.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const;

  // The id of a token's string as it stands in the file ("Ġthe", "<|eot_id|>").
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // The string that an id decodes from; empty when there is none. It is as it
  // stands in the file, but for an added token with normalized = true, which
  // the reference gives back normalized.
  std::string IdToToken(int32_t id) const;

  // One more than the largest id, added tokens included: the rows an embedding
  // needs. (Files may leave holes; see token_count.)
  int vocab_size() const;
  // Number of different tokens, added ones included.
  int token_count() const;
  // True for an added token marked special (BOS, EOS, <|im_start|>, …).
  bool IsSpecial(int32_t id) const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::unique_ptr<TokenizerParts> parts);

  // The string that Decode takes for an id; nullptr when it leaves the id out.
  const std::string* DecodedToken(int32_t id, bool skip_special_tokens) const;

  absl::Status EncodeInto(std::string_view utf8, bool add_special_tokens, bool with_offsets,
                          Encoding& out) const;

  const std::unique_ptr<const TokenizerParts> parts_;
};

// Decodes one token at a time for `generate`: what Put returns, put end to end
// with what Finish returns, is what Decode gives for all ids at once (but for a
// run of byte tokens that turns invalid after part of it was already given
// out), and every part is whole UTF-8: bytes of an unfinished character wait.
// Not thread-safe. The tokenizer must outlive it.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  // The text that `id` completes; often empty inside a multi-byte character.
  std::string Put(int32_t id);
  // What still waits, with U+FFFD for an unfinished character. Starts anew.
  std::string Finish();

 private:
  // Text of all of ids_ that lies behind the text of ids_[0, read_).
  std::string NewText() const;

  const Tokenizer& tokenizer_;
  const bool skip_special_tokens_;
  // ids_[0, read_) have been given out and stay only as context; the rest wait.
  std::vector<int32_t> ids_;
  size_t read_ = 0;
};

}  // namespace tundra
