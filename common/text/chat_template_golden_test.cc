// What Transformers renders and refuses, byte for byte: the goldens of
// tests/parity/golden/templates.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/status_test_util.h"
#include "common/text/chat_template.h"
#include "common/text/decompress.h"

namespace tundra {
namespace {

using Json = nlohmann::ordered_json;

// TUNDRA_GOLDEN_DIR names another folder, such as the one that
// tests/parity/make_live_goldens.py makes of real models' templates.
bool IsLive() { return std::getenv("TUNDRA_GOLDEN_DIR") != nullptr; }

std::string GoldenDir() {
  if (IsLive()) return std::string(std::getenv("TUNDRA_GOLDEN_DIR")) + "/templates";
  const char* source = std::getenv("TUNDRA_SOURCE_DIR");
  return std::string(source == nullptr ? "." : source) + "/tests/parity/golden/templates";
}

Json ReadGolden(const std::string& path) {
  auto bytes = ReadFile(path);
  EXPECT_THAT(bytes, testing::IsOk());
  auto text = DecompressAll(bytes.value_or(""), 1 << 30);
  EXPECT_THAT(text, testing::IsOk());
  return Json::parse(text.value_or("null"));
}

absl::Time ParseNow(const std::string& iso) {
  absl::Time now;
  std::string error;
  EXPECT_TRUE(absl::ParseTime("%Y-%m-%dT%H:%M:%S", iso, absl::UTCTimeZone(), &now, &error))
      << error;
  return now;
}

// The input of a golden request; keys without a place of their own are variables.
ChatInput ToInput(const Json& request, absl::Time now) {
  ChatInput input;
  input.now = now;
  input.zone = absl::UTCTimeZone();
  for (const auto& [key, value] : request.items()) {
    if (key == "messages") {
      input.messages = value;
    } else if (key == "tools") {
      input.tools = value;
    } else if (key == "documents") {
      input.documents = value;
    } else if (key == "add_generation_prompt" && value.is_boolean()) {
      input.add_generation_prompt = value.get<bool>();
    } else {
      input.variables[key] = value;
    }
  }
  return input;
}

// Renders, with a template that does not compile as one more refusal.
absl::StatusOr<RenderedChat> Render(const std::string& source, const ChatInput& input) {
  auto parsed = ChatTemplate::Parse(source, "chat_template");
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(input);
}

// "" when `got` is the outcome that `expected` tells of.
std::string Compare(const absl::StatusOr<RenderedChat>& got, const Json& expected) {
  if (expected.contains("rendered")) {
    if (!got.ok()) return "refused: " + std::string(got.status().message());
    if (got->text == expected["rendered"].get<std::string>()) return "";
    return "rendered " + Json(got->text).dump() + "\n   expected " + expected["rendered"].dump();
  }
  const Json& error = expected["error"];
  if (got.ok())
    return "rendered " + Json(got->text).dump() + "\n   expected the error " + error.dump();
  const std::string message(got.status().message());
  if (error["kind"] == "raise_exception" &&
      !message.ends_with(": " + error["message"].get<std::string>())) {
    return "message " + message + "\n   expected " + error["message"].dump();
  }
  return "";
}

size_t CodePoints(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

TEST(ChatTemplateGolden, RendersEveryConversationAsTransformers) {
  size_t cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenDir())) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".json.gz") || name == "snippets.json.gz") continue;
    const Json golden = ReadGolden(entry.path().string());
    for (const Json& expected : golden["cases"]) {
      ++cases;
      ChatInput input = ToInput(expected["request"], ParseNow(golden["now"]));
      for (const auto& [key, value] : golden["variables"].items()) {
        input.special_tokens[key] = value.get<std::string>();
      }
      const auto got = expected["request"]["messages"].empty()
                           ? absl::StatusOr<RenderedChat>(absl::InvalidArgumentError("empty"))
                           : Render(golden["template"], input);
      EXPECT_EQ(Compare(got, expected), "") << name << " " << expected["request"].dump();
      if (!got.ok() || !expected.contains("spans")) continue;
      Json spans = Json::array();
      for (const auto& [begin, end] : got->generation_spans) {
        const std::string_view text = got->text;
        spans.push_back({CodePoints(text.substr(0, begin)), CodePoints(text.substr(0, end))});
      }
      EXPECT_EQ(spans, expected["spans"]) << name << " " << expected["request"].dump();
    }
  }
  std::cout << cases << " conversations compared\n";
  EXPECT_GE(cases, IsLive() ? 1u : 500u);
}

TEST(ChatTemplateGolden, RendersEverySnippetAsTransformers) {
  if (IsLive() && !FileExists(GoldenDir() + "/snippets.json.gz")) {
    GTEST_SKIP() << "the folder of TUNDRA_GOLDEN_DIR has no snippets";
  }
  const Json golden = ReadGolden(GoldenDir() + "/snippets.json.gz");
  size_t different_rare = 0;
  for (const Json& expected : golden["cases"]) {
    ChatInput input = ToInput(golden["context"], ParseNow(golden["now"]));
    input.drop_null_keys = false;
    const std::string subject = expected["subject"];
    const std::string difference = Compare(Render(expected["template"], input), expected);
    if (subject.starts_with("rare")) {
      // Used by no known template; told, not required.
      if (!difference.empty()) {
        ++different_rare;
        std::cout << subject << ": " << expected["template"].dump() << "\n   " << difference
                  << "\n";
      }
      continue;
    }
    EXPECT_EQ(difference, "") << subject << ": " << expected["template"].dump();
  }
  std::cout << golden["cases"].size() << " snippets compared, " << different_rare
            << " rare ones differ\n";
  EXPECT_LE(different_rare, 10u);
}

}  // namespace
}  // namespace tundra
