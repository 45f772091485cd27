#include "worker/collective/nccl_cuda.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <ifaddrs.h>
#include <nccl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra {
namespace {

static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));
static_assert(static_cast<int>(NcclResult::kSuccess) == ncclSuccess);
static_assert(static_cast<int>(NcclResult::kUnhandledCudaError) == ncclUnhandledCudaError);
static_assert(static_cast<int>(NcclResult::kSystemError) == ncclSystemError);
static_assert(static_cast<int>(NcclResult::kInternalError) == ncclInternalError);
static_assert(static_cast<int>(NcclResult::kInvalidArgument) == ncclInvalidArgument);
static_assert(static_cast<int>(NcclResult::kInvalidUsage) == ncclInvalidUsage);
static_assert(static_cast<int>(NcclResult::kRemoteError) == ncclRemoteError);
static_assert(static_cast<int>(NcclResult::kInProgress) == ncclInProgress);
static_assert(kCudaSuccess == cudaSuccess);
static_assert(kCudaNotReady == cudaErrorNotReady);

// NCCL's functions; filled once by Load.
struct Library {
  decltype(&::ncclGetVersion) get_version = nullptr;
  decltype(&::ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&::ncclCommInitRankConfig) init_rank_config = nullptr;
  decltype(&::ncclCommGetAsyncError) get_async_error = nullptr;
  decltype(&::ncclCommFinalize) finalize = nullptr;
  decltype(&::ncclCommDestroy) destroy = nullptr;
  decltype(&::ncclCommAbort) abort = nullptr;
  decltype(&::ncclAllReduce) all_reduce = nullptr;
  decltype(&::ncclAllGather) all_gather = nullptr;
  decltype(&::ncclBroadcast) broadcast = nullptr;
  decltype(&::ncclGetErrorString) get_error_string = nullptr;
  decltype(&::ncclGetLastError) get_last_error = nullptr;
};
Library nccl;

NcclResult Result(ncclResult_t result) { return static_cast<NcclResult>(result); }
ncclComm_t Comm(NcclComm comm) { return static_cast<ncclComm_t>(comm); }
cudaStream_t Stream(CudaStream stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t Event(CudaEvent event) { return static_cast<cudaEvent_t>(event); }

NcclResult InitRank(NcclComm* comm, int size, const NcclUniqueId& id, int rank) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclUniqueId own;
  std::memcpy(&own, &id, sizeof(own));
  ncclComm_t made = nullptr;
  const ncclResult_t result = nccl.init_rank_config(&made, size, own, rank, &config);
  *comm = made;
  return Result(result);
}

CudaResult StreamCreate(CudaStream* stream) {
  int least = 0, greatest = 0;
  cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
  cudaStream_t made = nullptr;
  // Before computation, where both wait for the device: peers wait for this rank.
  if (error == cudaSuccess) {
    error = cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, greatest);
  }
  *stream = made;
  return error;
}

CudaResult EventCreate(CudaEvent* event) {
  cudaEvent_t made = nullptr;
  const cudaError_t error = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
  *event = made;
  return error;
}

constexpr NcclApi kApi{
    .get_unique_id =
        [](NcclUniqueId* id) {
          return Result(nccl.get_unique_id(reinterpret_cast<ncclUniqueId*>(id)));
        },
    .init_rank = InitRank,
    .get_async_error =
        [](NcclComm comm, NcclResult* result) {
          ncclResult_t own = ncclSuccess;
          const ncclResult_t asked = nccl.get_async_error(Comm(comm), &own);
          *result = Result(own);
          return Result(asked);
        },
    .finalize = [](NcclComm comm) { return Result(nccl.finalize(Comm(comm))); },
    .destroy = [](NcclComm comm) { return Result(nccl.destroy(Comm(comm))); },
    .abort = [](NcclComm comm) { return Result(nccl.abort(Comm(comm))); },
    .sum_int64 =
        [](void* values, size_t count, NcclComm comm, CudaStream stream) {
          return Result(nccl.all_reduce(values, values, count, ncclInt64, ncclSum, Comm(comm),
                                        Stream(stream)));
        },
    .all_gather =
        [](const void* mine, void* all, size_t bytes, NcclComm comm, CudaStream stream) {
          return Result(nccl.all_gather(mine, all, bytes, ncclInt8, Comm(comm), Stream(stream)));
        },
    .broadcast =
        [](void* data, size_t bytes, int root, NcclComm comm, CudaStream stream) {
          return Result(
              nccl.broadcast(data, data, bytes, ncclInt8, root, Comm(comm), Stream(stream)));
        },
    .error_string =
        [](NcclResult result) { return nccl.get_error_string(static_cast<ncclResult_t>(result)); },
    .last_error = [](NcclComm comm) { return nccl.get_last_error(Comm(comm)); },
    .set_device = [](int device) -> CudaResult { return cudaSetDevice(device); },
    .stream_create = StreamCreate,
    .stream_destroy = [](CudaStream s) -> CudaResult { return cudaStreamDestroy(Stream(s)); },
    .event_create = EventCreate,
    .event_destroy = [](CudaEvent e) -> CudaResult { return cudaEventDestroy(Event(e)); },
    .event_record = [](CudaEvent e, CudaStream s) -> CudaResult {
      return cudaEventRecord(Event(e), Stream(s));
    },
    .event_query = [](CudaEvent e) -> CudaResult { return cudaEventQuery(Event(e)); },
    .memcpy_async = [](void* to, const void* from, size_t bytes, CudaStream s) -> CudaResult {
      return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, Stream(s));
    },
    .cuda_error_string =
        [](CudaResult result) { return cudaGetErrorString(static_cast<cudaError_t>(result)); },
};

template <typename Function>
absl::Status Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(::dlsym(library, name));
  if (*function != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("nccl: the library has no ", name,
                                                    "; install NCCL ", NCCL_MAJOR, ".", NCCL_MINOR,
                                                    " or newer"));
}

absl::Status Load() {
  const char* path = std::getenv("TUNDRA_NCCL_LIBRARY");
  if (path == nullptr || *path == '\0') path = "libnccl.so.2";
  void* library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrCat("nccl: can't open ", path, ": ", ::dlerror(),
                                            "; install NCCL (libnccl2), name its file in "
                                            "TUNDRA_NCCL_LIBRARY, or use the Gloo collective"));
  }
  RETURN_IF_ERROR(Find(library, "ncclGetVersion", &nccl.get_version));
  int version = 0;
  nccl.get_version(&version);
  if (version < NCCL_VERSION(NCCL_MAJOR, NCCL_MINOR, 0)) {
    return absl::FailedPreconditionError(
        absl::StrCat("nccl: ", path, " is version ", version / 10000, ".", version / 100 % 100, ".",
                     version % 100, "; install NCCL ", NCCL_MAJOR, ".", NCCL_MINOR, " or newer"));
  }
  RETURN_IF_ERROR(Find(library, "ncclGetUniqueId", &nccl.get_unique_id));
  RETURN_IF_ERROR(Find(library, "ncclCommInitRankConfig", &nccl.init_rank_config));
  RETURN_IF_ERROR(Find(library, "ncclCommGetAsyncError", &nccl.get_async_error));
  RETURN_IF_ERROR(Find(library, "ncclCommFinalize", &nccl.finalize));
  RETURN_IF_ERROR(Find(library, "ncclCommDestroy", &nccl.destroy));
  RETURN_IF_ERROR(Find(library, "ncclCommAbort", &nccl.abort));
  RETURN_IF_ERROR(Find(library, "ncclAllReduce", &nccl.all_reduce));
  RETURN_IF_ERROR(Find(library, "ncclAllGather", &nccl.all_gather));
  RETURN_IF_ERROR(Find(library, "ncclBroadcast", &nccl.broadcast));
  RETURN_IF_ERROR(Find(library, "ncclGetErrorString", &nccl.get_error_string));
  return Find(library, "ncclGetLastError", &nccl.get_last_error);
}

// The network interface that has the host's address; empty when none is found.
std::string InterfaceOf(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return "";
  ifaddrs* all = nullptr;
  std::string name;
  if (::getifaddrs(&all) == 0) {
    for (const ifaddrs* one = all; one != nullptr && name.empty(); one = one->ifa_next) {
      if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != found->ai_family) continue;
      const bool v4 = found->ai_family == AF_INET;
      const void* here = v4 ? static_cast<const void*>(
                                  &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr)
                            : &reinterpret_cast<const sockaddr_in6*>(one->ifa_addr)->sin6_addr;
      const void* there = v4 ? static_cast<const void*>(
                                   &reinterpret_cast<const sockaddr_in*>(found->ai_addr)->sin_addr)
                             : &reinterpret_cast<const sockaddr_in6*>(found->ai_addr)->sin6_addr;
      if (std::memcmp(here, there, v4 ? sizeof(in_addr) : sizeof(in6_addr)) == 0) {
        name = one->ifa_name;
      }
    }
    ::freeifaddrs(all);
  }
  ::freeaddrinfo(found);
  return name;
}

}  // namespace

absl::StatusOr<const NcclApi*> OpenNccl(const std::string& hostname) {
  // Where the ranks meet is where NCCL is to meet, too, unless the user says otherwise.
  if (const std::string interface = InterfaceOf(hostname); !interface.empty()) {
    ::setenv("NCCL_SOCKET_IFNAME", ("=" + interface).c_str(), /*overwrite=*/0);
  }
  static const absl::Status loaded = Load();
  RETURN_IF_ERROR(loaded);
  return &kApi;
}

}  // namespace tundra
