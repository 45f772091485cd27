// A base's tokenizer.json, and a text that goes through it and back.
#include "common/text/tokenizer.h"

#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  const auto parts = fuzz::Parts(fuzz::View(data, size), 2);
  const auto tokenizer = Tokenizer::FromJson(parts[0], "tokenizer.json");
  if (!tokenizer.ok()) return 0;
  const auto encoding = (*tokenizer)->EncodeWithOffsets(parts[1], /*add_special_tokens=*/true);
  if (!encoding.ok()) return 0;
  EXPECT_FUZZ(encoding->ids.size() == encoding->offsets.size());
  for (size_t i = 0; i < encoding->ids.size(); ++i) {
    const auto [begin, end] = encoding->offsets[i];
    EXPECT_FUZZ(begin <= end && end <= parts[1].size());
    EXPECT_FUZZ(encoding->ids[i] >= 0 && encoding->ids[i] < (*tokenizer)->vocab_size());
  }
  const auto plain = (*tokenizer)->Encode(parts[1], /*add_special_tokens=*/true);
  EXPECT_FUZZ(plain.ok() && *plain == encoding->ids);
  (void)(*tokenizer)->Decode(encoding->ids, /*skip_special_tokens=*/true);
  StreamDecoder stream(**tokenizer, /*skip_special_tokens=*/false);
  for (const int32_t id : encoding->ids) (void)stream.Put(id);
  (void)stream.Finish();
  return 0;
}
