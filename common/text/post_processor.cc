#include "common/text/post_processor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/bpe.h"
#include "common/text/unicode.h"

namespace tundra {
namespace {

using Known = absl::FunctionRef<bool(int32_t)>;

bool IsBlank(char32_t c) { return c == ByteToCharTable()[' '] || IsWhitespace(c); }

// Takes the blanks at a token's edges out of its offsets.
class TrimOffsets final : public PostProcessor {
 public:
  explicit TrimOffsets(bool add_prefix_space) : add_prefix_space_(add_prefix_space) {}

  void Apply(bool, PostProcessed& text) const override {
    for (size_t i = 0; i < text.encoding.offsets.size(); ++i) {
      auto& [begin, end] = text.encoding.offsets[i];
      auto [leading, trailing] = text.blanks[i];
      // The first blank is ours, not the text's, where one was put in front.
      if (leading > 0 && add_prefix_space_ && (i == 0 || begin == 0)) --leading;
      begin = std::min(begin + leading, end);
      if (trailing > 0 && end >= trailing) end = std::max(end - trailing, begin);
    }
  }

 private:
  const bool add_prefix_space_;
};

class Template final : public PostProcessor {
 public:
  // `ids` to insert, or the text.
  struct Item {
    bool is_text;
    std::vector<int32_t> ids;
  };
  explicit Template(std::vector<Item> items) : items_(std::move(items)) {}

  void Apply(bool add_special_tokens, PostProcessed& text) const override {
    const auto append = [](const auto& from, auto& to) {
      to.insert(to.end(), from.begin(), from.end());
    };
    PostProcessed out;
    out.with_offsets = text.with_offsets;
    out.encoding.ids.reserve(text.encoding.ids.size() + 4);
    for (const Item& item : items_) {
      if (item.is_text) {
        append(text.encoding.ids, out.encoding.ids);
        append(text.encoding.offsets, out.encoding.offsets);
        append(text.blanks, out.blanks);
      } else if (add_special_tokens) {
        append(item.ids, out.encoding.ids);
        if (text.with_offsets) {
          out.encoding.offsets.resize(out.encoding.ids.size());
          out.blanks.resize(out.encoding.ids.size());
        }
      }
    }
    text = std::move(out);
  }

 private:
  const std::vector<Item> items_;
};

class Sequence final : public PostProcessor {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PostProcessor>> steps) : steps_(std::move(steps)) {}
  void Apply(bool add_special_tokens, PostProcessed& text) const override {
    for (const auto& step : steps_) step->Apply(add_special_tokens, text);
  }

 private:
  const std::vector<std::unique_ptr<PostProcessor>> steps_;
};

absl::StatusOr<int32_t> ParseId(const JsonView& json, Known known) {
  ASSIGN_OR_RETURN(const int64_t id, json.AsInteger(0, Bpe::kMaxId));
  if (!known(static_cast<int32_t>(id))) {
    return json.Invalid(absl::StrCat("id ", id, " is no token of this file"));
  }
  return static_cast<int32_t>(id);
}

absl::StatusOr<std::vector<int32_t>> ParseTemplateSpecial(const JsonView& json,
                                                          const std::string& name, Known known) {
  ASSIGN_OR_RETURN(const JsonView specials, json.Get("special_tokens"));
  ASSIGN_OR_RETURN(const JsonView special, specials.Get(name));
  ASSIGN_OR_RETURN(const JsonView list, special.Get("ids"));
  if (!list.IsArray()) return list.Invalid("a list is expected");
  std::vector<int32_t> ids;
  for (size_t i = 0; i < list.size(); ++i) {
    ASSIGN_OR_RETURN(const JsonView element, list.At(i));
    ASSIGN_OR_RETURN(const int32_t id, ParseId(element, known));
    ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<std::unique_ptr<PostProcessor>> ParseTemplate(const JsonView& json, Known known) {
  ASSIGN_OR_RETURN(const JsonView single, json.Get("single"));
  if (!single.IsArray()) return single.Invalid("a list is expected");
  if (single.size() > 256) return single.Invalid("a template of over 256 items");
  std::vector<Template::Item> items;
  for (size_t i = 0; i < single.size(); ++i) {
    ASSIGN_OR_RETURN(const JsonView element, single.At(i));
    if (const auto sequence = element.Find("Sequence")) {
      ASSIGN_OR_RETURN(const std::string id, sequence->GetString("id"));
      if (id != "A") {
        return sequence->Invalid(absl::StrCat("the template for one text can't hold '", id, "'"));
      }
      items.push_back({true, {}});
    } else if (const auto special = element.Find("SpecialToken")) {
      ASSIGN_OR_RETURN(const std::string name, special->GetString("id"));
      ASSIGN_OR_RETURN(auto ids, ParseTemplateSpecial(json, name, known));
      items.push_back({false, std::move(ids)});
    } else {
      return element.Invalid("an object with 'Sequence' or 'SpecialToken' is expected");
    }
  }
  return std::make_unique<Template>(std::move(items));
}

// "sep" and "cls" of BertProcessing and RobertaProcessing: ["</s>", 2].
absl::StatusOr<int32_t> ParsePair(const JsonView& json, std::string_view key, Known known) {
  ASSIGN_OR_RETURN(const JsonView pair, json.Get(key));
  ASSIGN_OR_RETURN(const JsonView id, pair.At(1));
  return ParseId(id, known);
}

absl::StatusOr<std::unique_ptr<PostProcessor>> ParseBert(const JsonView& json, bool roberta,
                                                         Known known) {
  ASSIGN_OR_RETURN(const int32_t cls, ParsePair(json, "cls", known));
  ASSIGN_OR_RETURN(const int32_t sep, ParsePair(json, "sep", known));
  std::vector<std::unique_ptr<PostProcessor>> steps;
  if (roberta) {
    ASSIGN_OR_RETURN(const bool trim, json.GetBool("trim_offsets", true));
    ASSIGN_OR_RETURN(const bool prefix, json.GetBool("add_prefix_space", true));
    if (trim) steps.push_back(std::make_unique<TrimOffsets>(prefix));
  }
  steps.push_back(std::make_unique<Template>(
      std::vector<Template::Item>{{false, {cls}}, {true, {}}, {false, {sep}}}));
  return std::make_unique<Sequence>(std::move(steps));
}

absl::StatusOr<std::unique_ptr<PostProcessor>> ParseAtDepth(const JsonView& json, int depth,
                                                            Known known) {
  if (depth > 8) return json.Unsupported("sequences nested over 8 deep");
  ASSIGN_OR_RETURN(const std::string type, json.GetString("type"));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonView list, json.Get("processors"));
    if (!list.IsArray()) return list.Invalid("a list is expected");
    if (list.size() > 64) return list.Invalid("over 64 processors");
    std::vector<std::unique_ptr<PostProcessor>> steps;
    for (size_t i = 0; i < list.size(); ++i) {
      ASSIGN_OR_RETURN(const JsonView element, list.At(i));
      ASSIGN_OR_RETURN(auto step, ParseAtDepth(element, depth + 1, known));
      steps.push_back(std::move(step));
    }
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "TemplateProcessing") return ParseTemplate(json, known);
  if (type == "BertProcessing") return ParseBert(json, false, known);
  if (type == "RobertaProcessing") return ParseBert(json, true, known);
  if (type == "ByteLevel") {
    ASSIGN_OR_RETURN(const bool trim, json.GetBool("trim_offsets", true));
    ASSIGN_OR_RETURN(const bool prefix, json.GetBool("add_prefix_space", true));
    std::vector<std::unique_ptr<PostProcessor>> steps;
    if (trim) steps.push_back(std::make_unique<TrimOffsets>(prefix));
    return std::make_unique<Sequence>(std::move(steps));
  }
  return json.Unsupported(absl::StrCat(
      "the post-processor '", type,
      "' is not supported (Sequence, TemplateProcessing, ByteLevel, BertProcessing and "
      "RobertaProcessing are); use a base whose tokenizer needs only these"));
}

}  // namespace

EdgeBlanks CountEdgeBlanks(std::string_view token) {
  EdgeBlanks blanks;
  for (size_t pos = 0; pos < token.size(); ++blanks.leading) {
    if (!IsBlank(NextCodePoint(token, pos))) break;
  }
  for (size_t pos = token.size(); pos > 0; ++blanks.trailing) {
    if (!IsBlank(PreviousCodePoint(token, pos))) break;
  }
  return blanks;
}

absl::StatusOr<std::unique_ptr<PostProcessor>> ParsePostProcessor(const JsonView& json,
                                                                  Known known) {
  return ParseAtDepth(json, 0, known);
}

}  // namespace tundra
