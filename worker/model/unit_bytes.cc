#include "worker/model/unit_bytes.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace tundra {
UnitBytes::UnitBytes(const ShardPlan* plan, Device* device, UnitBytesOptions options)
    : plan_(plan),
      device_(device),
      options_(std::move(options)),
      direct_(device->kind() == DeviceKind::kCpu) {}

absl::StatusOr<UnitBytes> UnitBytes::Create(const ShardPlan& plan, Device* device, Ctx ctx,
                                            UnitBytesOptions options) {
  const size_t wanted = options.gather == nullptr ? static_cast<size_t>(plan.shards()) : 1;
  if (options.shard_fds.size() != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("a plan of ", plan.shards(), " shards needs ",
                                                   wanted, " memories here, not ",
                                                   options.shard_fds.size()));
  }
  UnitBytes bytes(&plan, device, std::move(options));
  if (!bytes.network()) {
    ASSIGN_OR_RETURN(bytes.mapped_, MappedBase::Map(plan, bytes.options_.shard_fds));
    if (!bytes.direct_ && plan.shards() == 1) {
      RETURN_IF_ERROR(bytes.Keep(ctx, {bytes.mapped_.unit(plan.units()[0]), plan.shard_bytes()}));
    }
    return bytes;
  }
  ASSIGN_OR_RETURN(bytes.own_, MappedShard::Map(bytes.options_.shard_fds[0], plan.shard_bytes()));
  if (bytes.options_.gather_on_device) {
    if (plan.has_half()) {
      return absl::UnimplementedError(
          "an f16 base can't be sharded over GPUs that gather in their own memory; convert it to "
          "bf16, use shards: 1, or give workers --collective gloo");
    }
    RETURN_IF_ERROR(bytes.Keep(ctx, bytes.own_.bytes()));
  }
  return bytes;
}

absl::Status UnitBytes::Keep(Ctx ctx, std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(kept_, device_->Allocate(bytes.size()));
  RETURN_IF_ERROR(device_->CopyIn(ctx, kept_.data(), bytes.data(), bytes.size()));
  return device_->Synchronize(ctx);
}

const std::byte* UnitBytes::HostAddress(int unit) const {
  TUNDRA_CHECK(!network());
  return mapped_.unit(plan_->units()[static_cast<size_t>(unit)]);
}

absl::Status UnitBytes::Grow(Buffer& buffer) const {
  if (buffer.size() >= plan_->largest_unit_bytes()) return absl::OkStatus();
  buffer.Reset();
  ASSIGN_OR_RETURN(buffer, device_->Allocate(plan_->largest_unit_bytes()));
  return absl::OkStatus();
}

absl::StatusOr<UnitBytes::Unit> UnitBytes::Read(int index, Ctx ctx, Buffer& buffer) {
  const tundra::Unit& unit = plan_->units()[static_cast<size_t>(index)];
  if (network()) return Gather(unit, index, ctx, buffer);
  const std::byte* host = mapped_.unit(unit);
  if (direct_) return Unit{host, host};
  if (kept_.size() > 0) {
    return Unit{static_cast<const std::byte*>(kept_.data()) + unit.offset_in_shard, host};
  }
  RETURN_IF_ERROR(Grow(buffer));
  const uint64_t total = unit.slice_bytes * static_cast<uint64_t>(plan_->shards());
  RETURN_IF_ERROR(device_->CopyIn(ctx, buffer.data(), host, total));
  return Unit{static_cast<const std::byte*>(buffer.data()), host};
}

absl::StatusOr<UnitBytes::Unit> UnitBytes::Gather(const tundra::Unit& unit, int index, Ctx ctx,
                                                  Buffer& buffer) {
  RETURN_IF_ERROR(Grow(buffer));
  auto* const on_device = static_cast<std::byte*>(buffer.data());
  const uint64_t total = unit.slice_bytes * static_cast<uint64_t>(plan_->shards());
  std::span<const std::byte> mine = own_.slice(unit);
  std::span<std::byte> all(on_device, total);
  const bool staged = !direct_ && !options_.gather_on_device;
  if (options_.gather_on_device) {
    mine = {static_cast<const std::byte*>(kept_.data()) + unit.offset_in_shard, unit.slice_bytes};
  } else if (staged) {
    staging_.resize(plan_->largest_unit_bytes());
    all = {staging_.data(), total};
  }
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(
      Annotate(options_.gather(ctx.stream, mine, all), "gathering unit ", index, " of the base"));
  gather_bytes_ += total - unit.slice_bytes;
  gather_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (staged) {
    RETURN_IF_ERROR(device_->CopyIn(ctx, on_device, all.data(), total));
    // The next gather writes the same host memory.
    RETURN_IF_ERROR(device_->Synchronize(ctx));
  }
  return Unit{on_device, options_.gather_on_device ? nullptr : all.data()};
}

}  // namespace tundra
