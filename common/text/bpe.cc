#include "common/text/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// A pair that could be joined; the smallest comes first.
struct Candidate {
  uint64_t order;  // rank << 32 | position of the left symbol
  int32_t id;
  bool operator>(const Candidate& other) const { return order > other.order; }
};

}  // namespace

// Buffers of one Encode, kept by each thread.
struct Bpe::Scratch {
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::string spelled;
};

bool WordCache::Find(std::string_view word, size_t hash, std::vector<WordToken>& out) const {
  const Shard& shard = shards_[(hash >> 8) % kShards];
  absl::MutexLock lock(&shard.mutex);
  const auto it = shard.words.find(Absl(word));
  if (it == shard.words.end()) return false;
  out.insert(out.end(), it->second.begin(), it->second.end());
  return true;
}

void WordCache::Insert(std::string_view word, size_t hash, const WordToken* tokens, size_t count) {
  Shard& shard = shards_[(hash >> 8) % kShards];
  absl::MutexLock lock(&shard.mutex);
  if (shard.words.size() >= kWordsPerShard) return;
  shard.words.try_emplace(std::string(word), tokens, tokens + count);
}

absl::StatusOr<std::unique_ptr<Bpe>> Bpe::Parse(const JsonView& model, bool reads_bytes) {
  auto bpe = std::make_unique<Bpe>();
  bpe->reads_bytes_ = reads_bytes;
  RETURN_IF_ERROR(bpe->ParseOptions(model));
  ASSIGN_OR_RETURN(const JsonView vocab, model.Get("vocab"));
  RETURN_IF_ERROR(bpe->ParseVocabulary(vocab));
  ASSIGN_OR_RETURN(const JsonView merges, model.Get("merges"));
  RETURN_IF_ERROR(bpe->ParseMerges(merges));
  return bpe;
}

absl::Status Bpe::ParseOptions(const JsonView& model) {
  // Files of before `type` was written have only the members of their kind.
  ASSIGN_OR_RETURN(const auto type, model.FindString("type"));
  if (type && *type != "BPE") {
    return model.Unsupported(absl::StrCat("the model '", *type,
                                          "' is not supported, only BPE is; use a base with a BPE "
                                          "tokenizer (Llama, Qwen, Mistral, GPT-2, …)"));
  }
  if (!type && !model.Find("merges")) {
    return model.Unsupported("a model without 'type' and 'merges' is not supported, only BPE is");
  }
  if (const auto dropout = model.Find("dropout")) {
    if (!dropout->IsNumber()) return dropout->Invalid("a number or null is expected");
    if (!dropout->IsZero()) {
      return dropout->Unsupported(
          "BPE dropout makes ids random and is not supported; set it to null");
    }
  }
  ASSIGN_OR_RETURN(unk_token_, model.FindString("unk_token"));
  ASSIGN_OR_RETURN(const auto prefix, model.FindString("continuing_subword_prefix"));
  ASSIGN_OR_RETURN(const auto suffix, model.FindString("end_of_word_suffix"));
  prefix_ = prefix.value_or("");
  suffix_ = suffix.value_or("");
  if (prefix_.size() > 256 || suffix_.size() > 256) {
    return model.Invalid("a subword prefix or suffix of over 256 bytes");
  }
  ASSIGN_OR_RETURN(fuse_unk_, model.GetBool("fuse_unk", false));
  ASSIGN_OR_RETURN(byte_fallback_, model.GetBool("byte_fallback", false));
  ASSIGN_OR_RETURN(ignore_merges_, model.GetBool("ignore_merges", false));
  return absl::OkStatus();
}

absl::Status Bpe::ParseVocabulary(const JsonView& vocab) {
  ids_.reserve(vocab.size());
  tokens_.reserve(vocab.size());
  RETURN_IF_ERROR(vocab.ForEachMember([&](const std::string& token, const JsonView& value) {
    ASSIGN_OR_RETURN(const int64_t wide, value.AsInteger(0, kMaxId));
    if (token.size() > kMaxTokenBytes) {
      return vocab.Invalid(
          absl::StrCat("a token of ", token.size(), " bytes; the limit is ", kMaxTokenBytes));
    }
    const auto id = static_cast<int32_t>(wide);
    const auto [it, is_new] = tokens_.try_emplace(id, token);
    if (!is_new) {
      return value.Invalid(absl::StrCat("id ", id, " is also that of the token '", it->second,
                                        "'; ids must differ"));
    }
    ids_.emplace(token, id);
    max_id_ = std::max(max_id_, id);
    return absl::OkStatus();
  }));
  for (int b = 0; b < 256; ++b) {
    byte_ids_[static_cast<size_t>(b)] = TokenToId(absl::StrFormat("<0x%02X>", b)).value_or(-1);
  }
  if (unk_token_) unk_id_ = TokenToId(*unk_token_).value_or(-1);
  return absl::OkStatus();
}

absl::Status Bpe::ParseMerges(const JsonView& merges) {
  if (!merges.IsArray()) return merges.Invalid("a list is expected");
  merges_.reserve(merges.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    ASSIGN_OR_RETURN(const JsonView merge, merges.At(i));
    std::string left, right;
    if (merge.IsArray()) {
      if (merge.size() != 2) return merge.Invalid("a merge is a pair of tokens");
      ASSIGN_OR_RETURN(const JsonView a, merge.At(0));
      ASSIGN_OR_RETURN(const JsonView b, merge.At(1));
      ASSIGN_OR_RETURN(left, a.AsString());
      ASSIGN_OR_RETURN(right, b.AsString());
    } else {
      ASSIGN_OR_RETURN(const std::string line, merge.AsString());
      if (line.starts_with("#version")) continue;
      const size_t blank = line.find(' ');
      if (blank == std::string::npos || line.find(' ', blank + 1) != std::string::npos) {
        return merge.Invalid(absl::StrCat("'", line, "' is not two tokens with one blank between"));
      }
      left = line.substr(0, blank);
      right = line.substr(blank + 1);
    }
    RETURN_IF_ERROR(AddMerge(merge, rank++, left, right));
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerge(const JsonView& place, uint32_t rank, std::string_view left,
                           std::string_view right) {
  const std::optional<int32_t> left_id = TokenToId(left);
  const std::optional<int32_t> right_id = TokenToId(right);
  if (!left_id || !right_id) {
    return place.Invalid(absl::StrCat("the merge names '", Absl(left_id ? right : left),
                                      "', which is not in model.vocab"));
  }
  if (right.size() < prefix_.size()) {
    return place.Invalid(absl::StrCat("'", Absl(right), "' is shorter than the subword prefix"));
  }
  const std::string joined = absl::StrCat(Absl(left), Absl(right.substr(prefix_.size())));
  const std::optional<int32_t> joined_id = TokenToId(joined);
  if (!joined_id) {
    return place.Invalid(
        absl::StrCat("the merge makes '", joined, "', which is not in model.vocab"));
  }
  merges_[PairKey(*left_id, *right_id)] = {rank,
                                           *joined_id};  // of two equal merges the last counts
  return absl::OkStatus();
}

std::optional<int32_t> Bpe::TokenToId(std::string_view token) const {
  const auto it = ids_.find(Absl(token));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

const std::string* Bpe::IdToToken(int32_t id) const {
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second;
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

bool Bpe::ByteFallback(std::string_view character, std::vector<Symbol>& symbols) const {
  for (const char b : character) {
    if (byte_ids_[static_cast<unsigned char>(b)] < 0) return false;
  }
  for (size_t i = 0; i < character.size(); ++i) {
    // In the visible alphabet a character is one byte of the word, however long.
    const uint32_t length = !reads_bytes_ || i == 0 ? 1 : 0;
    symbols.push_back({byte_ids_[static_cast<unsigned char>(character[i])], length, -1, -1, false});
  }
  return true;
}

absl::Status Bpe::InitialSymbols(std::string_view text, std::vector<Symbol>& symbols) const {
  symbols.clear();
  uint32_t unknown = 0;  // bytes of an unknown token not yet written
  std::string decorated;
  const auto flush = [&] {
    if (unknown > 0) symbols.push_back({unk_id_, unknown, -1, -1, false});
    unknown = 0;
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = begin + Utf8Length(text[begin]);
    std::string_view character = text.substr(begin, end - begin);
    const uint32_t length = reads_bytes_ ? 1 : static_cast<uint32_t>(character.size());
    const bool add_prefix = begin > 0 && !prefix_.empty();
    const bool add_suffix = end == text.size() && !suffix_.empty();
    if (add_prefix || add_suffix) {
      decorated =
          absl::StrCat(add_prefix ? prefix_ : "", Absl(character), add_suffix ? suffix_ : "");
      character = decorated;
    }
    begin = end;
    if (const std::optional<int32_t> id = TokenToId(character)) {
      flush();
      symbols.push_back({*id, length, -1, -1, false});
      continue;
    }
    // The reference does not write out a waiting unknown token before these.
    if (byte_fallback_ && ByteFallback(character, symbols)) continue;
    if (!unk_token_) continue;
    if (unk_id_ < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tokenizer: '", Absl(character), "' is unknown to the model and its unk_token '",
          *unk_token_, "' is not in its vocabulary"));
    }
    if (!fuse_unk_) flush();
    unknown += length;
  }
  flush();
  return absl::OkStatus();
}

void Bpe::MergeAll(Scratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  heap.clear();
  const auto offer = [&](int32_t left, int32_t right, bool push) {
    const Merge* merge =
        FindMerge(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge == nullptr) return;
    heap.push_back({uint64_t{merge->rank} << 32 | static_cast<uint32_t>(left), merge->id});
    if (push) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
    if (i + 1 < count) offer(i, i + 1, false);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto position = static_cast<int32_t>(top.order & 0xFFFFFFFF);
    Symbol& left = symbols[static_cast<size_t>(position)];
    if (left.removed || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // The pair may have changed since it was offered.
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    left.length += right.length;
    left.next = right.next;
    right.removed = true;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = position;
    if (left.previous >= 0) offer(left.previous, position, true);
    if (left.next >= 0) offer(position, left.next, true);
  }
}

constexpr size_t kMaxKeptWordBytes = 64 << 10;

absl::Status Bpe::Encode(std::string_view word, std::vector<WordToken>& out) const {
  thread_local Scratch scratch;
  const bool cached = word.size() <= WordCache::kMaxWordBytes;
  const size_t hash = cached ? absl::HashOf(Absl(word)) : 0;
  if (cached && cache_.Find(word, hash, out)) return absl::OkStatus();
  std::string_view text = word;
  if (reads_bytes_) {
    scratch.spelled.clear();
    AppendByteLevel(word, scratch.spelled);
    text = scratch.spelled;
  }
  const size_t first = out.size();
  const std::optional<int32_t> whole = ignore_merges_ ? TokenToId(text) : std::nullopt;
  if (whole) {
    out.push_back({*whole, static_cast<uint32_t>(word.size())});
  } else {
    RETURN_IF_ERROR(InitialSymbols(text, scratch.symbols));
    MergeAll(scratch);
    for (const Symbol& s : scratch.symbols) {
      if (!s.removed) out.push_back({s.id, s.length});
    }
  }
  if (cached) cache_.Insert(word, hash, out.data() + first, out.size() - first);
  // What one word of megabytes needed is not kept for ever.
  if (word.size() > kMaxKeptWordBytes) scratch = Scratch();
  return absl::OkStatus();
}

}  // namespace tundra
