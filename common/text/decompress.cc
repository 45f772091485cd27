#include "common/text/decompress.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <climits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra {
namespace {

constexpr size_t kPieceBytes = 256 << 10;

// Real JSONL shrinks to a tenth or so. Data that grows far more is made to fill
// whatever reads it.
constexpr uint64_t kMaxRatio = 1000;
constexpr uint64_t kFreeBytes = uint64_t{1} << 30;  // at any ratio

// Counts what was given out, and ends the stream at the bound.
class Output {
 public:
  Output(absl::FunctionRef<bool(std::string_view)> on_piece, uint64_t max_bytes, bool by_ratio)
      : on_piece_(on_piece), left_(max_bytes), max_bytes_(max_bytes), by_ratio_(by_ratio) {}

  absl::Status Give(std::string_view piece) {
    if (piece.size() > left_ && by_ratio_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("it grows to over 1 GiB and ", kMaxRatio,
                       "-fold when decompressed; upload it uncompressed"));
    }
    if (piece.size() > left_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("more than ", max_bytes_, " bytes when decompressed; split the file"));
    }
    left_ -= piece.size();
    if (!piece.empty() && !on_piece_(piece)) stopped_ = true;
    return absl::OkStatus();
  }
  bool stopped() const { return stopped_; }

 private:
  absl::FunctionRef<bool(std::string_view)> on_piece_;
  uint64_t left_;
  const uint64_t max_bytes_;
  const bool by_ratio_;
  bool stopped_ = false;
};

absl::Status Damaged(std::string_view kind, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("the ", std::string(kind), " data is damaged: ",
                                                 std::string(why), "; compress the file anew"));
}

absl::Status Gunzip(std::string_view bytes, Output* output) {
  z_stream stream{};
  // 15 bits of window, +16: gzip headers only.
  if (inflateInit2(&stream, 15 + 16) != Z_OK)
    return absl::ResourceExhaustedError("zlib: no memory");
  const std::unique_ptr<z_stream, int (*)(z_streamp)> closer(&stream, inflateEnd);
  std::string piece(kPieceBytes, '\0');
  bool ended = false;
  while (!output->stopped()) {
    if (stream.avail_in == 0 && !bytes.empty()) {
      const size_t count = std::min<size_t>(bytes.size(), UINT_MAX / 2);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
      stream.avail_in = static_cast<uInt>(count);
      bytes.remove_prefix(count);
    }
    if (ended) {
      if (stream.avail_in == 0) return absl::OkStatus();
      if (inflateReset(&stream) != Z_OK) return Damaged("gzip", "bad member");
      ended = false;
    }
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    const int code = inflate(&stream, Z_NO_FLUSH);
    RETURN_IF_ERROR(
        output->Give(std::string_view(piece).substr(0, piece.size() - stream.avail_out)));
    if (code == Z_STREAM_END) {
      ended = true;
    } else if (code == Z_BUF_ERROR ||
               (code == Z_OK && stream.avail_in == 0 && bytes.empty() && stream.avail_out > 0)) {
      return Damaged("gzip", "it ends too early");
    } else if (code != Z_OK) {
      return Damaged("gzip", stream.msg != nullptr ? stream.msg : "bad data");
    }
  }
  return absl::OkStatus();
}

absl::Status Unzstd(std::string_view bytes, Output* output) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  if (context == nullptr) return absl::ResourceExhaustedError("zstd: no memory");
  std::string piece(kPieceBytes, '\0');
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  size_t wanted = 1;  // 0: a frame ended
  while (!output->stopped()) {
    ZSTD_outBuffer out{piece.data(), piece.size(), 0};
    const size_t before = in.pos;
    wanted = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(wanted)) return Damaged("zstd", ZSTD_getErrorName(wanted));
    RETURN_IF_ERROR(output->Give(std::string_view(piece).substr(0, out.pos)));
    // A frame may end just where a piece is full: then nothing is left to ask for.
    if (in.pos == in.size && (wanted == 0 || out.pos < out.size)) {
      return wanted == 0 ? absl::OkStatus() : Damaged("zstd", "it ends too early");
    }
    if (in.pos == before && out.pos == 0 && wanted != 0) return Damaged("zstd", "no progress");
  }
  return absl::OkStatus();
}

}  // namespace

Compression DetectCompression(std::string_view bytes) {
  if (bytes.starts_with("\x1f\x8b")) return Compression::kGzip;
  if (bytes.starts_with("\x28\xb5\x2f\xfd")) return Compression::kZstd;
  return Compression::kNone;
}

absl::Status Decompress(std::string_view bytes, absl::FunctionRef<bool(std::string_view)> on_piece,
                        uint64_t max_bytes) {
  const bool packed = DetectCompression(bytes) != Compression::kNone;
  const uint64_t by_ratio = std::max<uint64_t>(kFreeBytes, kMaxRatio * bytes.size());
  const bool tighter = packed && by_ratio < max_bytes;
  Output output(on_piece, tighter ? by_ratio : max_bytes, tighter);
  switch (DetectCompression(bytes)) {
    case Compression::kGzip:
      return Gunzip(bytes, &output);
    case Compression::kZstd:
      return Unzstd(bytes, &output);
    case Compression::kNone:
      break;
  }
  for (size_t at = 0; at < bytes.size() && !output.stopped(); at += kPieceBytes) {
    RETURN_IF_ERROR(output.Give(bytes.substr(at, kPieceBytes)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DecompressAll(std::string_view bytes, uint64_t max_bytes) {
  std::string all;
  RETURN_IF_ERROR(Decompress(
      bytes,
      [&](std::string_view piece) {
        all += piece;
        return true;
      },
      max_bytes));
  return all;
}

}  // namespace tundra
