#include "client/adapter_upload.h"

#include "common/files.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra::client {

absl::StatusOr<std::string> UploadAdapter(const Service& service, const std::string& dir) {
  constexpr size_t kChunkBytes = 256 << 10;
  grpc::ClientContext context;
  tundra::v1::UploadAdapterResponse response;
  auto stub = service.generate();
  auto writer = stub->UploadAdapter(&context, &response);
  for (const char* filename : {"adapter_config.json", "adapter_model.safetensors"}) {
    const auto file = MappedFile::Open(absl::StrCat(dir, "/", filename));
    if (!file.ok()) {
      context.TryCancel();
      return Annotate(file.status(),
                      "an adapter folder holds adapter_config.json and "
                      "adapter_model.safetensors");
    }
    const std::string_view bytes = file->bytes();
    tundra::v1::UploadAdapterRequest request;
    request.mutable_metadata()->set_filename(filename);
    request.mutable_metadata()->set_size_bytes(static_cast<int64_t>(bytes.size()));
    request.mutable_metadata()->set_sha256(Sha256Hex(bytes));
    bool open = writer->Write(request);
    for (size_t at = 0; open && at < bytes.size(); at += kChunkBytes) {
      const std::string_view chunk = bytes.substr(at, kChunkBytes);
      request.set_chunk(chunk.data(), chunk.size());
      open = writer->Write(request);
    }
    if (!open) break;
  }
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  if (!status.ok()) return service.Explain(status);
  return response.name();
}

}  // namespace tundra::client
