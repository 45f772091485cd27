#include "coordinator/api/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/status.pb.h"

namespace tundra::coordinator {
namespace {

// At most so many bytes, without half a character at the end: details are UTF-8 or unreadable.
std::string_view Cut(std::string_view text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (text[most] & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";

}  // namespace

void Violations::Add(std::string_view field, std::string_view description) {
  if (list_.size() < kMostKept) {
    list_.emplace_back(field, description);
  } else {
    ++left_out_;
  }
}

absl::Status Violations::ToStatus() const {
  if (list_.empty()) return absl::OkStatus();
  // Errors travel in HTTP headers, of which common clients take 8 KiB in all; details stand
  // there in base64.
  constexpr size_t kMostMessage = 3'000;
  constexpr size_t kMostDetails = 2'500;
  google::rpc::BadRequest bad;
  std::string message;
  size_t told = 0;
  for (const auto& [field, description] : list_) {
    const size_t more = field.size() + description.size() + 16;
    if (told > 0 &&
        (message.size() + more > kMostMessage || bad.ByteSizeLong() + more > kMostDetails))
      break;
    ++told;
    auto* const violation = bad.add_field_violations();
    violation->set_field(std::string(Cut(field, kMostMessage / 2)));
    violation->set_description(std::string(Cut(description, kMostMessage / 2)));
    absl::StrAppend(&message, message.empty() ? "" : "; ", violation->field(), ": ",
                    violation->description());
  }
  if (const size_t more = list_.size() - told + left_out_; more > 0) {
    absl::StrAppend(&message, "; and ", more, " more faults");
  }
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kBadRequestUrl, absl::Cord(bad.SerializeAsString()));
  return status;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    google::protobuf::Any* const any = details.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(payload));
  });
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      details.details().empty() ? "" : details.SerializeAsString());
}

}  // namespace tundra::coordinator
