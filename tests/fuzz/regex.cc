// A regular expression of a tokenizer.json, and a text to search with it.
#include "common/text/onig_regex.h"
#include "common/text/unicode.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  const auto parts = fuzz::Parts(fuzz::View(data, size), 2);
  (void)TranslateOnigPattern(parts[0]);
  const auto regex = OnigRegex::Compile(parts[0]);
  if (!regex.ok() || ValidUtf8Prefix(parts[1]) != parts[1].size()) return 0;
  size_t last = 0;
  (void)(*regex)->ForEachMatch(parts[1], [&](size_t begin, size_t end) {
    EXPECT_FUZZ(last <= begin && begin <= end && end <= parts[1].size());
    last = end;
  });
  return 0;
}
