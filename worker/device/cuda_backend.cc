#include "worker/device/cuda_backend.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"

namespace tundra {
namespace {

constexpr char kWhatElse[] = "; or use CPU devices (cpu:N)";

absl::StatusOr<const CudaBackendTable*> TableOf(void* library, const std::string& path) {
  void* symbol = dlsym(library, kCudaBackendEntry);
  if (symbol == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is not Tundra's CUDA backend: it has no ", kCudaBackendEntry));
  }
  const std::string ours = CudaBackendInterface();
  const char* theirs = "";
  const CudaBackendTable* table = reinterpret_cast<CudaBackendEntry>(symbol)(ours.c_str(), &theirs);
  if (table == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is of another build than this program (interface ", theirs, ", not ",
                     ours, "); install both from one build", kWhatElse));
  }
  return table;
}

}  // namespace

std::string CudaBackendInterface() { return TUNDRA_CUDA_INTERFACE; }

std::vector<std::string> CudaLibraryPaths() {
  const char* chosen = std::getenv("TUNDRA_CUDA_LIBRARY");
  if (chosen != nullptr && chosen[0] != '\0') return {chosen};
  std::vector<std::string> paths;
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    paths.push_back((program.parent_path() / kCudaLibraryName).string());
    paths.push_back((program.parent_path().parent_path() / "lib" / kCudaLibraryName).string());
  }
  paths.push_back(kCudaLibraryName);
  return paths;
}

absl::StatusOr<const CudaBackendTable*> OpenCudaBackendFrom(const std::vector<std::string>& paths) {
  std::string reason = "it is not there";
  for (const std::string& path : paths) {
    const bool searched = path.find('/') == std::string::npos;
    if (!searched && access(path.c_str(), F_OK) != 0) continue;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return TableOf(library, path);
    const char* why = dlerror();
    // A file that is there and does not load, for want of cuBLASLt above all, is the answer.
    if (!searched) {
      return absl::FailedPreconditionError(
          absl::StrCat("the CUDA backend cannot be loaded: ", why == nullptr ? path : why,
                       "; install the CUDA 13 libraries", kWhatElse));
    }
    if (why != nullptr) reason = why;
  }
  return absl::NotFoundError(absl::StrCat(
      "there is no CUDA backend (", reason, "; looked for ", absl::StrJoin(paths, ", "),
      "); build Tundra where nvcc 12.8 or newer is, or set TUNDRA_CUDA_LIBRARY", kWhatElse));
}

absl::StatusOr<const CudaBackendTable*> OpenCudaBackend() {
  static const auto* opened =
      new absl::StatusOr<const CudaBackendTable*>(OpenCudaBackendFrom(CudaLibraryPaths()));
  return *opened;
}

}  // namespace tundra
