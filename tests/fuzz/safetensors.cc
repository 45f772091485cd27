// The header of a safetensors file, as it lies in bases, adapters and checkpoints.
#include "worker/model/safetensors.h"

#include "tests/fuzz/target.h"

namespace {

using namespace tundra;

// What the header of a file that was taken promises, and the same tensors written again.
void CheckTaken(const SafetensorsHeader& header, std::string_view file) {
  uint64_t at = header.data_begin;
  std::vector<TensorToWrite> tensors;
  for (const TensorEntry& tensor : header.tensors) {
    EXPECT_FUZZ(tensor.begin == at && tensor.begin <= tensor.end && tensor.end <= file.size());
    EXPECT_FUZZ(tensor.end - tensor.begin ==
                static_cast<uint64_t>(NumElements(tensor.shape) * StoredSize(tensor.type)));
    at = tensor.end;
    EXPECT_FUZZ(header.Find(tensor.name) != nullptr);
    tensors.push_back({tensor.name, tensor.type, tensor.shape,
                       file.substr(tensor.begin, tensor.end - tensor.begin)});
  }
  EXPECT_FUZZ(at == file.size());
  const std::string again = WriteSafetensors(tensors, header.metadata);
  const auto read = ParseSafetensorsHeader(again, again.size(), "again");
  EXPECT_FUZZ(read.ok() && read->tensors.size() == header.tensors.size() &&
              read->metadata == header.metadata);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file = tundra::fuzz::View(data, size);
  const auto header = ParseSafetensorsHeader(file, size, "file");
  if (header.ok()) CheckTaken(*header, file);
  // The same header, said to be of a file far larger than what there is of it.
  (void)ParseSafetensorsHeader(file, uint64_t{1} << 62, "file");
  return 0;
}
