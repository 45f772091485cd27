// The command line and configuration file of tundra-worker.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tundra/v1/worker.pb.h"

namespace tundra::worker {

struct WorkerFlags {
  std::string coordinator = "127.0.0.1:7700";
  std::string name;
  std::string data_dir;
  std::vector<std::string> base_dirs;
  std::string devices = "cpu:1";
  int threads = 0;
  std::string cpu_max_isa;
  std::string collective_host = "127.0.0.1";
  double collective_timeout_s = 60;
  double hang_timeout_s = 300;
  double drain_timeout_s = 30;
  std::string gather = "auto";
  std::string http = "127.0.0.1:0";
  std::string ports_file;
  std::string log_level = "info";
  bool log_json = false;
  bool insecure = false;
};

// How many devices of which kind "--devices" asks for: "cpu", "cpu:N", or "all"
// (every GPU where there are any, else one CPU rank).
// Errors: kInvalidArgument with the forms; kUnimplemented for "cuda…" in a build or
// on a machine without it.
absl::StatusOr<int> ParseDevices(const std::string& text);

// Threads of each rank: `threads` over all ranks (0: every core), divided evenly,
// at least 1.
int ThreadsPerRank(int threads, int ranks);

}  // namespace tundra::worker
