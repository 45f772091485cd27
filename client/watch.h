// Following a job to its end.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/rpc_calls.h"

namespace tundra::client {

enum class WatchStyle {
  kProgress,  // events as lines; metrics as a bar on a terminal, as lines when piped
  kQuiet,     // nothing
  kJson,      // one JSON object a line for each item
};

// Streams the job until it ends, over broken connections too (it goes on after
// the last sequence number seen; gives up after `patience` without the service).
// Returns the job as it ended. Errors: kUnavailable, kNotFound, kDeadlineExceeded
// when it has not ended within `timeout`.
absl::StatusOr<tundra::v1::Job> WatchJob(const Service& service, const std::string& name,
                                         WatchStyle style,
                                         absl::Duration timeout = absl::InfiniteDuration(),
                                         absl::Duration patience = absl::Minutes(2));

bool IsTerminal(tundra::v1::JobState state);

// What to print about a job that has ended, and the exit code it gives.
int ReportEnd(const tundra::v1::Job& job, bool json);

// "RUNNING", without the enum's prefix.
std::string StateName(tundra::v1::JobState state);

}  // namespace tundra::client
