#include "coordinator/http/json_api.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "common/sha256.h"
#include "coordinator/access/in_process.h"
#include "google/rpc/status.pb.h"
#include "tundra/v1/artifact.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::MethodDescriptor;

// WorkerService is left out: workers speak gRPC, with credentials of their own.
constexpr std::array kServices = {"AccessService",  "ArtifactService", "BaseService",
                                  "DatasetService", "FleetService",    "GenerateService",
                                  "JobService"};

struct Code {
  const char* name;
  int http;
};
// By gRPC's code. Source: https://connectrpc.com/docs/protocol#error-codes
constexpr std::array<Code, 17> kCodes = {{{"ok", 200},
                                          {"canceled", 499},
                                          {"unknown", 500},
                                          {"invalid_argument", 400},
                                          {"deadline_exceeded", 504},
                                          {"not_found", 404},
                                          {"already_exists", 409},
                                          {"permission_denied", 403},
                                          {"resource_exhausted", 429},
                                          {"failed_precondition", 400},
                                          {"aborted", 409},
                                          {"out_of_range", 400},
                                          {"unimplemented", 501},
                                          {"internal", 500},
                                          {"unavailable", 503},
                                          {"data_loss", 500},
                                          {"unauthenticated", 401}}};

const MethodDescriptor* FindMethod(std::string_view path) {
  for (const std::string_view service : kServices) {
    const std::string prefix = "/tundra.v1." + std::string(service) + "/";
    if (path.substr(0, prefix.size()) != prefix) continue;
    const std::string name(path.substr(prefix.size()));
    const auto* const found = DescriptorPool::generated_pool()->FindServiceByName(
        absl::StrCat("tundra.v1.", std::string(service)));
    return found == nullptr ? nullptr : found->FindMethodByName(name);
  }
  return nullptr;
}

std::unique_ptr<Message> NewMessage(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(MessageFactory::generated_factory()->GetPrototype(type)->New());
}

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string ToBytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// The detail with its type, its bytes and, where the type is known, its JSON.
nlohmann::json DetailJson(const google::protobuf::Any& any) {
  const size_t slash = any.type_url().rfind('/');
  const std::string type = any.type_url().substr(slash == std::string::npos ? 0 : slash + 1);
  std::string value;
  absl::Base64Escape(any.value(), &value);
  while (!value.empty() && value.back() == '=') value.pop_back();
  nlohmann::json detail = {{"type", type}, {"value", value}};
  const auto* const descriptor = DescriptorPool::generated_pool()->FindMessageTypeByName(type);
  if (descriptor == nullptr) return detail;
  const std::unique_ptr<Message> message = NewMessage(descriptor);
  std::string text;
  if (!message->ParseFromString(any.value()) ||
      !google::protobuf::util::MessageToJsonString(*message, &text).ok()) {
    return detail;
  }
  nlohmann::json debug = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!debug.is_discarded()) detail["debug"] = std::move(debug);
  return detail;
}

void SetCaller(grpc::ClientContext& context, const WebCaller& caller) {
  if (!caller.authorization.empty()) context.AddMetadata("authorization", caller.authorization);
  context.AddMetadata(kPeerMetadata, caller.peer);
  context.AddMetadata(kPeerKeyMetadata, PeerKey());
}

grpc::Status InvalidArgument(const std::string& message) {
  return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, message);
}

// Calls a unary method and waits for it; gives it up when the server stops.
grpc::Status CallUnary(const std::shared_ptr<grpc::Channel>& channel, const std::string& path,
                       grpc::ClientContext& context, const Message& request, Message& response,
                       const std::function<bool()>& stops) {
  grpc::GenericStub stub(channel);
  const grpc::ByteBuffer in = ToBuffer(request.SerializeAsString());
  grpc::ByteBuffer out;
  grpc::Status status;
  absl::Notification done;
  stub.UnaryCall(&context, path, grpc::StubOptions(), &in, &out, [&](grpc::Status result) {
    status = std::move(result);
    done.Notify();
  });
  while (!done.WaitForNotificationWithTimeout(absl::Milliseconds(100))) {
    if (stops()) context.TryCancel();
  }
  if (status.ok() && !response.ParseFromString(ToBytes(out))) {
    return grpc::Status(grpc::StatusCode::INTERNAL, "the answer cannot be read");
  }
  return status;
}

// Printable ASCII and tabs: what gRPC takes as the value of metadata.
bool IsHeaderValue(const std::string& value) {
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

class FileDownloadImpl : public FileDownload {
 public:
  ~FileDownloadImpl() override {
    if (reader_ == nullptr || ended_) return;
    context_.TryCancel();
    while (reader_->Read(&message_)) {
    }
    reader_->Finish();
  }

  absl::Status Open(const std::shared_ptr<grpc::Channel>& channel,
                    const v1::DownloadFileRequest& request, const WebCaller& caller) {
    SetCaller(context_, caller);
    stub_ = v1::ArtifactService::NewStub(channel);
    reader_ = stub_->DownloadFile(&context_, request);
    absl::StatusOr<std::string> first = Next();
    if (!first.ok()) return first.status();
    first_ = *std::move(first);
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Next() override {
    if (!first_.empty()) return std::exchange(first_, "");
    if (ended_) return "";
    while (reader_->Read(&message_)) {
      if (!message_.chunk().empty()) return std::move(*message_.mutable_chunk());
    }
    ended_ = true;
    const grpc::Status status = reader_->Finish();
    if (status.ok()) return "";
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::ArtifactService::Stub> stub_;
  std::unique_ptr<grpc::ClientReader<v1::DownloadFileResponse>> reader_;
  v1::DownloadFileResponse message_;
  std::string first_;
  bool ended_ = false;
};

}  // namespace

JsonAnswer JsonError(const grpc::Status& status) {
  const auto number = static_cast<size_t>(status.error_code());
  const Code& code = kCodes[number < kCodes.size() ? number : 2];
  nlohmann::json json = {{"code", code.name}, {"message", status.error_message()}};
  google::rpc::Status details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& any : details.details()) {
      json["details"].push_back(DetailJson(any));
    }
  }
  // Messages may quote bytes of a request that are no UTF-8.
  return {.status = code.http,
          .body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

bool NamesTag(std::string_view if_none_match, std::string_view etag) {
  const auto strip = [](absl::string_view tag) {
    tag = absl::StripAsciiWhitespace(tag);
    return absl::StartsWith(tag, "W/") ? tag.substr(2) : tag;
  };
  const absl::string_view wanted = strip({etag.data(), etag.size()});
  const absl::string_view given(if_none_match.data(), if_none_match.size());
  for (const absl::string_view tag : absl::StrSplit(given, ',')) {
    if (strip(tag) == wanted || strip(tag) == "*") return true;
  }
  return false;
}

bool JsonApi::IsMethod(std::string_view path) { return FindMethod(path) != nullptr; }

JsonAnswer JsonApi::Call(const JsonCall& call) {
  if (call.body.size() <= kLargeBody) return CallMethod(call);
  {
    const auto has_room = [this] {
      mu_.AssertHeld();
      return large_ < kMostLarge;
    };
    absl::MutexLock lock(&mu_);
    if (!mu_.AwaitWithTimeout(absl::Condition(&has_room), kJsonCallTimeout)) {
      return JsonError(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                    "too many large calls at a time; try again"));
    }
    ++large_;
  }
  JsonAnswer answer = CallMethod(call);
  absl::MutexLock lock(&mu_);
  --large_;
  return answer;
}

JsonAnswer JsonApi::CallMethod(const JsonCall& call) {
  const MethodDescriptor* const method = FindMethod(call.path);
  if (method == nullptr) {
    return JsonError(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such method"));
  }
  if (method->client_streaming() || method->server_streaming()) {
    return JsonError(grpc::Status(
        grpc::StatusCode::UNIMPLEMENTED,
        absl::StrCat(method->name(), " streams, and JSON has unary methods only: use gRPC")));
  }
  if (!IsHeaderValue(call.caller.authorization)) {
    return JsonError(grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                                  "the authorization header has bytes that no token has"));
  }
  absl::Duration timeout = kJsonCallTimeout;
  if (!call.timeout_ms.empty()) {
    uint32_t ms = 0;
    if (!absl::SimpleAtoi(call.timeout_ms, &ms)) {
      return JsonError(InvalidArgument("Connect-Timeout-Ms must be a number of milliseconds"));
    }
    timeout = std::min(timeout, absl::Milliseconds(ms));
  }
  if (timeout <= absl::ZeroDuration()) {
    return JsonError(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "no time was given"));
  }
  const std::unique_ptr<Message> request = NewMessage(method->input_type());
  const auto parsed = google::protobuf::util::JsonStringToMessage(call.body, request.get());
  if (!parsed.ok()) {
    return JsonError(InvalidArgument(absl::StrCat("the body is no ", method->input_type()->name(),
                                                  " in JSON: ", std::string(parsed.message()))));
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  SetCaller(context, call.caller);
  const std::unique_ptr<Message> response = NewMessage(method->output_type());
  const grpc::Status status = CallUnary(channel_, call.path, context, *request, *response, stops_);
  if (!status.ok()) return JsonError(status);
  JsonAnswer answer;
  const auto printed = google::protobuf::util::MessageToJsonString(*response, &answer.body);
  if (!printed.ok()) {
    return JsonError(grpc::Status(
        grpc::StatusCode::INTERNAL,
        absl::StrCat("the answer has no JSON form: ", std::string(printed.message()))));
  }
  if (absl::StartsWith(method->name(), "Get") || absl::StartsWith(method->name(), "List")) {
    answer.etag = absl::StrCat("W/\"", Sha256Hex(answer.body).substr(0, 32), "\"");
    if (NamesTag(call.if_none_match, answer.etag)) {
      answer.status = 304;
      answer.body.clear();
    }
  }
  return answer;
}

absl::StatusOr<std::unique_ptr<FileDownload>> JsonApi::Download(const std::string& adapter,
                                                                const std::string& filename,
                                                                const WebCaller& caller) {
  if (!IsHeaderValue(caller.authorization)) {
    return absl::UnauthenticatedError("the authorization header has bytes that no token has");
  }
  v1::DownloadFileRequest request;
  request.set_name(adapter);
  request.set_filename(filename);
  auto download = std::make_unique<FileDownloadImpl>();
  const absl::Status status = download->Open(channel_, request, caller);
  if (!status.ok()) return status;
  return download;
}

}  // namespace tundra::coordinator
