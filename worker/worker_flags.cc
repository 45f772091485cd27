#include "worker/worker_flags.h"

#include <algorithm>
#include <thread>

#include "absl/strings/numbers.h"
#include "common/status.h"

namespace tundra::worker {

absl::StatusOr<int> ParseDevices(const std::string& text) {
  if (text == "cpu" || text == "all") return 1;
  if (text.starts_with("cuda")) {
    return absl::UnimplementedError(absl::StrCat(
        "--devices ", text, ": this build has no CUDA backend; use cpu:N, N CPU ranks"));
  }
  int count = 0;
  if (!text.starts_with("cpu:") || !absl::SimpleAtoi(text.substr(4), &count) || count < 1 ||
      count > 256) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--devices ", text, ": use cpu:N (N CPU ranks, 1 to 256), cpu, or all"));
  }
  return count;
}

int ThreadsPerRank(int threads, int ranks) {
  if (threads == 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, threads / ranks);
}

}  // namespace tundra::worker
