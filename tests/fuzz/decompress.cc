// A data set as it was uploaded: gzip, zstd or plain, decompressed and cut into lines.
#include "common/text/decompress.h"

#include "common/text/dataset.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  constexpr uint64_t kMostBytes = 1 << 20;
  const std::string_view bytes = fuzz::View(data, size);
  const auto all = DecompressAll(bytes, kMostBytes);
  if (all.ok()) EXPECT_FUZZ(all->size() <= kMostBytes);
  uint64_t number = 0;
  const absl::Status lines = ForEachLine(
      bytes,
      [&](const DatasetLine& line) {
        EXPECT_FUZZ(line.number > number);
        EXPECT_FUZZ(line.text.find('\n') == std::string_view::npos);
        number = line.number;
        return true;
      },
      kMostBytes);
  EXPECT_FUZZ(lines.ok() == all.ok());
  return 0;
}
