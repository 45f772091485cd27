// The CUDA backend as the programs see it: a shared library, libtundra_cuda.so, that is
// opened at run time, so that one build serves machines with and without a GPU.
//
// The library has one C entry point, which answers with a table of functions. Both sides
// are compiled from the same headers, and a library of another build is refused: objects of
// C++ pass between them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace tundra {

class Ops;

struct CudaBackendTable {
  // Devices of this machine, numbered from 0. kFailedPrecondition, with what to do, when there
  // is no driver or an old one.
  absl::StatusOr<int> (*count_devices)();
  // kNotFound when there is no such device, kFailedPrecondition when it is too old.
  absl::StatusOr<std::unique_ptr<Device>> (*create_device)(int ordinal);
  // The operations of such a device, which outlives them.
  absl::StatusOr<std::unique_ptr<Ops>> (*create_ops)(Device* device);
};

// The entry point: the table, or null when `interface` is not the library's own (see
// CudaBackendInterface). *library_interface is set to the library's in any case.
inline constexpr char kCudaBackendEntry[] = "tundra_cuda_backend";
using CudaBackendEntry = const CudaBackendTable* (*)(const char* interface,
                                                     const char** library_interface);

// A hash of the headers that both sides are compiled from.
std::string CudaBackendInterface();

inline constexpr char kCudaLibraryName[] = "libtundra_cuda.so";

// Where the library is looked for, in this order: the environment variable
// TUNDRA_CUDA_LIBRARY alone if it is set, else beside the program, in ../lib of the program,
// and wherever the dynamic linker looks.
std::vector<std::string> CudaLibraryPaths();

// Opens the library, once; it is never closed. Errors: kNotFound when there is none,
// kFailedPrecondition when it cannot be loaded or is of another build. Thread-safe.
absl::StatusOr<const CudaBackendTable*> OpenCudaBackend();

// As OpenCudaBackend, from one of these paths (the first that exists; a name without a slash
// is left to the dynamic linker), not remembered. For tests.
absl::StatusOr<const CudaBackendTable*> OpenCudaBackendFrom(const std::vector<std::string>& paths);

}  // namespace tundra
