// Global functions.
#include <cstring>
#include <ctime>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/interpreter.h"

namespace tundra::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;  // Jinja's sandbox has the same bound

Value Range(Interpreter&, Arguments& arguments) {
  const Bound bound("range", arguments, {"start", "stop", "step"}, 1);
  if (!arguments.keyword.empty()) Fail("range() takes no keyword arguments");
  const int64_t first = bound.Int(0, 0);
  const int64_t start = bound.has(1) ? first : 0;
  const int64_t stop = bound.has(1) ? bound.Int(1, 0) : first;
  const int64_t step = bound.Int(2, 1);
  if (step == 0) Fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (__int128 i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (static_cast<int64_t>(items.size()) == kMaxRange) {
      Fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    }
    items.push_back(Value::Int(static_cast<int64_t>(i)));
  }
  return Value::Range(start, stop, step, std::move(items));
}

std::shared_ptr<DictObject> MakeDict(std::string_view function, Arguments& arguments) {
  auto dict = std::make_shared<DictObject>();
  if (arguments.positional.size() > 1) Fail(Cat(function, " expected at most 1 argument"));
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is(Kind::kDict)) {
      for (const auto& [key, value] : from.dict().items) dict->Set(key, value);
    } else {
      for (const Value& pair : Iterate(from)) {
        const std::vector<Value> two = Iterate(pair);
        if (two.size() != 2) Fail("dictionary update sequence element has not length 2");
        dict->Set(two[0], two[1]);
      }
    }
  }
  for (const auto& [key, value] : arguments.keyword) dict->Set(Value::String(key), value);
  return dict;
}

Value Dict(Interpreter&, Arguments& arguments) { return Value::Dict(MakeDict("dict", arguments)); }

Value Namespace(Interpreter& interpreter, Arguments& arguments) {
  auto attributes = MakeDict("namespace", arguments);
  for (const auto& [key, value] : attributes->items) {
    if (key.is_string() && key.text().starts_with("_")) {
      Fail(
          Cat("Chat templates cannot store underscore-prefixed attributes on a namespace, but got ",
              ReprString(key.text()), ". Please rename the attribute."));
    }
  }
  return interpreter.NewNamespace(std::move(attributes));
}

Value Cycler(Interpreter&, Arguments& arguments) {
  if (!arguments.keyword.empty()) Fail("cycler() takes no keyword arguments");
  if (arguments.positional.empty()) Fail("at least one item has to be provided");
  auto cycler = std::make_shared<CyclerObject>();
  cycler->items = arguments.positional;
  cycler->depth = DepthAbove(cycler->items);
  return Value::Of(Kind::kCycler, std::move(cycler));
}

Value Joiner(Interpreter&, Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  auto joiner = std::make_shared<JoinerObject>();
  joiner->separator = bound.get(0, Value::String(", "));
  joiner->depth = DepthAbove({joiner->separator});
  return Value::Of(Kind::kJoiner, std::move(joiner));
}

Value RaiseException(Interpreter&, Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  Fail(ToStr(bound[0]));
}

std::tm ToTm(absl::Time time, absl::TimeZone zone) {
  const absl::TimeZone::CivilInfo info = zone.At(time);
  std::tm tm{};
  tm.tm_year = static_cast<int>(info.cs.year() - 1900);
  tm.tm_mon = info.cs.month() - 1;
  tm.tm_mday = info.cs.day();
  tm.tm_hour = info.cs.hour();
  tm.tm_min = info.cs.minute();
  tm.tm_sec = info.cs.second();
  tm.tm_wday = (static_cast<int>(absl::GetWeekday(info.cs)) + 1) % 7;
  tm.tm_yday = absl::GetYearDay(info.cs) - 1;
  tm.tm_isdst = -1;
  return tm;
}

// datetime.now().strftime(format): the C library's, but %f are microseconds and
// %z and %Z are empty, since the time has no zone.
Value StrftimeNow(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string format = bound.Str(0, "");
  if (format.size() > 1000) Fail("the format of strftime_now is too long");
  std::string prepared;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      prepared += format[i];
      continue;
    }
    const char next = format[++i];
    if (next == 'f') {
      const auto micros = absl::ToInt64Microseconds(
          interpreter.now() - absl::FromUnixSeconds(absl::ToUnixSeconds(interpreter.now())));
      std::string digits = std::to_string(micros);
      prepared += std::string(6 - std::min<size_t>(digits.size(), 6), '0') + digits;
    } else if (next != 'z' && next != 'Z') {
      prepared += '%';
      prepared += next;
    }
  }
  const std::tm tm = ToTm(interpreter.now(), interpreter.zone());
  std::string buffer(prepared.size() * 64 + 64, '\0');
  // A mark at the end tells an empty result from a failure.
  const size_t size = std::strftime(buffer.data(), buffer.size(), (prepared + "|").c_str(), &tm);
  if (size == 0) Fail("strftime_now: bad format");
  return Value::String(buffer.substr(0, size - 1));
}

}  // namespace

const std::map<std::string_view, Function>& Globals() {
  static const auto* const globals =
      new std::map<std::string_view, Function>{{"range", Range},
                                               {"dict", Dict},
                                               {"namespace", Namespace},
                                               {"cycler", Cycler},
                                               {"joiner", Joiner},
                                               {"raise_exception", RaiseException},
                                               {"strftime_now", StrftimeNow}};
  return *globals;
}

}  // namespace tundra::jinja
