// A job file, and what the service makes of the job in it.
#include "client/job_file.h"

#include "coordinator/api/job_validation.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file =
      tundra::client::ParseJobFile(std::string(tundra::fuzz::View(data, size)), "job.yaml");
  if (!file.ok()) return 0;
  (void)file->Place("job.spec.lora.rank");
  (void)file->Resolve(file->job.spec().dataset().train());
  tundra::coordinator::Violations violations;
  tundra::coordinator::CheckJob(file->job, violations);
  (void)violations.ToStatus();
  return 0;
}
