// The devices of a worker: what "--devices" asks for, what they are, and how a rank opens
// its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tundra/v1/worker.pb.h"
#include "worker/device/device.h"
#include "worker/ops/ops.h"

namespace tundra::worker {

// What "--devices" says.
struct DeviceChoice {
  enum class Form { kCpu, kCuda, kAll };
  Form form = Form::kCpu;
  int cpus = 1;               // kCpu: so many CPU ranks
  std::vector<int> ordinals;  // kCuda: these, as the driver numbers them; empty: every one
};

// "cpu", "cpu:N", "cuda", "cuda:0,2" or "all" (every GPU where there are any, else one CPU
// rank). A GPU named twice gets two ranks. Errors: kInvalidArgument with the forms.
absl::StatusOr<DeviceChoice> ParseDevices(const std::string& text);

struct FoundDevice {
  tundra::v1::DeviceInfo info;  // index is the place in the list
  int ordinal = 0;              // of GPUs, as the driver numbers them
  std::string no_nccl;          // of GPUs: why NCCL can't be used; empty when it can
};

// The chosen devices of this machine. `threads` are all CPU threads that may be used (0: every
// core). GPUs are looked at from a process of its own, so that this one never holds a context;
// it must have no other threads yet.
// Errors: kNotFound when there is no such GPU or no CUDA backend, kFailedPrecondition when the
// driver or the library can't be used, kDeadlineExceeded when the driver doesn't answer. With
// kAll these mean one CPU rank.
absl::StatusOr<std::vector<FoundDevice>> FindDevices(const DeviceChoice& choice, int threads,
                                                     const std::string& cpu_max_isa);

// "gloo" or "nccl", for "--collective": "auto" is nccl when the devices are GPUs, each named once,
// and NCCL is there. Errors: kInvalidArgument for nccl without that.
absl::StatusOr<std::string> ChooseCollective(const std::string& wanted,
                                             const std::vector<FoundDevice>& devices);

// Threads of each rank: `threads` over all ranks (0: every core), divided evenly,
// at least 1.
int ThreadsPerRank(int threads, int ranks);

// A device with its operations.
struct OpenedDevice {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;  // destroyed first
};

// kind: "cpu" or "cuda". Errors as FindDevices.
absl::StatusOr<OpenedDevice> OpenDevice(const std::string& kind, int ordinal, int threads);

}  // namespace tundra::worker
