// The CPU as a device: memory is the process's own, work is done when a call returns.
#include "worker/device/device_cpu.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/device/cpu_isa.h"
#include "worker/device/device.h"
#include "worker/device/host_memory.h"

namespace tundra {
namespace {

// Of every allocation: a cache line, and the widest vector. Large ones lie on page
// boundaries that fit huge pages.
constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

class CpuStream : public Stream {};

std::string ModelName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

}  // namespace

CpuDevice::CpuDevice(int threads, CpuIsa isa) : threads_(threads), isa_(isa), model_(ModelName()) {}

std::string CpuDevice::name() const {
  return absl::StrCat(model_, " (", std::string(CpuIsaName(isa_)), "), ", threads_,
                      threads_ == 1 ? " thread" : " threads");
}

std::string CpuDevice::numerics_class() const {
  return absl::StrCat("cpu/", std::string(CpuIsaName(isa_)), "/engine-", kEngineNumericsVersion,
                      "/onednn-", OneDnnVersion());
}

size_t CpuDevice::available_bytes() const { return AvailableHostMemory(); }

absl::StatusOr<Buffer> CpuDevice::Allocate(size_t bytes) {
  if (bytes == 0) return Buffer();
  const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* data = nullptr;
  if (posix_memalign(&data, alignment, bytes) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes"));
  }
  return Buffer(this, data, bytes);
}

void CpuDevice::Free(void* data, size_t /*bytes*/) { std::free(data); }

absl::StatusOr<std::unique_ptr<Stream>> CpuDevice::CreateStream() {
  return std::unique_ptr<Stream>(std::make_unique<CpuStream>());
}

absl::Status CpuDevice::CopyIn(Ctx, void* device_to, const void* host_from, size_t bytes) {
  if (bytes > 0) std::memcpy(device_to, host_from, bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::CopyOut(Ctx, void* host_to, const void* device_from, size_t bytes) {
  if (bytes > 0) std::memcpy(host_to, device_from, bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::CopyWithin(Ctx, void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memmove(to, from, bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::Zero(Ctx, void* data, size_t bytes) {
  if (bytes > 0) std::memset(data, 0, bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::Synchronize(Ctx) { return absl::OkStatus(); }

// Work on `earlier` was done before the call that put it there returned.
absl::Status CpuDevice::Order(Stream*, Stream*) { return absl::OkStatus(); }

absl::StatusOr<std::unique_ptr<Device>> CreateCpuDevice(const CpuOptions& options) {
  if (options.threads < 1 || options.threads > kMaxCpuThreads) {
    return absl::InvalidArgumentError(absl::StrCat("a CPU device needs 1 to ", kMaxCpuThreads,
                                                   " threads, not ", options.threads));
  }
  std::string max_isa = options.max_isa;
  const char* from_environment = std::getenv("TUNDRA_CPU_MAX_ISA");
  if (max_isa.empty() && from_environment != nullptr) max_isa = from_environment;
  ASSIGN_OR_RETURN(const CpuIsa isa, UseCpuIsa(max_isa));
  return std::unique_ptr<Device>(std::make_unique<CpuDevice>(options.threads, isa));
}

}  // namespace tundra
