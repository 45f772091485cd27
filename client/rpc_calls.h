// Calls to the service, with deadlines, and errors that say what to do.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/address.h"
#include "tundra/v1/access.grpc.pb.h"
#include "tundra/v1/artifact.grpc.pb.h"
#include "tundra/v1/base.grpc.pb.h"
#include "tundra/v1/dataset.grpc.pb.h"
#include "tundra/v1/fleet.grpc.pb.h"
#include "tundra/v1/generate.grpc.pb.h"
#include "tundra/v1/job.grpc.pb.h"

namespace tundra::client {

// Fault of one field of a request, from google.rpc.BadRequest.
struct FieldViolation {
  std::string field;
  std::string description;
};

// One service, by address. Thread-safe.
class Service {
 public:
  // Errors: those of FindAddress and ChannelSource::Open.
  static absl::StatusOr<Service> Open(const AddressFlags& flags);

  const Address& address() const { return address_; }
  std::unique_ptr<tundra::v1::JobService::Stub> jobs() const;
  std::unique_ptr<tundra::v1::DatasetService::Stub> datasets() const;
  std::unique_ptr<tundra::v1::BaseService::Stub> bases() const;
  std::unique_ptr<tundra::v1::ArtifactService::Stub> artifacts() const;
  std::unique_ptr<tundra::v1::GenerateService::Stub> generate() const;
  std::unique_ptr<tundra::v1::AccessService::Stub> access() const;
  std::unique_ptr<tundra::v1::FleetService::Stub> fleet() const;

  // The status with our advice: where nothing answers, how to start a service.
  absl::Status Explain(const grpc::Status& status) const;

  // Waits before a call is tried again (common/rpc.h).
  void AwaitNextTry(absl::Duration pause) const { tundra::AwaitNextTry(*channel_, pause); }

  // Whose token the calls carry.
  absl::StatusOr<tundra::v1::Caller> GetCaller() const;

  // "jobs/ID" for an id, a resource name, or a display name: the newest job of that name of the
  // caller's own tenant. A name never reaches another tenant's job, for an admin either.
  // Errors: kNotFound, which tells an admin of the jobs of that name elsewhere.
  absl::StatusOr<std::string> JobName(const std::string& text) const;

 private:
  Address address_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Faults by field, empty where the status carries none.
std::vector<FieldViolation> Violations(const grpc::Status& status);

// Sets the deadline of a call that answers at once.
void Prepare(grpc::ClientContext* context, absl::Duration timeout = absl::Seconds(30));

// Whether a list of jobs or data sets has one of another tenant than the caller's, as an admin's
// may: then it must say whose each is.
template <typename Rows>
absl::StatusOr<bool> HasOtherTenants(const Service& service, const Rows& rows) {
  if (rows.empty()) return false;
  const absl::StatusOr<tundra::v1::Caller> caller = service.GetCaller();
  if (!caller.ok()) return caller.status();
  return std::any_of(rows.begin(), rows.end(),
                     [&](const auto& row) { return row.tenant() != caller->tenant(); });
}

// Uploads a data set with a progress bar on a terminal.
absl::StatusOr<tundra::v1::Dataset> UploadDataset(const Service& service, const std::string& path,
                                                  bool quiet);

}  // namespace tundra::client
