#include "common/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "common/status_test_util.h"

namespace tundra {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::StartsWith;
using testing::StatusIs;

absl::StatusOr<RenderedChat> Render(const std::string& source, const ChatInput& input = ChatInput(),
                                    const RenderLimits& limits = RenderLimits()) {
  auto parsed = ChatTemplate::Parse(source, "base/chat_template");
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(input, limits);
}

std::string Text(const std::string& source, const ChatInput& input = ChatInput()) {
  const auto rendered = Render(source, input);
  EXPECT_THAT(rendered, IsOk()) << source;
  return rendered.ok() ? rendered->text : "";
}

TEST(ChatTemplate, NamesTheTemplateAndTheLineOfAnError) {
  EXPECT_THAT(Render("a\n{% if %}"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       StartsWith("base/chat_template:2: Expected an expression")));
  EXPECT_THAT(
      Render("\n\n{{ missing.name }}"),
      StatusIs(absl::StatusCode::kInvalidArgument, "base/chat_template:3: 'missing' is undefined"));
  EXPECT_THAT(
      Render("{% if true %}\n{{ raise_exception('roles must alternate') }}{% endif %}"),
      StatusIs(absl::StatusCode::kInvalidArgument, "base/chat_template:2: roles must alternate"));
  EXPECT_THAT(Render("{{ 'open }}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(":1: ")));
  EXPECT_THAT(Render("{% for x in y %}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("endfor")));
  EXPECT_THAT(Render("{{ x|nonesuch }}"), StatusIs(absl::StatusCode::kInvalidArgument,
                                                   HasSubstr("No filter named 'nonesuch'")));
  EXPECT_THAT(Render("{% break %}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("outside loop")));
  EXPECT_THAT(Render("\xff"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
}

TEST(ChatTemplate, EndsHostileTemplatesWithAnError) {
  const std::vector<std::string> hostile = {
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(100) %}{% set ns.s = ns.s ~ ns.s "
      "%}{% endfor %}",
      "{{ 'x' * 99999999999 }}",
      "{{ ('x' * 1000000) * 1000000000000 }}",
      "{{ [0] * 99999999999 }}",
      "{{ 'x'.center(9999999999) }}",
      "{{ 'x'|indent(9999999999) }}",
      "{{ '%99999999999d' % 1 }}",
      "{{ '{:99999999999}'.format(1) }}",
      "{{ range(1000000) }}",
      "{{ 9223372036854775807 * 2 }}",
      "{{ 10 ** 1000 }}",
      // A list that holds itself twice, again and again: 2^60 elements to print.
      "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% "
      "endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1], m=[1]) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
      "{% set ns = namespace(l=[]) %}{% for a in range(100000) %}{% set ns.l = [ns.l] %}{% endfor "
      "%}",
      "{% set ns = namespace(t=()) %}{% for a in range(100000) %}{% set ns.t = cycler(ns.t) %}{% "
      "endfor %}",
      "{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ " + std::string(100000, '(') + "1" + std::string(100000, ')') + " }}",
      "{{ " + std::string(100000, '[') + " }}",
      "{{ 1" + std::string(200000, '+') + "1 }}",
      "{{ a" +
          [] {
            std::string chain;
            for (int i = 0; i < 100000; ++i) chain += "+a";
            return chain;
          }() +
          " }}",
      [] {
        std::string nested;
        for (int i = 0; i < 100000; ++i) nested += "{% if true %}";
        return nested;
      }(),
  };
  RenderLimits limits;
  limits.max_steps = 500'000;
  limits.max_work_bytes = 64 << 20;
  for (const std::string& source : hostile) {
    const auto rendered = Render(source, ChatInput(), limits);
    EXPECT_FALSE(rendered.ok()) << source.substr(0, 200);
  }
}

TEST(ChatTemplate, SearchesLongTextsInLinearTime) {
  // Each would compare 10^12 bytes with a search that starts over at every place.
  const std::string texts = "{% set n = 'a' * 1000000 %}{% set m = 'a' * 500000 %}";
  for (const std::string search :
       {"(m ~ 'b') in n", "n.count(m ~ 'b')", "n.find(m ~ 'b')", "n.replace(m ~ 'b', '')|length",
        "n.split(m ~ 'b')|length", "n.partition(m ~ 'b')[1]|length"}) {
    EXPECT_THAT(Render(texts + "{{ " + search + " }}"), IsOk()) << search;
  }
  // From the right there is no such search: long ones are refused.
  for (const std::string search :
       {"n.rfind('b' ~ m)", "n.rsplit('b' ~ m)|length", "n.rpartition('b' ~ m)[1]|length",
        "n.strip('bcdefghij' * 100000 ~ 'a')|length"}) {
    EXPECT_THAT(Render(texts + "{{ " + search + " }}"),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("work limit")))
        << search;
  }
  EXPECT_EQ(Text("{{ 'ahoy ahoy'.rfind('ahoy') }} {{ 'ab'.rfind('') }} {{ 'ab'.rfind('abc') }} "
                 "{{ ('x' * 10000 ~ 'y' ~ 'x' * 10000).rfind('yx') }}"),
            "5 2 -1 10000");
  EXPECT_EQ(Text("{{ '&lt;b&gt; &amp;lt; <i>x</i>'|striptags }}"), "<b> &lt; x");
}

TEST(ChatTemplate, OneAllowanceServesManyRenderings) {
  const auto parsed = ChatTemplate::Parse("{% for a in range(100) %}x{% endfor %}", "t");
  ASSERT_THAT(parsed, IsOk());
  uint64_t steps = 1'000;
  EXPECT_THAT(parsed->Render(ChatInput(), RenderLimits(), &steps), IsOk());
  EXPECT_LT(steps, 900u);
  int more = 0;
  while (parsed->Render(ChatInput(), RenderLimits(), &steps).ok()) ASSERT_LT(++more, 10);
  EXPECT_EQ(steps, 0u);
}

TEST(ChatTemplate, LimitsAreResourceExhausted) {
  RenderLimits limits;
  limits.max_steps = 1000;
  EXPECT_THAT(Render("{% for a in range(2000) %}{% endfor %}", ChatInput(), limits),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("steps")));
  limits = RenderLimits();
  limits.max_output_bytes = 100;
  EXPECT_THAT(Render("{% for a in range(60) %}xy{% endfor %}", ChatInput(), limits),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("output")));
}

TEST(ChatTemplate, ShowsTemplatesNothingButData) {
  for (const char* source :
       {"{{ ''.__class__.mro() }}", "{{ messages.__class__.x }}", "{{ messages.append(1) }}",
        "{{ {}.update({}) }}", "{{ {'a': 1}.pop('a') }}", "{% set messages.x = 1 %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "{% include 'x' %}",
        "{{ ''['__class__']() }}", "{{ '{0.__class__.x}'.format('') }}"}) {
    EXPECT_FALSE(Render(source).ok()) << source;
  }
  EXPECT_EQ(Text("{{ messages.__class__ is defined }}"), "False");
}

TEST(ChatTemplate, FormatsTheGivenTime) {
  ChatInput input;
  input.now = absl::FromCivil(absl::CivilSecond(2024, 7, 4, 5, 6, 7), absl::UTCTimeZone());
  input.zone = absl::UTCTimeZone();
  EXPECT_EQ(Text("{{ strftime_now('%d %b %Y %H:%M:%S %A %j %%') }}", input),
            "04 Jul 2024 05:06:07 Thursday 186 %");
}

TEST(ChatTemplate, RefusesInputsThatAreNoConversation) {
  ChatInput input;
  input.messages = "text";
  EXPECT_FALSE(Render("x", input).ok());
  input.messages = nlohmann::ordered_json::array({1});
  EXPECT_FALSE(Render("x", input).ok());
  input.messages = nlohmann::ordered_json::array();
  input.tools = nlohmann::ordered_json::object();
  EXPECT_FALSE(Render("x", input).ok());
  input.tools = nullptr;
  nlohmann::ordered_json deep = 1;
  for (int i = 0; i < 150; ++i) deep = nlohmann::ordered_json::array({deep});
  input.variables["deep"] = deep;
  EXPECT_FALSE(Render("x", input).ok());
}

TEST(ChatTemplate, RendersTheSameFromManyThreads) {
  auto parsed = ChatTemplate::Parse(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}:{{ "
      "m.content|upper }};"
      "{% endfor %}",
      "t");
  TUNDRA_ASSERT_OK(parsed);
  ChatInput input;
  std::string expected;
  for (int i = 1; i <= 50; ++i) {
    input.messages.push_back({{"role", "user"}, {"content", "hé" + std::to_string(i)}});
    expected += std::to_string(i) + ":HÉ" + std::to_string(i) + ";";
  }
  std::vector<std::thread> threads;
  std::vector<int> equal(4, 0);
  for (size_t t = 0; t < equal.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const auto rendered = parsed->Render(input);
        if (rendered.ok() && rendered->text == expected) ++equal[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(equal, ::testing::Each(20));
}

}  // namespace
}  // namespace tundra
