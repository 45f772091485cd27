// What a job may ask for: every field of a new job is checked at once, and what
// was left out is filled in.
#pragma once

#include "coordinator/api/errors.h"
#include "tundra/v1/base.pb.h"
#include "tundra/v1/job.pb.h"

namespace tundra::coordinator {

// Checks what needs no look-up. Field paths start with "job.".
void CheckJob(const v1::Job& job, Violations& violations);

// Checks what depends on the base: target modules, sequence length, micro-batch.
void CheckAgainstBase(const v1::JobSpec& spec, const v1::Base& base, Violations& violations);

// Sets every field that was left out to the default of job_spec.proto.
void FillDefaults(const v1::Base& base, v1::JobSpec& spec);

// Optimizer steps of the job over a data set of `rows` rows. Needs the defaults.
int64_t TotalSteps(const v1::JobSpec& spec, int64_t rows);

}  // namespace tundra::coordinator
