#include "worker/model/weights.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/model/half.h"

namespace tundra {
namespace {

constexpr uint64_t kAlign = 64;

uint64_t RoundUp(uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

bool IsMatrix(const UnitTensor& tensor) { return tensor.shape.size() == 2; }

// The type that operations see: f16 is widened.
DType SeenType(StoredType type) { return type == StoredType::kBF16 ? DType::kBF16 : DType::kF32; }

ConstView ViewOf(const UnitTensor& tensor, const void* data) {
  const DType type = SeenType(tensor.type);
  if (IsMatrix(tensor)) return ConstView::Matrix(data, type, tensor.shape[0], tensor.shape[1]);
  return ConstView::Vector(data, type, tensor.shape[0]);
}

// Of a clock that never jumps.
using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> WeightSource::Create(const ShardPlan& plan, Ops* ops,
                                                                   WeightSourceOptions options) {
  std::unique_ptr<WeightSource> source(new WeightSource(plan, ops, std::move(options)));
  RETURN_IF_ERROR(source->Init());
  return source;
}

WeightSource::WeightSource(const ShardPlan& plan, Ops* ops, WeightSourceOptions options)
    : plan_(plan), ops_(ops), options_(std::move(options)) {
  keep_ = options_.keep_prepared || plan_.shards() == 1;
}

absl::Status WeightSource::Init() {
  ASSIGN_OR_RETURN(stream_, ops_->device()->CreateStream());
  ASSIGN_OR_RETURN(Arena arena, Arena::Create(ops_->device(), LargestScratchBytes()));
  scratch_ = std::make_unique<Arena>(std::move(arena));
  for (auto& stream : given_back_) {
    ASSIGN_OR_RETURN(stream, ops_->device()->CreateStream());
  }
  ASSIGN_OR_RETURN(UnitBytes bytes,
                   UnitBytes::Create(plan_, ops_->device(), {stream_.get(), scratch_.get()},
                                     {.shard_fds = options_.shard_fds,
                                      .gather = options_.gather,
                                      .gather_on_device = options_.gather_on_device}));
  bytes_ = std::make_unique<UnitBytes>(std::move(bytes));
  absl::MutexLock lock(&mu_);
  stats_.resident_shard_bytes = plan_.shard_bytes();
  return absl::OkStatus();
}

// The most that PrepareWeight takes: a matrix in another type than it is stored in.
size_t WeightSource::LargestScratchBytes() const {
  size_t largest = 0;
  for (const Unit& unit : plan_.units()) {
    for (const UnitTensor& tensor : unit.tensors) {
      if (!IsMatrix(tensor)) continue;
      largest =
          std::max(largest, ops_->PrepareScratchBytes(tensor.shape[0], tensor.shape[1],
                                                      SeenType(tensor.type), options_.precision));
    }
  }
  return largest;
}

WeightSource::~WeightSource() {
  EndPass();
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

const std::byte* WeightSource::ResidentAddress(int unit) const { return bytes_->HostAddress(unit); }

WeightStats WeightSource::stats() const {
  absl::MutexLock lock(&mu_);
  return stats_;
}

absl::Status WeightSource::BeginPass(std::vector<UnitUse> uses, Stream* consumer) {
  absl::MutexLock lock(&mu_);
  TUNDRA_CHECK(!active_) << "a pass is running";
  uses_ = std::move(uses);
  consumer_ = consumer;
  held_ = -1;
  filled_ = 0;
  error_ = absl::OkStatus();
  active_ = true;
  threaded_ =
      !std::all_of(uses_.begin(), uses_.end(), [&](const UnitUse& u) { return IsReady(u); });
  if (threaded_ && !thread_.joinable()) thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

absl::StatusOr<const UnitView*> WeightSource::Next() {
  const Clock::time_point start = Clock::now();
  int held = 0;
  {
    absl::MutexLock lock(&mu_);
    TUNDRA_CHECK(active_ && held_ + 1 < static_cast<int>(uses_.size())) << "no further use";
    if (threaded_) RETURN_IF_ERROR(GiveBack(held_));
    held = ++held_;
    if (threaded_) {
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return filled_ > held_ || !error_.ok();
      };
      mu_.Await(absl::Condition(&ready));
      stats_.wait_seconds += SecondsSince(start);
      if (filled_ <= held_) return error_;
    }
  }
  Slot& slot = slots_[held % 2];
  if (!threaded_) RETURN_IF_ERROR(Fill(uses_[static_cast<size_t>(held)], slot));
  return &slot.view;
}

// Before the slot may be filled anew.
absl::Status WeightSource::GiveBack(int held) {
  if (held < 0) return absl::OkStatus();
  return ops_->device()->Order(consumer_, given_back_[held % 2].get());
}

void WeightSource::EndPass() {
  absl::MutexLock lock(&mu_);
  if (active_ && threaded_) {
    // Both: the consumer may not have got to the last one's successor.
    for (const int held : {held_ - 1, held_}) {
      const absl::Status status = GiveBack(held);
      if (!status.ok() && error_.ok()) error_ = status;
    }
  }
  active_ = false;
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !filling_; };
  mu_.Await(absl::Condition(&idle));
}

void WeightSource::Run() {
  while (true) {
    int index = 0;
    {
      absl::MutexLock lock(&mu_);
      const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        const bool work = active_ && threaded_ && error_.ok() &&
                          filled_ < static_cast<int>(uses_.size()) &&
                          filled_ <= std::max(held_, 0) + 1;
        return stop_ || work;
      };
      mu_.Await(absl::Condition(&wake));
      if (stop_) return;
      filling_ = true;
      index = filled_;
    }
    const absl::Status status = Fill(uses_[static_cast<size_t>(index)], slots_[index % 2]);
    absl::MutexLock lock(&mu_);
    filling_ = false;
    if (status.ok()) {
      ++filled_;
    } else {
      error_ = status;
    }
  }
}

// ---- making one unit ready --------------------------------------------------------

bool WeightSource::WantsPrepared(const UnitUse& use, int tensor, Direction direction) const {
  if (direction == Direction::kForward ? !use.forward : !use.backward) return false;
  const UnitTensor& t =
      plan_.units()[static_cast<size_t>(use.unit)].tensors[static_cast<size_t>(tensor)];
  if (!IsMatrix(t)) return false;
  // Row-major costs nothing in the f32 backward: it is the layout that it wants.
  const bool wide = t.type != StoredType::kBF16 && options_.precision == Precision::kF32;
  if (direction == Direction::kBackward && wide) return false;
  return ops_->PreparedBytes(t.shape[0], t.shape[1], SeenType(t.type), direction,
                             options_.precision) > 0;
}

WeightSource::PreparedKey WeightSource::KeyOf(const UnitUse& use, int tensor,
                                              Direction direction) const {
  return {use.unit, tensor, ops_->prepared_serves_both() ? Direction::kForward : direction};
}

bool WeightSource::IsReady(const UnitUse& use) const {
  if (!bytes_->resident()) return false;
  const Unit& unit = plan_.units()[static_cast<size_t>(use.unit)];
  for (int t = 0; t < static_cast<int>(unit.tensors.size()); ++t) {
    if (unit.tensors[static_cast<size_t>(t)].type == StoredType::kF16 &&
        !kept_wide_.contains({use.unit, t})) {
      return false;
    }
    for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
      if (WantsPrepared(use, t, direction) && !kept_.contains(KeyOf(use, t, direction)))
        return false;
    }
  }
  return true;
}

uint64_t WeightSource::PreparedBytes(const UnitUse& use) const {
  const Unit& unit = plan_.units()[static_cast<size_t>(use.unit)];
  uint64_t total = 0;
  for (int t = 0; t < static_cast<int>(unit.tensors.size()); ++t) {
    const UnitTensor& tensor = unit.tensors[static_cast<size_t>(t)];
    if (tensor.type == StoredType::kF16 && !kept_wide_.contains({use.unit, t})) {
      total += RoundUp(static_cast<uint64_t>(NumElements(tensor.shape)) * sizeof(float));
    }
    for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
      if (!WantsPrepared(use, t, direction) || kept_.contains(KeyOf(use, t, direction))) continue;
      if (direction == Direction::kBackward && ops_->prepared_serves_both() &&
          WantsPrepared(use, t, Direction::kForward)) {
        continue;  // counted
      }
      total += RoundUp(ops_->PreparedBytes(tensor.shape[0], tensor.shape[1], SeenType(tensor.type),
                                           direction, options_.precision));
    }
  }
  return total;
}

absl::Status WeightSource::Grow(Buffer& buffer, uint64_t bytes, uint64_t WeightStats::*counter) {
  if (buffer.size() >= bytes) return absl::OkStatus();
  const uint64_t before = buffer.size();
  buffer.Reset();
  ASSIGN_OR_RETURN(buffer, ops_->device()->Allocate(bytes));
  absl::MutexLock lock(&mu_);
  stats_.*counter += bytes - before;
  return absl::OkStatus();
}

absl::Status WeightSource::Fill(const UnitUse& use, Slot& slot) {
  const Ctx ctx{stream_.get(), scratch_.get()};
  const int place = static_cast<int>(&slot - slots_);
  RETURN_IF_ERROR(ops_->device()->Order(given_back_[place].get(), stream_.get()));
  const uint64_t buffer_before = slot.gathered.size();
  ASSIGN_OR_RETURN(const UnitBytes::Unit bytes, bytes_->Read(use.unit, ctx, slot.gathered));
  const Clock::time_point start = Clock::now();
  RETURN_IF_ERROR(Prepare(use, bytes, slot));
  absl::MutexLock lock(&mu_);
  stats_.prepare_seconds += SecondsSince(start);
  stats_.gathered_buffer_bytes += slot.gathered.size() - buffer_before;
  stats_.gather_bytes = bytes_->gather_bytes();
  stats_.gather_seconds = bytes_->gather_seconds();
  return absl::OkStatus();
}

absl::Status WeightSource::Prepare(const UnitUse& use, const UnitBytes::Unit& bytes, Slot& slot) {
  const Unit& unit = plan_.units()[static_cast<size_t>(use.unit)];
  Buffer* storage = &slot.prepared;
  const uint64_t wanted = PreparedBytes(use);
  if (keep_ && wanted > 0) {
    kept_storage_.emplace_back();
    storage = &kept_storage_.back();
  }
  RETURN_IF_ERROR(Grow(*storage, wanted, &WeightStats::prepared_bytes));
  uint64_t used = 0;
  UnitView view;
  for (int t = 0; t < static_cast<int>(unit.tensors.size()); ++t) {
    ASSIGN_OR_RETURN(const ConstView plain, PlainView(use, t, bytes, *storage, &used));
    view.tensors.push_back(plain);
    view.forward.push_back(FrozenWeight::Plain(plain));
    view.backward.push_back(FrozenWeight::Plain(plain));
    for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
      if (!WantsPrepared(use, t, direction)) continue;
      FrozenWeight weight = view.forward.back();
      const bool shared = direction == Direction::kBackward && ops_->prepared_serves_both() &&
                          weight.layout == FrozenWeight::Layout::kPrepared;
      if (!shared) {
        ASSIGN_OR_RETURN(weight, PrepareOne(use, t, direction, plain, *storage, &used));
      }
      weight.direction = direction;
      (direction == Direction::kForward ? view.forward : view.backward).back() = weight;
    }
  }
  slot.view = std::move(view);
  return ops_->device()->Synchronize({stream_.get(), scratch_.get()});
}

absl::StatusOr<ConstView> WeightSource::PlainView(const UnitUse& use, int tensor,
                                                  const UnitBytes::Unit& bytes, Buffer& storage,
                                                  uint64_t* used) {
  const UnitTensor& t =
      plan_.units()[static_cast<size_t>(use.unit)].tensors[static_cast<size_t>(tensor)];
  if (t.type != StoredType::kF16) return ViewOf(t, bytes.device + t.offset);
  if (const auto it = kept_wide_.find({use.unit, tensor}); it != kept_wide_.end())
    return it->second;
  std::byte* const wide = static_cast<std::byte*>(storage.data()) + *used;
  const int64_t n = NumElements(t.shape);
  const std::span<const uint16_t> half(reinterpret_cast<const uint16_t*>(bytes.host + t.offset),
                                       static_cast<size_t>(n));
  if (ops_->device()->kind() == DeviceKind::kCpu) {
    WidenHalf(half, reinterpret_cast<float*>(wide));
  } else {
    std::vector<float> widened(half.size());
    WidenHalf(half, widened.data());
    const Ctx ctx{stream_.get(), scratch_.get()};
    RETURN_IF_ERROR(
        ops_->device()->CopyIn(ctx, wide, widened.data(), widened.size() * sizeof(float)));
    RETURN_IF_ERROR(ops_->device()->Synchronize(ctx));
  }
  *used += RoundUp(static_cast<uint64_t>(n) * sizeof(float));
  const ConstView view = ViewOf(t, wide);
  if (keep_) kept_wide_[{use.unit, tensor}] = view;
  return view;
}

absl::StatusOr<FrozenWeight> WeightSource::PrepareOne(const UnitUse& use, int tensor,
                                                      Direction direction, ConstView plain,
                                                      Buffer& storage, uint64_t* used) {
  const PreparedKey key = KeyOf(use, tensor, direction);
  if (const auto it = kept_.find(key); it != kept_.end()) return it->second;
  const size_t size =
      ops_->PreparedBytes(plain.rows, plain.cols, plain.dtype, direction, options_.precision);
  ASSIGN_OR_RETURN(
      const FrozenWeight weight,
      ops_->PrepareWeight({stream_.get(), scratch_.get()}, plain, direction, options_.precision,
                          static_cast<std::byte*>(storage.data()) + *used, size));
  *used += RoundUp(size);
  if (keep_) kept_[key] = weight;
  return weight;
}

}  // namespace tundra
