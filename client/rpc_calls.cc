#include "client/rpc_calls.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_join.h"
#include "client/progress.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/rpc.h"
#include "common/sha256.h"
#include "common/status.h"
#include "google/rpc/status.pb.h"

namespace tundra::client {
namespace {

constexpr size_t kChunkBytes = 256 << 10;

}  // namespace

absl::StatusOr<Service> Service::Open(const AddressFlags& flags) {
  Service service;
  ASSIGN_OR_RETURN(service.address_, FindAddress(flags));
  ASSIGN_OR_RETURN(const std::shared_ptr<ChannelSource> source,
                   ChannelSource::Open(service.address_.value, service.address_.security));
  service.channel_ = source->Get();
  return service;
}

std::unique_ptr<tundra::v1::JobService::Stub> Service::jobs() const {
  return tundra::v1::JobService::NewStub(channel_);
}
std::unique_ptr<tundra::v1::DatasetService::Stub> Service::datasets() const {
  return tundra::v1::DatasetService::NewStub(channel_);
}
std::unique_ptr<tundra::v1::BaseService::Stub> Service::bases() const {
  return tundra::v1::BaseService::NewStub(channel_);
}
std::unique_ptr<tundra::v1::ArtifactService::Stub> Service::artifacts() const {
  return tundra::v1::ArtifactService::NewStub(channel_);
}
std::unique_ptr<tundra::v1::GenerateService::Stub> Service::generate() const {
  return tundra::v1::GenerateService::NewStub(channel_);
}
std::unique_ptr<tundra::v1::AccessService::Stub> Service::access() const {
  return tundra::v1::AccessService::NewStub(channel_);
}
std::unique_ptr<tundra::v1::FleetService::Stub> Service::fleet() const {
  return tundra::v1::FleetService::NewStub(channel_);
}

absl::Status Service::Explain(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  const absl::Status plain = FromGrpc(status);
  const std::vector<FieldViolation> violations = Violations(status);
  if (!violations.empty()) {
    std::vector<std::string> lines;
    for (const auto& v : violations)
      lines.push_back(absl::StrCat("  ", v.field, ": ", v.description));
    return absl::Status(plain.code(),
                        absl::StrCat("the request has ", violations.size(),
                                     violations.size() == 1 ? " fault:\n" : " faults:\n",
                                     absl::StrJoin(lines, "\n")));
  }
  if (absl::IsUnavailable(plain) &&
      (plain.message().find("failed to connect") != std::string::npos || plain.message().empty() ||
       plain.message().find("connections to all backends") != std::string::npos ||
       plain.message().find("Socket closed") != std::string::npos)) {
    return absl::UnavailableError(
        absl::StrCat("no service answers at ", address_.value, " (from ", address_.source,
                     address_.security.tls
                         ? ", with TLS): is it up, does it speak TLS, and does its certificate "
                           "name this host and chain to the CA that was given? ("
                         : "): start one with `tundra local up`, or name another with --address; "
                           "one with TLS needs --tls-ca (",
                     plain.message(), ")"));
  }
  if (absl::IsUnauthenticated(plain)) {
    const ClientSecurity& security = address_.security;
    const std::string sent = !security.token_file.empty() ? "from " + security.token_file
                             : !security.token.empty()    ? "from $TUNDRA_TOKEN"
                                                          : "";
    return absl::UnauthenticatedError(absl::StrCat(
        "the service at ", address_.value, " (from ", address_.source, ") refused the call",
        sent.empty() ? "" : absl::StrCat(" with the token ", sent), ": ", plain.message()));
  }
  if (absl::IsDeadlineExceeded(plain)) {
    return absl::DeadlineExceededError(absl::StrCat(
        "the service at ", address_.value, " did not answer in time (", plain.message(), ")"));
  }
  return plain;
}

std::vector<FieldViolation> Violations(const grpc::Status& status) {
  std::vector<FieldViolation> violations;
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return violations;
  for (const auto& any : details.details()) {
    google::rpc::BadRequest bad;
    if (!any.UnpackTo(&bad)) continue;
    for (const auto& v : bad.field_violations()) violations.push_back({v.field(), v.description()});
  }
  return violations;
}

void Prepare(grpc::ClientContext* context, absl::Duration timeout) {
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
}

namespace {

// "job-" and 20 letters and digits, as the server makes them; other texts are names.
bool LooksLikeJobId(std::string_view text) {
  constexpr std::string_view kPrefix = "job-";
  constexpr size_t kRandom = 20;
  return text.starts_with(kPrefix) && text.size() == kPrefix.size() + kRandom &&
         text.substr(kPrefix.size()).find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") ==
             std::string_view::npos;
}

// The newest jobs of a filter.
absl::StatusOr<tundra::v1::ListJobsResponse> FirstJobs(const Service& service,
                                                       const std::string& filter, int most) {
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::ListJobsRequest request;
  request.set_page_size(most);
  request.set_filter(filter);
  tundra::v1::ListJobsResponse response;
  RETURN_IF_ERROR(service.Explain(service.jobs()->ListJobs(&context, request, &response)));
  return response;
}

}  // namespace

absl::StatusOr<tundra::v1::Caller> Service::GetCaller() const {
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::Caller caller;
  RETURN_IF_ERROR(Explain(access()->GetCaller(&context, tundra::v1::GetCallerRequest(), &caller)));
  return caller;
}

absl::StatusOr<std::string> Service::JobName(const std::string& text) const {
  if (text.starts_with("jobs/")) return text;
  if (LooksLikeJobId(text)) return "jobs/" + text;
  if (text.find('"') != std::string::npos) {
    return absl::InvalidArgumentError("a job's name has no quotes in it");
  }
  ASSIGN_OR_RETURN(const tundra::v1::Caller caller, GetCaller());
  const std::string named = absl::StrCat("display_name = \"", text, "\"");
  const std::string tenant = caller.tenant().substr(caller.tenant().find('/') + 1);
  ASSIGN_OR_RETURN(const tundra::v1::ListJobsResponse own,
                   FirstJobs(*this, absl::StrCat(named, " AND tenant = \"", tenant, "\""), 1));
  if (own.jobs_size() > 0) return own.jobs(0).name();
  if (caller.role() == tundra::v1::ROLE_ADMIN) {
    constexpr int kShown = 5;
    ASSIGN_OR_RETURN(const tundra::v1::ListJobsResponse others, FirstJobs(*this, named, kShown));
    std::vector<std::string> lines;
    for (const auto& job : others.jobs()) {
      lines.push_back(absl::StrCat("  ", job.name(), " of ", job.tenant()));
    }
    if (!others.next_page_token().empty()) lines.emplace_back("  … and more");
    if (!lines.empty()) {
      return absl::NotFoundError(absl::StrCat(
          caller.tenant(), ", your tenant, has no job of the name '", text,
          "'; others have. A name means a job of one's own tenant; name these by their IDs:\n",
          absl::StrJoin(lines, "\n")));
    }
  }
  return absl::NotFoundError(
      absl::StrCat("no job with the id or name '", text, "'; `tundra jobs` lists them"));
}

absl::StatusOr<tundra::v1::Dataset> UploadDataset(const Service& service, const std::string& path,
                                                  bool quiet) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const std::string_view bytes = file.bytes();
  if (bytes.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is empty; it needs at least one row"));
  }
  grpc::ClientContext context;
  tundra::v1::Dataset dataset;
  auto stub = service.datasets();
  auto writer = stub->UploadDataset(&context, &dataset);
  tundra::v1::UploadDatasetRequest request;
  auto* metadata = request.mutable_metadata();
  metadata->set_display_name(std::filesystem::path(path).filename().string());
  metadata->set_size_bytes(static_cast<int64_t>(bytes.size()));
  metadata->set_sha256(Sha256Hex(bytes));
  metadata->set_request_id(NewIdValue("upload"));
  bool open = writer->Write(request);
  ProgressBar bar("uploading " + metadata->display_name(), static_cast<int64_t>(bytes.size()),
                  quiet);
  for (size_t at = 0; open && at < bytes.size(); at += kChunkBytes) {
    const std::string_view chunk = bytes.substr(at, kChunkBytes);
    request.set_chunk(chunk.data(), chunk.size());
    open = writer->Write(request);
    bar.Set(static_cast<int64_t>(at + chunk.size()));
  }
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  bar.Done();
  if (!status.ok()) return Annotate(service.Explain(status), path);
  return dataset;
}

}  // namespace tundra::client
