// The pump of an NCCL group: the one thread that drives the star and touches the
// communicators. See nccl_group.h.
#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/collective/nccl_group.h"

namespace tundra::internal {
namespace {

using namespace std::chrono_literals;

// While the device works: looks at once, then with pauses, so that short calls are
// quick and long ones cost no core.
constexpr int64_t kEagerPolls = 500;
constexpr auto kPause = 20us;
// While nothing is under way: how often communicators are asked for their health.
constexpr auto kHealthInterval = 500ms;
// For the news of a failure to get out; peers learn of it from the closed
// connection as well.
constexpr auto kLastWords = 200ms;

bool OnDevice(const NcclCall& call) {
  return !call.on_host && call.kind != CollectiveKind::kBarrier;
}

// Whose bytes are combined on the hosts: the star carries them.
bool ByStar(const NcclCall& call) {
  return call.on_host || call.kind == CollectiveKind::kMaxFloat ||
         call.kind == CollectiveKind::kMaxDouble || call.kind == CollectiveKind::kBarrier;
}

// What a rank brings to a call that the star carries.
size_t Brought(const StarHeader& call, int rank) {
  const auto kind = static_cast<CollectiveKind>(call.kind);
  if (kind == CollectiveKind::kBarrier) return 0;
  if (kind == CollectiveKind::kBroadcast && rank != call.root) return 0;
  return call.bytes;
}

bool SameCall(const StarHeader& a, const StarHeader& b) {
  return a.number == b.number && a.kind == b.kind && a.root == b.root && a.on_host == b.on_host &&
         a.bytes == b.bytes;
}

std::string Describe(const StarMessage& arrival) {
  const StarHeader& call = arrival.header;
  return absl::StrCat("rank ", arrival.from, " calls ",
                      KindName(static_cast<CollectiveKind>(call.kind)), " of ", call.bytes,
                      " bytes", call.on_host != 0 ? " on the host" : "", ", root ", call.root,
                      ", as call ", call.number, " of its channel");
}

}  // namespace

void NcclGroup::Pump(const std::vector<NcclUniqueId>& ids) {
  if (const absl::Status opened = Open(ids); opened.ok()) {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      ready_ = true;
      changed_.notify_all();
    }
    while (alive()) {
      active_ = TakeCalls();
      bool device = false, launched = false;
      for (int channel = 0; channel < kChannels; ++channel) {
        const auto& active = active_[static_cast<size_t>(channel)];
        const std::shared_ptr<NcclCall> call = active;
        if (call == nullptr) continue;
        Step(channel, *call);
        if (active == nullptr) continue;  // done
        device = device || (call->stage != Stage::kArrived && call->stage != Stage::kFlushing);
        launched = launched || call->stage > Stage::kArrived;
      }
      Launch();
      // A peer that has closed had finished its calls; those go on here to their end.
      if (!leaving_.ok() && !launched) break;
      ++polls_;
      if (device) {
        ReadStar(polls_ < kEagerPolls ? 0us : kPause);
      } else {
        ReadStar(kHealthInterval);
        CheckComms();
      }
    }
  } else {
    Fail(opened);
  }
  Leave();
}

bool NcclGroup::alive() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return status_.ok() && !closing_;
}

std::array<std::shared_ptr<NcclCall>, kChannels> NcclGroup::TakeCalls() {
  const std::lock_guard<std::mutex> lock(mu_);
  std::array<std::shared_ptr<NcclCall>, kChannels> calls;
  for (size_t c = 0; c < calls.size(); ++c) {
    if (lanes_[c].call != nullptr && !lanes_[c].call->done) calls[c] = lanes_[c].call;
  }
  return calls;
}

absl::Status NcclGroup::Nccl(NcclResult result, const char* what, NcclComm comm) const {
  if (result == NcclResult::kSuccess || result == NcclResult::kInProgress) return absl::OkStatus();
  const std::string detail = api_.last_error(comm);
  return absl::UnavailableError(absl::StrCat("nccl: ", what, " at rank ", options_.rank, ": ",
                                             api_.error_string(result), detail.empty() ? "" : ": ",
                                             detail));
}

absl::Status NcclGroup::Cuda(CudaResult result, const char* what) const {
  if (result == kCudaSuccess || result == kCudaNotReady) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cuda: ", what, " at rank ", options_.rank,
                                             ", device ", options_.device, ": ",
                                             api_.cuda_error_string(result)));
}

absl::Status NcclGroup::Open(const std::vector<NcclUniqueId>& ids) {
  RETURN_IF_ERROR(Cuda(api_.set_device(options_.device), "cudaSetDevice"));
  auto id = ids.begin();
  // One after the other, in the same order on every rank.
  for (size_t c = 0; c < lanes_.size(); ++c) {
    Lane& lane = lanes_[c];
    RETURN_IF_ERROR(Cuda(api_.stream_create(&lane.stream), "cudaStreamCreate"));
    RETURN_IF_ERROR(Cuda(api_.event_create(&lane.event), "cudaEventCreate"));
    if (options_.device_channels[c]) RETURN_IF_ERROR(OpenComm(lane, *id++));
  }
  return absl::OkStatus();
}

absl::Status NcclGroup::OpenComm(Lane& lane, const NcclUniqueId& id) {
  NcclResult result = api_.init_rank(&lane.comm, options_.size, id, options_.rank);
  while (result == NcclResult::kSuccess || result == NcclResult::kInProgress) {
    RETURN_IF_ERROR(
        Nccl(api_.get_async_error(lane.comm, &result), "ncclCommGetAsyncError", lane.comm));
    if (result == NcclResult::kSuccess) return absl::OkStatus();
    if (!alive()) {
      return absl::UnavailableError("nccl: connect: closed before the communicators were there");
    }
    ReadStar(1ms);
  }
  return Nccl(result, "ncclCommInitRankConfig", lane.comm);
}

// Takes the call on by what can be done without waiting.
void NcclGroup::Step(int channel, NcclCall& call) {
  switch (call.stage) {
    case Stage::kPosted: {
      polls_ = 0;
      if (!OnDevice(call)) return Arrive(channel, call);
      Lane& lane = lanes_[static_cast<size_t>(channel)];
      const absl::Status recorded = Cuda(api_.event_record(lane.event, call.stream),
                                         "cudaEventRecord on the caller's stream");
      if (!recorded.ok()) return Fail(recorded);
      call.stage = Stage::kDraining;
      return Drain(channel, call);
    }
    case Stage::kDraining:
      return Drain(channel, call);
    case Stage::kRunning:
      return Watch(channel, call);
    case Stage::kFlushing:
      return Finish(channel, call);
    case Stage::kArrived:
    case Stage::kQueued:
    case Stage::kEnqueuing:
      return;
  }
}

// Comes to the meeting only when the stream's work is done: then a kernel that is
// launched can start at once, everywhere.
void NcclGroup::Drain(int channel, NcclCall& call) {
  Lane& lane = lanes_[static_cast<size_t>(channel)];
  const CudaResult result = api_.event_query(lane.event);
  if (result == kCudaNotReady) return;
  absl::Status status = Cuda(result, "work before the call");
  if (status.ok() && ByStar(call) && call.staging.size() < call.bytes) {
    // What the star carries comes to the host first: the event is the copy's from here on.
    call.staging.resize(call.bytes);
    status = Cuda(api_.memcpy_async(call.staging.data(), call.data, call.bytes, lane.stream),
                  "cudaMemcpyAsync to the host");
    if (status.ok()) status = Cuda(api_.event_record(lane.event, lane.stream), "cudaEventRecord");
    if (status.ok()) return;
  }
  if (!status.ok()) return Fail(status);
  Arrive(channel, call);
}

void NcclGroup::Arrive(int channel, NcclCall& call) {
  Lane& lane = lanes_[static_cast<size_t>(channel)];
  call.stage = Stage::kArrived;
  const StarHeader header{.type = StarType::kArrive,
                          .channel = channel,
                          .kind = static_cast<int32_t>(call.kind),
                          .root = call.root,
                          .on_host = call.on_host ? 1 : 0,
                          .number = lane.calls++,
                          .bytes = call.bytes};
  const std::byte* from = call.data;
  if (OnDevice(call)) from = call.staging.data();
  if (call.kind == CollectiveKind::kGather) from = call.mine;
  const size_t bytes = ByStar(call) ? Brought(header, options_.rank) : 0;
  if (options_.rank != 0) return star_->Send(0, header, from, bytes);
  StarMessage message{.from = 0, .header = header, .payload = {}};
  if (bytes > 0) message.payload.assign(from, from + bytes);
  HubArrive(channel, std::move(message));
}

// Launches what rank 0 has said go for, one at a time: the next when NCCL has put
// the last one on its stream.
void NcclGroup::Launch() {
  while (!launches_.empty()) {
    const int channel = launches_.front();
    Lane& lane = lanes_[static_cast<size_t>(channel)];
    NcclCall& call = *active_[static_cast<size_t>(channel)];
    NcclResult result = NcclResult::kSuccess;
    if (call.stage == Stage::kQueued) {
      {
        const std::lock_guard<std::mutex> lock(mu_);
        call.launched = true;
      }
      const char* what = "ncclAllReduce";
      if (call.kind == CollectiveKind::kSum) {
        result = api_.sum_int64(call.data, call.bytes / 8, lane.comm, lane.stream);
      } else if (call.kind == CollectiveKind::kGather) {
        what = "ncclAllGather";
        result = api_.all_gather(call.mine, call.data, call.bytes, lane.comm, lane.stream);
      } else {
        what = "ncclBroadcast";
        result = api_.broadcast(call.data, call.bytes, call.root, lane.comm, lane.stream);
      }
      if (const absl::Status status = Nccl(result, what, lane.comm); !status.ok()) {
        return Fail(status);
      }
      call.stage = Stage::kEnqueuing;
    }
    absl::Status status =
        Nccl(api_.get_async_error(lane.comm, &result), "ncclCommGetAsyncError", lane.comm);
    if (status.ok() && result == NcclResult::kInProgress) return;
    if (status.ok()) status = Nccl(result, KindName(call.kind), lane.comm);
    if (status.ok()) status = Cuda(api_.event_record(lane.event, lane.stream), "cudaEventRecord");
    if (!status.ok()) return Fail(status);
    call.stage = Stage::kRunning;
    polls_ = 0;
    launches_.pop_front();
  }
}

void NcclGroup::Watch(int channel, NcclCall& call) {
  Lane& lane = lanes_[static_cast<size_t>(channel)];
  // In this order: a kernel that NCCL has given up ends like one that has finished,
  // but the error is set before.
  const CudaResult past = api_.event_query(lane.event);
  absl::Status status;
  if (lane.comm != nullptr) {
    NcclResult result = NcclResult::kSuccess;
    status = Nccl(api_.get_async_error(lane.comm, &result), "ncclCommGetAsyncError", lane.comm);
    if (status.ok()) status = Nccl(result, KindName(call.kind), lane.comm);
  }
  if (status.ok()) status = Cuda(past, KindName(call.kind));
  if (!status.ok()) return Fail(status);
  if (past == kCudaSuccess) Finish(channel, call);
}

// Rank 0's call is not done before its words to the others are out, so that they
// arrive even if it goes away next.
void NcclGroup::Finish(int channel, NcclCall& call) {
  call.stage = Stage::kFlushing;
  if (!star_->flushed()) return;
  polls_ = 0;
  active_[static_cast<size_t>(channel)] = nullptr;
  const std::lock_guard<std::mutex> lock(mu_);
  call.done = true;
  changed_.notify_all();
}

void NcclGroup::CheckComms() {
  for (const Lane& lane : lanes_) {
    if (lane.comm == nullptr) continue;
    NcclResult result = NcclResult::kSuccess;
    absl::Status status =
        Nccl(api_.get_async_error(lane.comm, &result), "ncclCommGetAsyncError", lane.comm);
    if (status.ok()) status = Nccl(result, "between calls", lane.comm);
    if (!status.ok()) return Fail(status);
  }
}

void NcclGroup::ReadStar(std::chrono::nanoseconds wait) {
  std::vector<StarMessage> messages;
  int lost = 0;
  std::string why;
  const bool connected = star_->Poll(wait, &messages, &lost, &why);
  for (StarMessage& message : messages) Handle(std::move(message));
  if (!connected && leaving_.ok()) Fail(absl::UnavailableError(absl::StrCat("nccl: ", why)));
}

void NcclGroup::Handle(StarMessage message) {
  const StarHeader& header = message.header;
  const bool hub = options_.rank == 0;
  switch (header.type) {
    case StarType::kArrive:
      if (!hub || header.channel < 0 || header.channel >= kChannels) break;
      return HubArrive(header.channel, std::move(message));
    case StarType::kGo:
      if (hub || header.channel < 0 || header.channel >= kChannels) break;
      return Go(header.channel, message.payload);
    case StarType::kFail: {
      const std::string why(reinterpret_cast<const char*>(message.payload.data()),
                            message.payload.size());
      const bool disagree = header.kind == static_cast<int>(absl::StatusCode::kFailedPrecondition);
      const std::lock_guard<std::mutex> lock(mu_);
      if (!status_.ok()) return;
      origin_ = header.root;
      origin_why_ = why;
      return FailLocked(absl::Status(
          disagree ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kUnavailable,
          absl::StrCat("rank ", header.root, " left the group: ", why)));
    }
    case StarType::kBye:
      if (leaving_.ok()) {
        leaving_ = absl::UnavailableError(
            absl::StrCat("rank ", header.root, " left the group: the collective was closed"));
      }
      if (hub) star_->SendToAll(header, nullptr, 0);
      return;
    case StarType::kHello:
      break;
  }
  Fail(absl::UnavailableError(
      absl::StrCat("nccl: rank ", message.from, " sent a message that is not for this rank")));
}

void NcclGroup::HubArrive(int channel, StarMessage message) {
  Lane& lane = lanes_[static_cast<size_t>(channel)];
  const auto from = static_cast<size_t>(message.from);
  for (const auto& other : lane.arrivals) {
    if (!other.has_value() || SameCall(other->header, message.header)) continue;
    return Fail(absl::FailedPreconditionError(
        absl::StrCat("ranks disagree: ", Describe(*other), "; ", Describe(message))));
  }
  if (lane.arrivals[from].has_value()) {
    return Fail(absl::UnavailableError(
        absl::StrCat("nccl: rank ", from, " came twice to a call on one channel")));
  }
  lane.arrivals[from] = std::move(message);
  if (++lane.arrived < options_.size) return;
  if (const absl::Status status = HubGo(channel); !status.ok()) Fail(status);
}

// All have come: works out what the star carries, and says go.
absl::Status NcclGroup::HubGo(int channel) {
  Lane& lane = lanes_[static_cast<size_t>(channel)];
  const StarHeader call = lane.arrivals[0]->header;
  const auto kind = static_cast<CollectiveKind>(call.kind);
  std::vector<std::byte> result;
  if (ByStar(*active_[static_cast<size_t>(channel)])) {
    for (int rank = 0; rank < options_.size; ++rank) {
      std::vector<std::byte>& brought = lane.arrivals[static_cast<size_t>(rank)]->payload;
      if (brought.size() != Brought(call, rank)) {
        return absl::UnavailableError(absl::StrCat("nccl: rank ", rank, " brought ", brought.size(),
                                                   " bytes to ", KindName(kind)));
      }
      if (kind == CollectiveKind::kGather) {
        result.insert(result.end(), brought.begin(), brought.end());
      } else if (result.empty()) {
        result = std::move(brought);
      } else if (!brought.empty()) {
        Combine(kind, result.data(), brought.data(), call.bytes / ElementBytes(kind));
      }
    }
    // A lone rank's NaN becomes the same NaN as everyone's; a sum must not do this.
    if (options_.size == 1 && kind != CollectiveKind::kSum) {
      Combine(kind, result.data(), result.data(), result.size() / ElementBytes(kind));
    }
  }
  for (auto& arrival : lane.arrivals) arrival.reset();
  lane.arrived = 0;
  star_->SendToAll({.type = StarType::kGo, .channel = channel}, result.data(), result.size());
  Go(channel, result);
  return absl::OkStatus();
}

// Rank 0 has said go: all ranks are in the call.
void NcclGroup::Go(int channel, const std::vector<std::byte>& payload) {
  Lane& lane = lanes_[static_cast<size_t>(channel)];
  NcclCall* call = active_[static_cast<size_t>(channel)].get();
  if (call == nullptr || call->stage != Stage::kArrived) {
    return Fail(absl::UnavailableError("nccl: rank 0 said go where this rank is in no call"));
  }
  polls_ = 0;
  if (!ByStar(*call)) {
    // No bytes, no launch: all ranks agree on that.
    if (call->bytes == 0) return Finish(channel, *call);
    call->stage = Stage::kQueued;
    launches_.push_back(channel);
    return;
  }
  size_t expected = call->kind == CollectiveKind::kBarrier ? 0 : call->bytes;
  if (call->kind == CollectiveKind::kGather) expected *= static_cast<size_t>(options_.size);
  if (payload.size() != expected) {
    return Fail(absl::UnavailableError(
        absl::StrCat("nccl: rank 0 sent ", payload.size(), " bytes for ", KindName(call->kind))));
  }
  if (!OnDevice(*call) || expected == 0) {
    if (expected > 0) std::memcpy(call->data, payload.data(), expected);
    return Finish(channel, *call);
  }
  call->staging = payload;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    call->launched = true;
  }
  absl::Status status =
      Cuda(api_.memcpy_async(call->data, call->staging.data(), expected, lane.stream),
           "cudaMemcpyAsync");
  if (status.ok()) status = Cuda(api_.event_record(lane.event, lane.stream), "cudaEventRecord");
  if (!status.ok()) return Fail(status);
  call->stage = Stage::kRunning;
}

// The end of the pump: tells the others, and lets go of everything.
void NcclGroup::Leave() {
  StarHeader header{.type = StarType::kBye, .root = options_.rank};
  std::string why;
  bool clean = false;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    clean = status_.ok();
    if (!clean) {
      header.type = StarType::kFail;
      header.kind = static_cast<int32_t>(status_.code());
      header.root = origin_;
      why = origin_why_;
    } else {
      // From now on nobody starts the undertaker but Free.
      status_ = leaving_.ok() ? absl::UnavailableError("the collective was closed") : leaving_;
      changed_.notify_all();
    }
  }
  star_->SendToAll(header, why.data(), why.size());
  star_->Flush(kLastWords);
  star_->Shutdown();
  active_.fill(nullptr);
  {
    const std::lock_guard<std::mutex> lock(mu_);
    pump_left_ = true;
    changed_.notify_all();
  }
  if (clean) Free();
}

// After a clean end no rank has work in flight here, but peers may still read what
// this rank has sent: finalize waits for them, abort would not.
void NcclGroup::Free() {
  if (FinalizeAll()) return FreeCuda();
  Undertake();
}

// False when a communicator has to be aborted instead.
bool NcclGroup::FinalizeAll() {
  const auto end = Clock::now() + grace_;
  for (Lane& lane : lanes_) {
    if (lane.comm == nullptr) continue;
    NcclResult result = api_.finalize(lane.comm);
    while (result == NcclResult::kSuccess || result == NcclResult::kInProgress) {
      if (api_.get_async_error(lane.comm, &result) != NcclResult::kSuccess) return false;
      if (result == NcclResult::kSuccess) break;
      if (Clock::now() >= end) return false;
      std::this_thread::sleep_for(1ms);
    }
    if (result != NcclResult::kSuccess) return false;
    api_.destroy(lane.comm);
    lane.comm = nullptr;
  }
  return true;
}

}  // namespace tundra::internal
