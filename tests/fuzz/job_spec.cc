// A job as JSON, as the API takes it, and the base that it names: what is checked before it is
// stored.
#include <google/protobuf/util/json_util.h>

#include "common/rpc.h"
#include "coordinator/api/job_validation.h"
#include "google/rpc/status.pb.h"
#include "tests/fuzz/target.h"

namespace {

using google::protobuf::util::JsonStringToMessage;

void Accepted(const tundra::v1::Job& job, const tundra::v1::Base& base) {
  using namespace tundra;
  v1::JobSpec spec = job.spec();
  coordinator::FillDefaults(base, spec);
  for (const int64_t rows : {int64_t{1}, int64_t{1} << 40}) {
    EXPECT_FUZZ(coordinator::TotalSteps(spec, rows) >= 1);
  }
  // What the defaults make of it is in range, too.
  coordinator::Violations violations;
  v1::Job filled = job;
  *filled.mutable_spec() = spec;
  coordinator::CheckJob(filled, violations);
  EXPECT_FUZZ(violations.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  static const bool quiet = (RouteProtobufLog(), true);
  (void)quiet;
  const auto parts = fuzz::Parts(fuzz::View(data, size), 2);
  v1::Job job;
  v1::Base base;
  if (!JsonStringToMessage(parts[0], &job).ok()) return 0;
  if (!parts[1].empty() && !JsonStringToMessage(parts[1], &base).ok()) return 0;
  coordinator::Violations violations;
  coordinator::CheckJob(job, violations);
  coordinator::CheckAgainstBase(job.spec(), base, violations);
  const absl::Status status = violations.ToStatus();
  // What is told of a request goes into headers, and can be read there.
  EXPECT_FUZZ(status.message().size() <= 10'000);
  status.ForEachPayload([](absl::string_view, const absl::Cord& payload) {
    EXPECT_FUZZ(google::rpc::BadRequest().ParseFromString(std::string(payload)));
  });
  if (status.ok()) Accepted(job, base);
  return 0;
}
