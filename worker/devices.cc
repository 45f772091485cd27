#include "worker/devices.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/status.h"
#include "worker/device/cuda_backend.h"
#include "worker/rank_control.pb.h"

namespace tundra::worker {
namespace {

constexpr absl::Duration kProbeTimeout = absl::Seconds(60);
constexpr int kMostDevices = 256;

absl::Status BadDevices(const std::string& text) {
  return absl::InvalidArgumentError(
      absl::StrCat("--devices ", text,
                   ": use cpu:N (N CPU ranks, 1 to 256), cpu, cuda:0,2 (these GPUs), cuda "
                   "(every GPU) or all"));
}

absl::StatusOr<std::vector<FoundDevice>> FindCpus(int count, int threads, const std::string& isa) {
  const int each = ThreadsPerRank(threads, count);
  ASSIGN_OR_RETURN(const auto device, CreateCpuDevice({.threads = each, .max_isa = isa}));
  std::vector<FoundDevice> found(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    tundra::v1::DeviceInfo& info = found[static_cast<size_t>(i)].info;
    info.set_index(i);
    info.set_kind("cpu");
    info.set_name(device->name());
    info.set_numerics_class(device->numerics_class());
    info.set_memory_bytes(
        static_cast<int64_t>(device->available_bytes() / static_cast<size_t>(count)));
  }
  return found;
}

// In the process of its own.
absl::Status LookAtGpus(std::vector<int> ordinals, DeviceProbe& probe) {
  ASSIGN_OR_RETURN(const CudaBackendTable* backend, OpenCudaBackend());
  ASSIGN_OR_RETURN(const int count, backend->count_devices());
  if (ordinals.empty()) {
    for (int i = 0; i < count; ++i) ordinals.push_back(i);
  }
  if (count == 0) return absl::NotFoundError("this machine has no GPU; use cpu:N");
  for (const int ordinal : ordinals) {
    if (ordinal >= count) {
      return absl::NotFoundError(absl::StrCat("there is no GPU ", ordinal, ": this machine has ",
                                              count, ", numbered from 0"));
    }
    ASSIGN_OR_RETURN(const auto device, backend->create_device(ordinal));
    tundra::v1::DeviceInfo& info = *probe.add_devices();
    info.set_index(probe.devices_size() - 1);
    info.set_kind("cuda");
    info.set_name(device->name());
    info.set_numerics_class(device->numerics_class());
    const auto ranks = static_cast<uint64_t>(std::count(ordinals.begin(), ordinals.end(), ordinal));
    info.set_memory_bytes(static_cast<int64_t>(device->available_bytes() / ranks));
    probe.add_ordinals(ordinal);
  }
  probe.set_no_nccl(std::string(backend->open_nccl("127.0.0.1").status().message()));
  return absl::OkStatus();
}

[[noreturn]] void ProbeInChild(const std::vector<int>& ordinals, int fd) {
  DeviceProbe probe;
  const absl::Status status = LookAtGpus(ordinals, probe);
  probe.set_code(static_cast<int>(status.code()));
  probe.set_message(std::string(status.message()));
  const std::string bytes = probe.SerializeAsString();
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = ::write(fd, bytes.data() + at, bytes.size() - at);
    if (n <= 0) ::_exit(1);
    at += static_cast<size_t>(n);
  }
  // No clean-up: the driver's own can hang.
  ::_exit(0);
}

absl::StatusOr<std::string> ReadUntilEnd(int fd, absl::Time deadline) {
  std::string bytes;
  char piece[4096];
  while (true) {
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = left <= 0 ? 0 : ::poll(&wait, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the NVIDIA driver does not answer within ", absl::FormatDuration(kProbeTimeout),
          "; look at nvidia-smi, or use CPU devices (cpu:N)"));
    }
    const ssize_t n = ::read(fd, piece, sizeof(piece));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return bytes;
    bytes.append(piece, static_cast<size_t>(n));
  }
}

absl::StatusOr<std::vector<FoundDevice>> FindGpus(const std::vector<int>& ordinals) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return ErrnoStatus(errno, "fork");
  if (child == 0) ProbeInChild(ordinals, write_end.get());
  write_end = Fd();
  const absl::StatusOr<std::string> bytes =
      ReadUntilEnd(read_end.get(), absl::Now() + kProbeTimeout);
  ::kill(child, SIGKILL);
  // A process that a driver holds in the kernel does not die: it is left behind.
  for (int i = 0; i < 100 && ::waitpid(child, nullptr, WNOHANG) == 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  RETURN_IF_ERROR(bytes.status());
  DeviceProbe probe;
  if (bytes->empty() || !probe.ParseFromString(*bytes) ||
      probe.ordinals_size() != probe.devices_size()) {
    return absl::FailedPreconditionError(
        "looking at the GPUs ended in a crash of the driver or of CUDA; look at nvidia-smi and "
        "dmesg, or use CPU devices (cpu:N)");
  }
  if (probe.code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(probe.code()), probe.message());
  }
  std::vector<FoundDevice> found;
  for (int i = 0; i < probe.devices_size(); ++i) {
    found.push_back({probe.devices(i), probe.ordinals(i), probe.no_nccl()});
  }
  return found;
}

}  // namespace

absl::StatusOr<DeviceChoice> ParseDevices(const std::string& text) {
  DeviceChoice choice;
  if (text == "cpu") return choice;
  if (text == "all" || text == "cuda") {
    choice.form = text == "all" ? DeviceChoice::Form::kAll : DeviceChoice::Form::kCuda;
    return choice;
  }
  if (text.starts_with("cuda:")) {
    choice.form = DeviceChoice::Form::kCuda;
    for (const auto part : absl::StrSplit(text.substr(5), ',')) {
      int ordinal = -1;
      if (!absl::SimpleAtoi(part, &ordinal) || ordinal < 0 || ordinal >= kMostDevices) {
        return BadDevices(text);
      }
      choice.ordinals.push_back(ordinal);
    }
    if (choice.ordinals.size() > kMostDevices) return BadDevices(text);
    return choice;
  }
  if (!text.starts_with("cpu:") || !absl::SimpleAtoi(text.substr(4), &choice.cpus) ||
      choice.cpus < 1 || choice.cpus > kMostDevices) {
    return BadDevices(text);
  }
  return choice;
}

absl::StatusOr<std::vector<FoundDevice>> FindDevices(const DeviceChoice& choice, int threads,
                                                     const std::string& cpu_max_isa) {
  if (choice.form == DeviceChoice::Form::kCpu) return FindCpus(choice.cpus, threads, cpu_max_isa);
  absl::StatusOr<std::vector<FoundDevice>> gpus = FindGpus(choice.ordinals);
  if (gpus.ok() || choice.form == DeviceChoice::Form::kCuda) return gpus;
  LogInfo("no GPU is used: {}", std::string(gpus.status().message()));
  return FindCpus(1, threads, cpu_max_isa);
}

absl::StatusOr<std::string> ChooseCollective(const std::string& wanted,
                                             const std::vector<FoundDevice>& devices) {
  std::string why_not;
  std::set<int> seen;
  for (const FoundDevice& device : devices) {
    if (device.info.kind() != "cuda" || !seen.insert(device.ordinal).second) {
      why_not = "NCCL needs a GPU of its own for every rank; name GPUs in --devices, each once";
    } else if (!device.no_nccl.empty()) {
      why_not = device.no_nccl;
    }
  }
  if (wanted == "nccl" && !why_not.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--collective nccl: ", why_not, ", or use --collective gloo"));
  }
  if (wanted != "auto") return wanted;
  if (why_not.empty()) return std::string("nccl");
  if (!seen.empty()) LogInfo("ranks meet over Gloo: {}", why_not);
  return std::string("gloo");
}

int ThreadsPerRank(int threads, int ranks) {
  if (threads == 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, threads / ranks);
}

absl::StatusOr<OpenedDevice> OpenDevice(const std::string& kind, int ordinal, int threads) {
  OpenedDevice opened;
  if (kind == "cpu") {
    ASSIGN_OR_RETURN(opened.device, CreateCpuDevice({.threads = threads, .max_isa = ""}));
    ASSIGN_OR_RETURN(opened.ops, CreateCpuOps(opened.device.get()));
    return opened;
  }
  if (kind != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("a device of the unknown kind \"", kind, "\""));
  }
  ASSIGN_OR_RETURN(const CudaBackendTable* backend, OpenCudaBackend());
  ASSIGN_OR_RETURN(opened.device, backend->create_device(ordinal));
  ASSIGN_OR_RETURN(opened.ops, backend->create_ops(opened.device.get()));
  return opened;
}

}  // namespace tundra::worker
