// The small files of a base that say what its texts look like, as a worker uploads them to the
// coordinator.
#include "common/text/base_text.h"

#include "common/text/tokenizer.h"
#include "tests/fuzz/target.h"

namespace {

// The one file that has a target of its own.
constexpr char kTokenizer[] = R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"<s>":2,"</s>":3},
  "merges":[]},"added_tokens":[{"id":2,"content":"<s>","special":true},
  {"id":3,"content":"</s>","special":true}]})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  const auto parts = fuzz::Parts(fuzz::View(data, size), 6);
  constexpr const char* kNames[] = {"tokenizer_config.json",  "special_tokens_map.json",
                                    "generation_config.json", "config.json",
                                    "chat_template.json",     "chat_template.jinja"};
  std::map<std::string, std::string> files = {{"tokenizer.json", kTokenizer}};
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].empty()) files[kNames[i]] = parts[i];
  }
  const auto base = BaseText::FromFiles(files, "base");
  if (!base.ok()) return 0;
  (void)(*base)->EncodeDocument("ab");
  (void)(*base)->NewChat();
  return 0;
}
