// Bpe: byte pair encoding of one word, with the merges of a tokenizer.json.
//
// A word starts as one symbol a character; the pair of neighbours with the best
// rank (the leftmost of equals) is joined until no pair has a rank. A heap of
// candidate pairs makes that O(n log n), so a megabyte without a blank is no
// trap. Words up to kMaxCachedBytes are remembered.
//
// Source: Sennrich et al. 2016, arXiv:1508.07909; the order of merges and the
// treatment of unknown characters follow Hugging Face tokenizers.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/text/json_view.h"

namespace tundra {

// A token and how many bytes of the word it covers.
struct WordToken {
  int32_t id;
  uint32_t length;
};
using WordTokens = absl::InlinedVector<WordToken, 4>;

// Remembers words, sharded so that threads seldom meet. When a shard is full it
// takes no more, as in the reference. Thread-safe.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 256;

  // Appends the tokens of `word`; false when it is not there.
  bool Find(std::string_view word, size_t hash, std::vector<WordToken>& out) const;
  void Insert(std::string_view word, size_t hash, const WordToken* tokens, size_t count);

 private:
  static constexpr size_t kShards = 64;
  static constexpr size_t kWordsPerShard = 2048;
  struct alignas(64) Shard {
    mutable absl::Mutex mutex;
    absl::flat_hash_map<std::string, WordTokens> words ABSL_GUARDED_BY(mutex);
  };
  std::array<Shard, kShards> shards_;
};

class Bpe {
 public:
  static constexpr int32_t kMaxId = (1 << 24) - 1;
  static constexpr size_t kMaxTokenBytes = 64 << 10;

  // `model` is the member of that name. `reads_bytes`: words come as raw bytes,
  // to be seen in GPT-2's visible alphabet.
  // Errors: kInvalidArgument, kUnimplemented, naming the key.
  static absl::StatusOr<std::unique_ptr<Bpe>> Parse(const JsonView& model, bool reads_bytes);

  // Appends the tokens of `word` (not empty). Characters without a token are
  // left out when the model has no unk_token, as the reference does.
  // Errors: kInvalidArgument when an unknown character needs an unk_token that
  // the vocabulary lacks. Thread-safe.
  absl::Status Encode(std::string_view word, std::vector<WordToken>& out) const;

  std::optional<int32_t> TokenToId(std::string_view token) const;
  // nullptr when no token has the id.
  const std::string* IdToToken(int32_t id) const;
  // Number of tokens.
  size_t size() const { return ids_.size(); }
  // -1 when there is none.
  int32_t max_id() const { return max_id_; }

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;  // of the joined token
  };
  struct Symbol {
    int32_t id;
    uint32_t length;
    int32_t previous, next;  // -1: none
    bool removed;
  };
  struct Scratch;

  absl::Status ParseOptions(const JsonView& model);
  absl::Status ParseVocabulary(const JsonView& vocab);
  absl::Status ParseMerges(const JsonView& merges);
  absl::Status AddMerge(const JsonView& place, uint32_t rank, std::string_view left,
                        std::string_view right);

  const Merge* FindMerge(int32_t left, int32_t right) const;
  // Symbols of the word's characters. `text` is the word as the vocabulary spells it.
  absl::Status InitialSymbols(std::string_view text, std::vector<Symbol>& symbols) const;
  bool ByteFallback(std::string_view character, std::vector<Symbol>& symbols) const;
  void MergeAll(Scratch& scratch) const;

  bool reads_bytes_ = false;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::optional<std::string> unk_token_;
  int32_t unk_id_ = -1;
  std::string prefix_;  // continuing_subword_prefix
  std::string suffix_;  // end_of_word_suffix
  absl::flat_hash_map<std::string, int32_t> ids_;
  absl::flat_hash_map<int32_t, std::string> tokens_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // key: left id << 32 | right id
  std::array<int32_t, 256> byte_ids_{};          // of "<0x00>"…; -1: not there
  int32_t max_id_ = -1;
  mutable WordCache cache_;
};

}  // namespace tundra
