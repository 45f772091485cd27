// One mutex guards everything; functions that hang wait on its condition variable.
// Nothing is ever freed: whoever uses a handle too late is found out, and threads
// that outlive main() find everything in its place.
#include "worker/collective/nccl_stand_in.h"

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "worker/collective/collective_internal.h"

namespace tundra {
namespace {

using internal::CollectiveKind;

constexpr CudaResult kCudaError = 719;  // cudaErrorLaunchFailure
// How often ncclCommGetAsyncError says "in progress" after a call.
constexpr int kPollsUntilEnqueued = 2;

struct Comm;

// What one rank brings to a collective.
struct Part {
  CollectiveKind kind = CollectiveKind::kBarrier;
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  size_t bytes = 0;  // of each rank
  int root = 0;
  bool done = false;
};

// The communicators made from one id.
struct Clique {
  int size = 0;
  std::map<int, Comm*> members;                       // by rank
  std::map<uint64_t, std::map<int, Part*>> meetings;  // by number of the collective, then rank
};

struct Comm {
  Clique* clique = nullptr;
  int rank = 0;
  int device = 0;
  int number = 0;  // of the device's communicators
  bool never_ready = false;
  bool finalizing = false;
  bool gone = false;  // aborted or destroyed
  bool in_use = false;
  NcclResult error = NcclResult::kSuccess;
  int polls = 0;  // until what was called is on its stream
  bool enqueue_hangs = false;
  std::function<void()> enqueue;
  uint64_t collectives = 0;
};

// Something on a stream: runs when it is at the head, and again until it is done.
struct Work {
  std::function<bool()> run;
};

struct Stream {
  int device = 0;
  std::deque<Work> work;
  uint64_t queued = 0;
  uint64_t finished = 0;
  bool busy = false;  // work that a test has put there goes on
};

struct Event {
  int device = 0;
  Stream* stream = nullptr;
  uint64_t after = 0;  // that much of the stream's work
};

struct Device {
  std::set<std::pair<NcclFault, int>> faults;
  bool released = false;
  int inits = 0;
  int collectives = 0;
  bool device_error = false;
  bool query_hangs = false;
  NcclStandInCounts counts;
};

struct World {
  std::mutex mu;
  std::condition_variable changed;
  std::map<int, Device> devices;
  std::map<uint64_t, Clique> cliques;
  std::deque<Comm> comms;
  std::deque<Stream> streams;
  std::deque<Event> events;
  Stream default_stream;
  uint64_t ids = 0;
  int last_device = 0;
  std::vector<std::string> misuse;
};

World& TheWorld() {
  static World* world = new World();
  return *world;
}

thread_local int current_device = -1;

using Lock = std::unique_lock<std::mutex>;

// --- helpers; the caller holds the mutex ------------------------------------------

void Misuse(const std::string& what) { TheWorld().misuse.push_back(what); }

bool Has(int device, NcclFault fault, int call) {
  return TheWorld().devices[device].faults.contains({fault, call});
}

// Does not return before the device is released.
void Hang(Lock& lock, int device) {
  TheWorld().changed.wait(lock, [&] { return TheWorld().devices[device].released; });
}

void CheckDevice(int device, const char* what) {
  if (current_device != device) {
    Misuse(std::string(what) + " on a thread that has another device set");
  }
}

// A function in a communicator that must be alive; one at a time.
class InComm {
 public:
  InComm(Comm* comm, const char* what) : comm_(comm) {
    if (comm->gone) Misuse(std::string(what) + " on a communicator that is gone");
    if (comm->in_use) Misuse(std::string(what) + " beside another function on the communicator");
    CheckDevice(comm->device, what);
    comm->in_use = true;
  }
  ~InComm() { comm_->in_use = false; }

 private:
  Comm* comm_;
};

bool Ready(const Comm& comm) {
  if (comm.never_ready) return false;
  const Clique& clique = *comm.clique;
  return static_cast<int>(clique.members.size()) == clique.size;
}

void Advance(Stream& stream) {
  while (!stream.work.empty() && stream.work.front().run()) {
    stream.work.pop_front();
    stream.finished++;
  }
}

void Put(Stream& stream, std::function<bool()> run) {
  stream.work.push_back({std::move(run)});
  stream.queued++;
  Advance(stream);
}

// All ranks are there: moves the data, as the local collective does.
void Perform(std::map<int, Part*>& meeting) {
  const Part& first = *meeting.begin()->second;
  for (const auto& [rank, part] : meeting) {
    if (part->kind != first.kind || part->bytes != first.bytes || part->root != first.root) {
      Misuse("ranks disagree in a collective");
    }
    part->done = true;
  }
  std::vector<std::byte> result;
  if (first.kind == CollectiveKind::kBroadcast) {
    const Part& root = *meeting.at(first.root);
    result.assign(root.from, root.from + root.bytes);
  }
  for (const auto& [rank, part] : meeting) {
    if (first.kind == CollectiveKind::kBroadcast) break;
    if (first.kind == CollectiveKind::kGather || result.empty()) {
      result.insert(result.end(), part->from, part->from + part->bytes);
    } else {
      internal::Combine(first.kind, result.data(), part->from,
                        part->bytes / internal::ElementBytes(first.kind));
    }
  }
  for (const auto& [rank, part] : meeting) std::memcpy(part->to, result.data(), result.size());
}

bool OthersAreGone(const Comm& comm) {
  for (const auto& [rank, member] : comm.clique->members) {
    if (member != &comm && !member->gone) return false;
  }
  return true;
}

// The kernel of one rank: waits for the others, and ends without a result when its
// communicator fails or goes away.
void PutKernel(Comm* comm, Stream* stream, Part brought, bool hangs, bool late) {
  auto part = std::make_shared<Part>(brought);
  const uint64_t number = comm->collectives++;
  auto arrived = std::make_shared<bool>(false);
  Put(*stream, [comm, number, part, arrived, hangs, late] {
    if (part->done) return !late || OthersAreGone(*comm);
    auto& meeting = comm->clique->meetings[number];
    if (comm->gone || comm->error != NcclResult::kSuccess) {
      meeting.erase(comm->rank);
      return true;
    }
    if (hangs || *arrived) return false;
    *arrived = true;
    meeting[comm->rank] = part.get();
    if (static_cast<int>(meeting.size()) < comm->clique->size) return false;
    Perform(meeting);
    meeting.clear();
    return !late;
  });
}

NcclResult Collective(const char* what, NcclComm handle, CudaStream stream, const Part& part) {
  World& world = TheWorld();
  Lock lock(world.mu);
  auto* comm = static_cast<Comm*>(handle);
  const InComm in(comm, what);
  if (!Ready(*comm) || comm->polls > 0)
    Misuse(std::string(what) + " before the communicator is ready");
  Device& device = world.devices[comm->device];
  const int call = device.collectives++;
  device.counts.launched.push_back(comm->number);
  if (Has(comm->device, NcclFault::kLaunchHangs, call)) {
    Hang(lock, comm->device);
    return NcclResult::kInternalError;
  }
  if (Has(comm->device, NcclFault::kLaunchFails, call)) {
    comm->error = NcclResult::kUnhandledCudaError;
    return comm->error;
  }
  const bool fails = Has(comm->device, NcclFault::kAsyncError, call);
  device.device_error |= Has(comm->device, NcclFault::kDeviceError, call);
  device.query_hangs |= Has(comm->device, NcclFault::kQueryHangs, call);
  const bool hangs = fails || device.device_error || device.query_hangs ||
                     Has(comm->device, NcclFault::kKernelHangs, call);
  comm->enqueue_hangs = Has(comm->device, NcclFault::kEnqueueHangs, call);
  comm->polls = kPollsUntilEnqueued;
  const bool late = Has(comm->device, NcclFault::kKernelEndsLate, call);
  comm->enqueue = [comm, stream, part, hangs, fails, late] {
    PutKernel(comm, static_cast<Stream*>(stream), part, hangs, late);
    if (fails) comm->error = NcclResult::kRemoteError;
  };
  return NcclResult::kInProgress;
}

// --- the table --------------------------------------------------------------------

NcclResult GetUniqueId(NcclUniqueId* id) {
  World& world = TheWorld();
  const Lock lock(world.mu);
  const uint64_t number = ++world.ids;
  std::memset(id->bytes, 0x5A, sizeof(id->bytes));
  std::memcpy(id->bytes, &number, sizeof(number));
  return NcclResult::kSuccess;
}

NcclResult InitRank(NcclComm* handle, int size, const NcclUniqueId& id, int rank) {
  World& world = TheWorld();
  Lock lock(world.mu);
  const int number = current_device;
  Device& device = world.devices[number];
  const int init = device.inits++;
  if (Has(number, NcclFault::kInitFails, init)) return NcclResult::kInvalidUsage;
  if (Has(number, NcclFault::kInitCallHangs, init)) {
    Hang(lock, number);
    return NcclResult::kInternalError;
  }
  uint64_t key = 0;
  std::memcpy(&key, id.bytes, sizeof(key));
  Clique& clique = world.cliques[key];
  if (clique.size == 0) clique.size = size;
  for (const auto& [other, member] : clique.members) {
    if (member->device == number || other == rank) return NcclResult::kInvalidUsage;
  }
  if (clique.size != size || rank < 0 || rank >= size) return NcclResult::kInvalidArgument;
  Comm& comm = world.comms.emplace_back();
  comm.clique = &clique;
  comm.rank = rank;
  comm.device = number;
  comm.never_ready = Has(number, NcclFault::kInitHangs, init);
  if (!comm.never_ready) clique.members[rank] = &comm;
  comm.number = device.counts.made++;
  *handle = &comm;
  return NcclResult::kInProgress;
}

NcclResult GetAsyncError(NcclComm handle, NcclResult* result) {
  const Lock lock(TheWorld().mu);
  auto* comm = static_cast<Comm*>(handle);
  const InComm in(comm, "ncclCommGetAsyncError");
  *result = NcclResult::kInProgress;
  if (!Ready(*comm)) return NcclResult::kSuccess;
  if (comm->finalizing && Has(comm->device, NcclFault::kFinalizeHangs, 0)) {
    return NcclResult::kSuccess;
  }
  if (comm->polls > 0) {
    if (comm->enqueue_hangs || --comm->polls > 0) return NcclResult::kSuccess;
    comm->enqueue();
  }
  *result = comm->error;
  return NcclResult::kSuccess;
}

NcclResult Finalize(NcclComm handle) {
  const Lock lock(TheWorld().mu);
  auto* comm = static_cast<Comm*>(handle);
  const InComm in(comm, "ncclCommFinalize");
  comm->finalizing = true;
  return NcclResult::kInProgress;
}

NcclResult Destroy(NcclComm handle) {
  const Lock lock(TheWorld().mu);
  auto* comm = static_cast<Comm*>(handle);
  const InComm in(comm, "ncclCommDestroy");
  if (!comm->finalizing) Misuse("ncclCommDestroy without ncclCommFinalize");
  if (comm->error != NcclResult::kSuccess) Misuse("ncclCommDestroy on a communicator that failed");
  comm->gone = true;
  TheWorld().devices[comm->device].counts.destroyed++;
  return NcclResult::kSuccess;
}

NcclResult AbortComm(NcclComm handle) {
  Lock lock(TheWorld().mu);
  auto* comm = static_cast<Comm*>(handle);
  const InComm in(comm, "ncclCommAbort");
  comm->gone = true;  // which ends its work on streams
  for (Stream& stream : TheWorld().streams) Advance(stream);
  if (Has(comm->device, NcclFault::kAbortHangs, 0)) Hang(lock, comm->device);
  TheWorld().devices[comm->device].counts.aborted++;
  return NcclResult::kSuccess;
}

NcclResult SumInt64(void* values, size_t count, NcclComm comm, CudaStream stream) {
  auto* data = static_cast<std::byte*>(values);
  return Collective("ncclAllReduce", comm, stream,
                    {.kind = CollectiveKind::kSum, .from = data, .to = data, .bytes = 8 * count});
}

NcclResult AllGather(const void* mine, void* all, size_t bytes, NcclComm comm, CudaStream stream) {
  return Collective("ncclAllGather", comm, stream,
                    {.kind = CollectiveKind::kGather,
                     .from = static_cast<const std::byte*>(mine),
                     .to = static_cast<std::byte*>(all),
                     .bytes = bytes});
}

NcclResult Broadcast(void* values, size_t bytes, int root, NcclComm comm, CudaStream stream) {
  auto* data = static_cast<std::byte*>(values);
  return Collective(
      "ncclBroadcast", comm, stream,
      {.kind = CollectiveKind::kBroadcast, .from = data, .to = data, .bytes = bytes, .root = root});
}

const char* ErrorString(NcclResult result) {
  switch (result) {
    case NcclResult::kSuccess:
      return "no error";
    case NcclResult::kUnhandledCudaError:
      return "unhandled cuda error";
    case NcclResult::kSystemError:
      return "unhandled system error";
    case NcclResult::kInternalError:
      return "internal error";
    case NcclResult::kInvalidArgument:
      return "invalid argument";
    case NcclResult::kInvalidUsage:
      return "invalid usage";
    case NcclResult::kRemoteError:
      return "remote process exited or there was a network error";
    case NcclResult::kInProgress:
      return "in progress";
  }
  return "?";
}

const char* LastError(NcclComm) { return "the stand-in has no more to say"; }

CudaResult SetDevice(int device) {
  current_device = device;
  return kCudaSuccess;
}

Stream& StreamOf(CudaStream stream) {
  return stream == nullptr ? TheWorld().default_stream : *static_cast<Stream*>(stream);
}

CudaResult StreamCreate(CudaStream* stream) {
  World& world = TheWorld();
  const Lock lock(world.mu);
  Stream& made = world.streams.emplace_back();
  made.device = current_device;
  *stream = &made;
  return kCudaSuccess;
}

CudaResult StreamDestroy(CudaStream stream) {
  const Lock lock(TheWorld().mu);
  CheckDevice(StreamOf(stream).device, "cudaStreamDestroy");
  if (!StreamOf(stream).work.empty()) Misuse("cudaStreamDestroy with work on the stream");
  return kCudaSuccess;
}

CudaResult EventCreate(CudaEvent* event) {
  World& world = TheWorld();
  const Lock lock(world.mu);
  Event& made = world.events.emplace_back();
  made.device = current_device;
  *event = &made;
  return kCudaSuccess;
}

CudaResult EventDestroy(CudaEvent event) {
  const Lock lock(TheWorld().mu);
  CheckDevice(static_cast<Event*>(event)->device, "cudaEventDestroy");
  return kCudaSuccess;
}

CudaResult EventRecord(CudaEvent handle, CudaStream stream) {
  const Lock lock(TheWorld().mu);
  auto* event = static_cast<Event*>(handle);
  CheckDevice(event->device, "cudaEventRecord");
  event->stream = &StreamOf(stream);
  event->after = event->stream->queued;
  return kCudaSuccess;
}

CudaResult EventQuery(CudaEvent handle) {
  Lock lock(TheWorld().mu);
  auto* event = static_cast<Event*>(handle);
  CheckDevice(event->device, "cudaEventQuery");
  Device& device = TheWorld().devices[event->device];
  if (device.query_hangs) Hang(lock, event->device);
  if (device.device_error || device.released) return kCudaError;
  Advance(*event->stream);
  return event->stream->finished >= event->after ? kCudaSuccess : kCudaNotReady;
}

CudaResult MemcpyAsync(void* to, const void* from, size_t bytes, CudaStream stream) {
  const Lock lock(TheWorld().mu);
  CheckDevice(StreamOf(stream).device, "cudaMemcpyAsync");
  if (!StreamOf(stream).work.empty()) Misuse("a copy that would wait for a collective");
  std::memcpy(to, from, bytes);
  return kCudaSuccess;
}

const char* CudaErrorString(CudaResult result) {
  return result == kCudaError ? "unspecified launch failure" : "no error";
}

}  // namespace

const NcclApi& NcclStandIn() {
  static constexpr NcclApi kApi{.get_unique_id = GetUniqueId,
                                .init_rank = InitRank,
                                .get_async_error = GetAsyncError,
                                .finalize = Finalize,
                                .destroy = Destroy,
                                .abort = AbortComm,
                                .sum_int64 = SumInt64,
                                .all_gather = AllGather,
                                .broadcast = Broadcast,
                                .error_string = ErrorString,
                                .last_error = LastError,
                                .set_device = SetDevice,
                                .stream_create = StreamCreate,
                                .stream_destroy = StreamDestroy,
                                .event_create = EventCreate,
                                .event_destroy = EventDestroy,
                                .event_record = EventRecord,
                                .event_query = EventQuery,
                                .memcpy_async = MemcpyAsync,
                                .cuda_error_string = CudaErrorString};
  return kApi;
}

int NewStandInDevice() {
  World& world = TheWorld();
  const Lock lock(world.mu);
  return world.last_device++;
}

void InjectNcclFault(int device, NcclFault fault, int call) {
  World& world = TheWorld();
  const Lock lock(world.mu);
  world.devices[device].faults.insert({fault, call});
}

void ReleaseStandIn(int device) {
  World& world = TheWorld();
  const Lock lock(world.mu);
  world.devices[device].released = true;
  world.changed.notify_all();
}

CudaStream NewBusyStandInStream(int device) {
  World& world = TheWorld();
  const Lock lock(world.mu);
  Stream* stream = &world.streams.emplace_back();
  stream->device = device;
  stream->busy = true;
  Put(*stream, [stream] { return !stream->busy; });
  return stream;
}

void FinishStandInWork(CudaStream stream) {
  const Lock lock(TheWorld().mu);
  StreamOf(stream).busy = false;
}

NcclStandInCounts StandInCounts(int device) {
  const Lock lock(TheWorld().mu);
  return TheWorld().devices[device].counts;
}

std::vector<std::string> NcclStandInMisuse() {
  const Lock lock(TheWorld().mu);
  return TheWorld().misuse;
}

}  // namespace tundra
