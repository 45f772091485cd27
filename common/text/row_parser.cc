#include "common/text/row_parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/text/jinja/unicode.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;
using Keys = std::initializer_list<std::string_view>;

constexpr int kMaxDepth = 90;          // of brackets in a row
constexpr size_t kMaxMembers = 1'000;  // of one object; looking one up takes as many steps

RowProblem Problem(RowError error, std::string what) { return RowProblem{error, std::move(what)}; }

std::string Quoted(std::string_view text) {
  constexpr size_t kMost = 40;
  std::string shown(text.substr(0, jinja::ByteOffset(text, kMost)));
  if (shown.size() < text.size()) shown += "…";
  return absl::StrCat("\"", shown, "\"");
}

std::string KeysOf(const Json& object) {
  std::string keys;
  int count = 0;
  for (const auto& [key, value] : object.items()) {
    if (++count > 8) return keys + ", …";
    absl::StrAppend(&keys, keys.empty() ? "" : ", ", Quoted(key));
  }
  return keys.empty() ? "none" : keys;
}

// Brackets outside strings nested deeper than kMaxDepth.
bool TooDeep(std::string_view line) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

size_t FirstBadByte(std::string_view text) {
  size_t low = 0;
  for (size_t pos = 0; pos < text.size();) {
    low = pos;
    const char32_t c = jinja::DecodeChar(text, &pos);
    if (c == 0xFFFD && pos == low + 1) return low;
  }
  return text.size();
}

RowProblem ParseJson(std::string_view line, Json* row) {
  if (!jinja::IsUtf8(line)) {
    return Problem(RowError::kBadUtf8, absl::StrCat("not valid UTF-8 at byte ", FirstBadByte(line),
                                                    " of the line; save the file as UTF-8"));
  }
  if (TooDeep(line)) {
    return Problem(RowError::kMalformedJson,
                   absl::StrCat("JSON nested more than ", kMaxDepth, " deep; flatten the row"));
  }
  // The library keeps the last of two equal keys, in silence.
  std::vector<absl::flat_hash_set<std::string>> keys;
  std::string problem;
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key && problem.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        problem =
            absl::StrCat("the key ", Quoted(key), " is given twice in one object; remove one");
      } else if (keys.back().size() > kMaxMembers) {
        problem = absl::StrCat("an object with more than ", kMaxMembers, " keys; drop the row");
      }
    }
    return problem.empty();
  };
  try {
    *row = Json::parse(line.begin(), line.end(), watch);
  } catch (const Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 9: why"
    std::string why = error.what();
    if (const size_t at = why.find("column "); at != std::string::npos) why = why.substr(at);
    return Problem(RowError::kMalformedJson,
                   absl::StrCat("malformed JSON, ", why, "; write one JSON object a line"));
  }
  if (!problem.empty()) return Problem(RowError::kMalformedJson, problem);
  if (!row->is_object()) {
    return Problem(RowError::kNotAnObject, "not a JSON object; write one JSON object a line");
  }
  return {};
}

bool HasAll(const Json& row, const Keys& keys) {
  return std::all_of(keys.begin(), keys.end(),
                     [&](std::string_view key) { return row.contains(std::string(key)); });
}

// --- keys

// "id" and "metadata" are the data set's own; nothing reads them.
std::vector<std::string_view> KnownKeys(DatasetFormat format) {
  switch (format) {
    case DatasetFormat::kMessages:
      return {"messages", "tools", "chat_template_kwargs", "id", "metadata"};
    case DatasetFormat::kPromptCompletion:
      return {"prompt", "completion", "tools", "chat_template_kwargs", "id", "metadata"};
    case DatasetFormat::kText:
      return {"text", "id", "metadata"};
    case DatasetFormat::kAlpaca:
      return {"instruction", "input", "output", "system", "text", "id", "metadata"};
    case DatasetFormat::kShareGpt:
      return {"conversations", "system", "tools", "id", "metadata"};
    case DatasetFormat::kUnknown:
    case DatasetFormat::kPreference:
      break;
  }
  return {};
}

RowProblem CheckKeys(const Json& row, DatasetFormat format) {
  const std::vector<std::string_view> known = KnownKeys(format);
  for (const auto& [key, value] : row.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string list;
    for (std::string_view name : known)
      absl::StrAppend(&list, list.empty() ? "" : ", ", std::string(name));
    return Problem(
        RowError::kUnknownKeys,
        absl::StrCat("unknown key ", Quoted(key), " in a row of the format ",
                     std::string(DatasetFormatName(format)), "; remove it (known: ", list, ")"));
  }
  return {};
}

RowProblem BadField(std::string what) { return Problem(RowError::kBadField, std::move(what)); }

RowProblem ReadString(const Json& row, const char* key, std::string* out) {
  const auto it = row.find(key);
  if (it == row.end() || it->is_null()) return {};
  if (!it->is_string()) {
    return BadField(
        absl::StrCat("\"", key, "\" is not a string but ", it->type_name(), "; write a string"));
  }
  *out = it->get<std::string>();
  return {};
}

// A list of objects, or (as data sets store it) a string that holds one.
RowProblem ReadTools(const Json& row, Json* tools) {
  const auto it = row.find("tools");
  if (it == row.end() || it->is_null()) return {};
  Json list = *it;
  if (list.is_string()) {
    const std::string text = list.get<std::string>();
    if (text.empty()) return {};
    list = TooDeep(text) ? Json() : Json::parse(text, nullptr, /*allow_exceptions=*/false);
  }
  const bool ok = list.is_array() && std::all_of(list.begin(), list.end(),
                                                 [](const Json& tool) { return tool.is_object(); });
  if (!ok) return BadField("\"tools\" is not a list of objects; write JSON schemas of functions");
  if (!list.empty()) *tools = std::move(list);
  return {};
}

// --- messages

RowProblem CheckContent(const Json& message, const std::string& where, bool required) {
  const auto it = message.find("content");
  if (it == message.end() || it->is_null()) {
    if (!required) return {};
    return BadField(absl::StrCat(where, " has no \"content\"; write one, or drop the message"));
  }
  if (it->is_string()) return {};
  if (!it->is_array()) {
    return BadField(
        absl::StrCat(where, " has a \"content\" that is neither a string nor a list of parts"));
  }
  if (it->empty()) {
    if (!required) return {};
    return BadField(absl::StrCat(where, " has an empty list as its \"content\"; write a text"));
  }
  for (const Json& part : *it) {
    const bool text = part.is_object() && part.value("type", Json("text")) == "text" &&
                      part.contains("text") && part["text"].is_string();
    if (!text) {
      return BadField(absl::StrCat(where,
                                   " has a part of its content that is not text; only {\"type\": "
                                   "\"text\", \"text\": …} can be trained on"));
    }
  }
  return {};
}

RowProblem ReadWeight(Json* message, const std::string& where, uint8_t* weight) {
  *weight = 1;
  const auto it = message->find("weight");
  if (it == message->end()) return {};
  const bool valid = it->is_number() && (*it == 0 || *it == 1);
  if (!it->is_null()) {
    if (!valid) return BadField(absl::StrCat(where, " has a \"weight\" that is neither 0 nor 1"));
    if (message->value("role", "") != "assistant") {
      return BadField(
          absl::StrCat(where, " has a \"weight\", which only assistant messages have; remove it"));
    }
    *weight = *it == 0 ? 0 : 1;
  }
  message->erase("weight");
  return {};
}

RowProblem AppendMessages(const Json& list, const char* key, RowExample* example) {
  static constexpr std::string_view kRoles[] = {"system",    "developer", "user",
                                                "assistant", "tool",      "function"};
  if (!list.is_array()) return BadField(absl::StrCat("\"", key, "\" is not a list of messages"));
  if (list.empty())
    return Problem(RowError::kEmpty, absl::StrCat("\"", key, "\" is empty; drop the row"));
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = absl::StrCat(key, "[", i, "]");
    if (!list[i].is_object())
      return BadField(absl::StrCat(where, " is not an object with role and content"));
    Json message = list[i];
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string()) {
      return BadField(
          absl::StrCat(where, " has no \"role\"; write user, assistant, system or tool"));
    }
    const std::string name = role->get<std::string>();
    if (std::find(std::begin(kRoles), std::end(kRoles), name) == std::end(kRoles)) {
      return Problem(RowError::kUnknownRole,
                     absl::StrCat("unknown role ", Quoted(name), " in ", where,
                                  "; use user, assistant, system, developer or tool"));
    }
    const bool calls = message.contains("tool_calls") || message.contains("function_call");
    if (RowProblem p = CheckContent(message, where, !(name == "assistant" && calls)); !p.ok())
      return p;
    if (const auto content = message.find("content");
        content != message.end() && content->is_array() && content->empty()) {
      message.erase(content);  // beside calls of tools: as if it weren't there
    }
    uint8_t weight = 1;
    if (RowProblem p = ReadWeight(&message, where, &weight); !p.ok()) return p;
    example->messages.push_back(std::move(message));
    example->trained_turns.push_back(weight);
  }
  return {};
}

RowProblem ReadVariables(const Json& row, RowExample* example) {
  const auto it = row.find("chat_template_kwargs");
  if (it == row.end() || it->is_null()) return {};
  if (!it->is_object()) return BadField("\"chat_template_kwargs\" is not an object");
  example->variables = *it;
  return {};
}

RowProblem ParseMessages(const Json& row, RowExample* example) {
  example->chat = true;
  if (RowProblem p = ReadTools(row, &example->tools); !p.ok()) return p;
  if (RowProblem p = ReadVariables(row, example); !p.ok()) return p;
  return AppendMessages(row["messages"], "messages", example);
}

RowProblem ParsePair(const Json& row, RowExample* example) {
  const Json& prompt = row["prompt"];
  const Json& completion = row["completion"];
  if (prompt.is_string() && completion.is_string()) {
    example->prompt = prompt.get<std::string>();
    example->completion = completion.get<std::string>();
    if (example->completion.empty()) {
      return Problem(RowError::kEmpty,
                     "\"completion\" is empty, so there is nothing to train on; drop the row");
    }
    return {};
  }
  if (!prompt.is_array() || !completion.is_array()) {
    return BadField("\"prompt\" and \"completion\" must be two strings or two lists of messages");
  }
  example->chat = true;
  if (RowProblem p = ReadTools(row, &example->tools); !p.ok()) return p;
  if (RowProblem p = ReadVariables(row, example); !p.ok()) return p;
  if (RowProblem p = AppendMessages(prompt, "prompt", example); !p.ok()) return p;
  example->prompt_messages = example->messages.size();
  return AppendMessages(completion, "completion", example);
}

RowProblem ParseText(const Json& row, RowExample* example) {
  if (RowProblem p = ReadString(row, "text", &example->completion); !p.ok()) return p;
  if (example->completion.empty())
    return Problem(RowError::kEmpty, "\"text\" is empty; drop the row");
  return {};
}

// The prompt that the Alpaca data set was made for, for bases without a template.
std::string AlpacaPrompt(const std::string& instruction, const std::string& input) {
  if (input.empty()) {
    return absl::StrCat(
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes "
        "the request.\n\n### Instruction:\n",
        instruction, "\n\n### Response:\n");
  }
  return absl::StrCat(
      "Below is an instruction that describes a task, paired with an input that provides further "
      "context. Write a response that appropriately completes the request.\n\n### Instruction:\n",
      instruction, "\n\n### Input:\n", input, "\n\n### Response:\n");
}

void AddTurn(const char* role, std::string content, RowExample* example) {
  example->messages.push_back({{"role", role}, {"content", std::move(content)}});
  example->trained_turns.push_back(1);
}

RowProblem ParseAlpaca(const Json& row, bool chat_template, RowExample* example) {
  std::string instruction, input, output, system;
  for (const auto& [key, out] : {std::pair{"instruction", &instruction},
                                 {"input", &input},
                                 {"output", &output},
                                 {"system", &system}}) {
    if (RowProblem p = ReadString(row, key, out); !p.ok()) return p;
  }
  if (instruction.empty())
    return Problem(RowError::kEmpty, "\"instruction\" is empty; drop the row");
  if (output.empty()) {
    return Problem(RowError::kEmpty,
                   "\"output\" is empty, so there is nothing to train on; drop the row");
  }
  if (!chat_template) {
    example->prompt = AlpacaPrompt(instruction, input);
    if (!system.empty()) example->prompt.insert(0, system + "\n\n");
    example->completion = std::move(output);
    return {};
  }
  example->chat = true;
  if (!system.empty()) AddTurn("system", std::move(system), example);
  AddTurn("user", input.empty() ? instruction : absl::StrCat(instruction, "\n\n", input), example);
  AddTurn("assistant", std::move(output), example);
  return {};
}

RowProblem ParseShareGpt(const Json& row, RowExample* example) {
  static constexpr std::pair<std::string_view, const char*> kRoles[] = {
      {"human", "user"},          {"user", "user"},         {"gpt", "assistant"},
      {"assistant", "assistant"}, {"chatgpt", "assistant"}, {"model", "assistant"},
      {"bard", "assistant"},      {"bing", "assistant"},    {"system", "system"},
      {"tool", "tool"},           {"observation", "tool"},  {"function_response", "tool"}};
  example->chat = true;
  if (RowProblem p = ReadTools(row, &example->tools); !p.ok()) return p;
  std::string system;
  if (RowProblem p = ReadString(row, "system", &system); !p.ok()) return p;
  if (!system.empty()) AddTurn("system", std::move(system), example);
  const Json& turns = row["conversations"];
  if (!turns.is_array()) return BadField("\"conversations\" is not a list of turns");
  if (turns.empty()) return Problem(RowError::kEmpty, "\"conversations\" is empty; drop the row");
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string where = absl::StrCat("conversations[", i, "]");
    const Json& turn = turns[i];
    if (!turn.is_object() || !turn.contains("from") || !turn["from"].is_string() ||
        !turn.contains("value") || !turn["value"].is_string()) {
      return BadField(absl::StrCat(where, " needs \"from\" and \"value\", both strings"));
    }
    const std::string from = turn["from"].get<std::string>();
    const auto* role = std::find_if(std::begin(kRoles), std::end(kRoles),
                                    [&](const auto& r) { return r.first == from; });
    if (role == std::end(kRoles)) {
      return Problem(RowError::kUnknownRole,
                     absl::StrCat("unknown role ", Quoted(from), " in ", where,
                                  "; use human, gpt, system or tool"));
    }
    Json message = {{"role", role->second}, {"content", turn["value"]}};
    if (turn.contains("weight")) message["weight"] = turn["weight"];
    uint8_t weight = 1;
    if (RowProblem p = ReadWeight(&message, where, &weight); !p.ok()) return p;
    example->messages.push_back(std::move(message));
    example->trained_turns.push_back(weight);
  }
  return {};
}

}  // namespace

DatasetFormat RecognizeFormat(const Json& row) {
  if (HasAll(row, {"chosen"}) || HasAll(row, {"rejected"}) || HasAll(row, {"preferred_output"}) ||
      HasAll(row, {"non_preferred_output"})) {
    return DatasetFormat::kPreference;
  }
  if (HasAll(row, {"messages"})) return DatasetFormat::kMessages;
  if (HasAll(row, {"prompt", "completion"})) return DatasetFormat::kPromptCompletion;
  if (HasAll(row, {"instruction", "output"})) return DatasetFormat::kAlpaca;
  if (HasAll(row, {"conversations"})) return DatasetFormat::kShareGpt;
  if (HasAll(row, {"text"})) return DatasetFormat::kText;
  return DatasetFormat::kUnknown;
}

RowProblem ParseRow(std::string_view line, DatasetFormat expected, bool chat_template,
                    RowExample* example) {
  Json row;
  if (RowProblem p = ParseJson(line, &row); !p.ok()) return p;
  example->format = RecognizeFormat(row);
  if (example->format == DatasetFormat::kUnknown) {
    return Problem(
        RowError::kUnknownKeys,
        absl::StrCat("the keys (", KeysOf(row),
                     ") are of no known format; use messages, or prompt and "
                     "completion, or text, or instruction and output, or conversations"));
  }
  if (expected != DatasetFormat::kUnknown && example->format != expected) {
    return Problem(
        RowError::kFormatMix,
        absl::StrCat("a row of the format ", std::string(DatasetFormatName(example->format)),
                     " in a file of the format ", std::string(DatasetFormatName(expected)),
                     "; keep one format a file"));
  }
  if (example->format == DatasetFormat::kPreference) {
    return Problem(
        RowError::kPreference,
        "a preference row (chosen and rejected), which this kind of job does not support yet; "
        "train on messages or prompt and completion");
  }
  if (RowProblem p = CheckKeys(row, example->format); !p.ok()) return p;
  switch (example->format) {
    case DatasetFormat::kMessages:
      return ParseMessages(row, example);
    case DatasetFormat::kPromptCompletion:
      return ParsePair(row, example);
    case DatasetFormat::kText:
      return ParseText(row, example);
    case DatasetFormat::kAlpaca:
      return ParseAlpaca(row, chat_template, example);
    case DatasetFormat::kShareGpt:
      return ParseShareGpt(row, example);
    case DatasetFormat::kUnknown:
    case DatasetFormat::kPreference:
      break;
  }
  return {};
}

}  // namespace tundra
