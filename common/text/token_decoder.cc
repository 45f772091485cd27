#include "common/text/token_decoder.h"

#include <charconv>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/onig_regex.h"
#include "common/text/text_pattern_json.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

class Sequence final : public TokenDecoder {
 public:
  explicit Sequence(std::vector<std::unique_ptr<TokenDecoder>> steps) : steps_(std::move(steps)) {}
  void Apply(std::vector<std::string>& tokens, size_t max_bytes) const override {
    for (const auto& step : steps_) step->Apply(tokens, max_bytes);
  }

 private:
  const std::vector<std::unique_ptr<TokenDecoder>> steps_;
};

class ByteLevel final : public TokenDecoder {
 public:
  void Apply(std::vector<std::string>& tokens, size_t) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      const size_t before = bytes.size();
      for (size_t pos = 0; pos < token.size();) {
        const int byte = CharToByte(NextCodePoint(token, pos));
        if (byte < 0) {  // not in the alphabet, e.g. an added token: taken as it is
          bytes.resize(before);
          bytes.append(token);
          break;
        }
        bytes.push_back(static_cast<char>(byte));
      }
    }
    tokens.assign(1, Utf8Lossy(bytes));
  }
};

class Metaspace final : public TokenDecoder {
 public:
  Metaspace(std::string replacement, bool drops_first)
      : replacement_(std::move(replacement)), drops_first_(drops_first) {}
  void Apply(std::vector<std::string>& tokens, size_t) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string out;
      const std::string_view token = tokens[i];
      for (size_t pos = 0; pos < token.size();) {
        if (token.substr(pos).starts_with(replacement_)) {
          if (i > 0 || !drops_first_) out.push_back(' ');
          pos += replacement_.size();
        } else {
          out.push_back(token[pos++]);
        }
      }
      tokens[i] = std::move(out);
    }
  }

 private:
  const std::string replacement_;
  const bool drops_first_;
};

class Replace final : public TokenDecoder {
 public:
  Replace(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Apply(std::vector<std::string>& tokens, size_t max_bytes) const override {
    size_t grown = 0;  // bytes over what was there
    for (std::string& token : tokens) {
      std::string out;
      size_t kept = 0;
      // On a token's few bytes an expression does not run away; if it did, the rest stays.
      pattern_
          .ForEachMatch(token,
                        [&](size_t begin, size_t end) {
                          if (grown + content_.size() > max_bytes) return;
                          out.append(token, kept, begin - kept);
                          out.append(content_);
                          kept = end;
                          if (content_.size() > end - begin) grown += content_.size();
                        })
          .IgnoreError();
      out.append(token, kept);
      token = std::move(out);
    }
  }

 private:
  const TextPattern pattern_;
  const std::string content_;
};

// Runs of <0xEF> become the text of their bytes, or U+FFFD each if it is none.
class ByteFallback final : public TokenDecoder {
 public:
  void Apply(std::vector<std::string>& tokens, size_t) const override {
    std::vector<std::string> out;
    std::string run;
    const auto flush = [&] {
      if (ValidUtf8Prefix(run) == run.size()) {
        if (!run.empty()) out.push_back(run);
      } else {
        out.insert(out.end(), run.size(), "\uFFFD");
      }
      run.clear();
    };
    for (std::string& token : tokens) {
      if (const std::optional<char> byte = Byte(token)) {
        run.push_back(*byte);
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  }

 private:
  static std::optional<char> Byte(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    std::string_view digits = token.substr(3, 2);
    if (digits[0] == '+') digits.remove_prefix(1);  // Rust's number parser takes a sign
    unsigned value = 0;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value, 16);
    if (error != std::errc() || end != digits.end()) return std::nullopt;
    return static_cast<char>(value);
  }
};

class Fuse final : public TokenDecoder {
 public:
  void Apply(std::vector<std::string>& tokens, size_t) const override {
    std::string all;
    for (const std::string& token : tokens) all.append(token);
    tokens.assign(1, std::move(all));
  }
};

// Removes up to `start` and `stop` times a character at a token's edges.
class Strip final : public TokenDecoder {
 public:
  Strip(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void Apply(std::vector<std::string>& tokens, size_t) const override {
    for (std::string& token : tokens) {
      std::string_view rest = token;
      size_t cut = 0;
      for (; cut < start_ && rest.starts_with(content_); ++cut) rest.remove_prefix(content_.size());
      for (cut = 0; cut < stop_ && rest.ends_with(content_); ++cut)
        rest.remove_suffix(content_.size());
      token = std::string(rest);
    }
  }

 private:
  const std::string content_;
  const size_t start_, stop_;
};

// The suffix that ends a word becomes a blank, and nothing at the end of the text.
class EndOfWord final : public TokenDecoder {
 public:
  explicit EndOfWord(std::string suffix) : suffix_(std::move(suffix)) {}
  void Apply(std::vector<std::string>& tokens, size_t) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string out;
      size_t kept = 0;
      for (size_t at = tokens[i].find(suffix_); at != std::string::npos;
           at = tokens[i].find(suffix_, kept)) {
        out.append(tokens[i], kept, at - kept);
        if (i + 1 < tokens.size()) out.push_back(' ');
        kept = at + suffix_.size();
      }
      out.append(tokens[i], kept);
      tokens[i] = std::move(out);
    }
  }

 private:
  const std::string suffix_;
};

absl::StatusOr<std::unique_ptr<TokenDecoder>> ParseMetaspace(const JsonView& json) {
  ASSIGN_OR_RETURN(const std::string replacement, json.GetString("replacement"));
  if (replacement.empty()) return json.Invalid("'replacement' must be one character");
  ASSIGN_OR_RETURN(const bool add_prefix_space, json.GetBool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const auto scheme, json.FindString("prepend_scheme"));
  return std::make_unique<Metaspace>(replacement, scheme ? *scheme != "never" : add_prefix_space);
}

absl::StatusOr<std::unique_ptr<TokenDecoder>> ParseStrip(const JsonView& json) {
  ASSIGN_OR_RETURN(const std::string content, json.GetString("content"));
  if (!IsOneCharacter(content)) {
    return json.Invalid("'content' must be one character");
  }
  ASSIGN_OR_RETURN(const JsonView start_json, json.Get("start"));
  ASSIGN_OR_RETURN(const JsonView stop_json, json.Get("stop"));
  ASSIGN_OR_RETURN(const int64_t start, start_json.AsInteger(0, 1 << 20));
  ASSIGN_OR_RETURN(const int64_t stop, stop_json.AsInteger(0, 1 << 20));
  return std::make_unique<Strip>(content, static_cast<size_t>(start), static_cast<size_t>(stop));
}

// Each reads the whole text; real files have under ten.
constexpr int kMaxSteps = 64;

absl::StatusOr<std::unique_ptr<TokenDecoder>> ParseAtDepth(const JsonView& json, int depth,
                                                           int& steps_seen) {
  if (depth > 8) return json.Unsupported("sequences nested over 8 deep");
  if (++steps_seen > kMaxSteps) return json.Unsupported(absl::StrCat("over ", kMaxSteps, " steps"));
  ASSIGN_OR_RETURN(const std::string type, json.GetString("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonView list, json.Get("decoders"));
    if (!list.IsArray()) return list.Invalid("a list is expected");
    std::vector<std::unique_ptr<TokenDecoder>> steps;
    for (size_t i = 0; i < list.size(); ++i) {
      ASSIGN_OR_RETURN(const JsonView element, list.At(i));
      ASSIGN_OR_RETURN(auto step, ParseAtDepth(element, depth + 1, steps_seen));
      steps.push_back(std::move(step));
    }
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Metaspace") return ParseMetaspace(json);
  if (type == "Strip") return ParseStrip(json);
  if (type == "Replace") {
    ASSIGN_OR_RETURN(TextPattern pattern, ParseTextPattern(json));
    ASSIGN_OR_RETURN(std::string content, json.GetString("content"));
    return std::make_unique<Replace>(std::move(pattern), std::move(content));
  }
  if (type == "BPEDecoder") {
    ASSIGN_OR_RETURN(const auto suffix, json.FindString("suffix"));
    if (suffix && suffix->empty()) return json.Invalid("'suffix' must not be empty");
    return std::make_unique<EndOfWord>(suffix.value_or("</w>"));
  }
  return json.Unsupported(absl::StrCat(
      "the decoder '", type,
      "' is not supported (Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip and "
      "BPEDecoder are); use a base whose tokenizer needs only these"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenDecoder>> ParseTokenDecoder(const JsonView& json) {
  int steps_seen = 0;
  return ParseAtDepth(json, 0, steps_seen);
}

}  // namespace tundra
