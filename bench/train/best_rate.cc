#include "bench/train/best_rate.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "common/status.h"

namespace tundra::bench {
namespace {

using Clock = std::chrono::steady_clock;

// Small, so that results which are added to stay finite over many repetitions.
constexpr float kScale = 1e-3F;
constexpr int kLeastRepetitions = 3;

size_t Floats(int64_t count) {
  return static_cast<size_t>(count) * sizeof(float) + Arena::kAlignment;
}

// Operands and scratch of one shape's calls, freed with it.
class Bed {
 public:
  Bed(Ops* ops, Stream* stream) : ops_(ops), device_(ops->device()), stream_(stream) {}

  absl::Status NeedScratch(size_t bytes) {
    ASSIGN_OR_RETURN(Arena arena, Arena::Create(device_, ops_->workspace_bytes() + bytes +
                                                             8 * Arena::kAlignment));
    scratch_ = std::make_unique<Arena>(std::move(arena));
    return absl::OkStatus();
  }
  Ctx ctx() { return {stream_, scratch_.get()}; }
  Ops& ops() { return *ops_; }

  absl::StatusOr<View> Random(int64_t rows, int64_t cols) {
    std::vector<float> values(static_cast<size_t>(rows * cols));
    std::minstd_rand engine(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& value : values) value = uniform(engine);
    return Upload(values.data(), DType::kF32, rows, cols);
  }
  absl::StatusOr<View> Upload(const void* host, DType dtype, int64_t rows, int64_t cols) {
    const size_t bytes = static_cast<size_t>(rows * cols) * DTypeSize(dtype);
    ASSIGN_OR_RETURN(Buffer buffer, device_->Allocate(bytes));
    const View view = buffer.Matrix(dtype, rows, cols);
    buffers_.push_back(std::move(buffer));
    RETURN_IF_ERROR(device_->CopyIn(ctx(), view.data, host, bytes));
    RETURN_IF_ERROR(device_->Synchronize(ctx()));
    return view;
  }

  // Seconds of the fastest of the calls that `each` allows.
  template <typename Call>
  absl::StatusOr<double> Fastest(absl::Duration each, const Call& call) {
    RETURN_IF_ERROR(call());  // the first one may prepare what the others use
    const double limit = absl::ToDoubleSeconds(each);
    double total = 0, fastest = 0;
    for (int i = 0; i < kLeastRepetitions || total < limit; ++i) {
      RETURN_IF_ERROR(device_->Synchronize(ctx()));
      const Clock::time_point start = Clock::now();
      RETURN_IF_ERROR(call());
      RETURN_IF_ERROR(device_->Synchronize(ctx()));
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      fastest = i == 0 ? seconds : std::min(fastest, seconds);
      total += seconds;
    }
    return fastest;
  }

 private:
  Ops* const ops_;
  Device* const device_;
  Stream* const stream_;
  std::unique_ptr<Arena> scratch_;
  std::vector<Buffer> buffers_;
};

absl::StatusOr<double> RepeatFrozen(Bed& bed, const ProductShape& shape, const ProductUse& use,
                                    absl::Duration each) {
  RETURN_IF_ERROR(
      bed.NeedScratch(bed.ops().MatmulScratchBytes(shape.t, use.weight, use.precision)));
  ASSIGN_OR_RETURN(const View out_side, bed.Random(shape.t, shape.n));
  ASSIGN_OR_RETURN(const View in_side, bed.Random(shape.t, shape.k));
  const bool forward =
      shape.kind == ProductKind::kFrozenForward || shape.kind == ProductKind::kOutputForward;
  return bed.Fastest(each, [&] {
    return forward ? bed.ops().FrozenMatmul(bed.ctx(), in_side, use.weight, use.precision,
                                            Write::kSet, out_side)
                   : bed.ops().FrozenMatmulBackward(bed.ctx(), out_side, use.weight, use.precision,
                                                    Write::kSet, in_side);
  });
}

// LoraDown and its backward: N is the rank.
absl::StatusOr<double> RepeatLoraDown(Bed& bed, const ProductShape& shape, absl::Duration each) {
  RETURN_IF_ERROR(bed.NeedScratch(0));
  ASSIGN_OR_RETURN(const View x, bed.Random(shape.t, shape.k));
  ASSIGN_OR_RETURN(const View a, bed.Random(shape.n, shape.k));
  ASSIGN_OR_RETURN(const View h, bed.Random(shape.t, shape.n));
  if (shape.kind == ProductKind::kLoraDown) {
    return bed.Fastest(each, [&] { return bed.ops().LoraDown(bed.ctx(), x, a, h); });
  }
  ASSIGN_OR_RETURN(const View da, bed.Random(shape.n, shape.k));
  View dx = View::None();
  if (shape.kind == ProductKind::kLoraDownBackward) {
    ASSIGN_OR_RETURN(dx, bed.Random(shape.t, shape.k));
  }
  return bed.Fastest(each, [&] { return bed.ops().LoraDownBackward(bed.ctx(), h, x, a, da, dx); });
}

// LoraUp and its backward: K is the rank.
absl::StatusOr<double> RepeatLoraUp(Bed& bed, const ProductShape& shape, absl::Duration each) {
  RETURN_IF_ERROR(bed.NeedScratch(Floats(shape.n * shape.k)));
  ASSIGN_OR_RETURN(const View h, bed.Random(shape.t, shape.k));
  ASSIGN_OR_RETURN(const View b, bed.Random(shape.n, shape.k));
  ASSIGN_OR_RETURN(const View y, bed.Random(shape.t, shape.n));
  if (shape.kind == ProductKind::kLoraUp) {
    return bed.Fastest(each, [&] { return bed.ops().LoraUp(bed.ctx(), h, b, kScale, y); });
  }
  ASSIGN_OR_RETURN(const View dh, bed.Random(shape.t, shape.k));
  ASSIGN_OR_RETURN(const View db, bed.Random(shape.n, shape.k));
  return bed.Fastest(each,
                     [&] { return bed.ops().LoraUpBackward(bed.ctx(), y, h, b, kScale, dh, db); });
}

absl::StatusOr<double> RepeatAttention(Bed& bed, const ProductShape& shape, const ProductUse& use,
                                       absl::Duration each) {
  RETURN_IF_ERROR(bed.NeedScratch(bed.ops().AttentionScratchBytes(shape.t, use.attention)));
  PackedRows rows;
  ASSIGN_OR_RETURN(rows.offsets, bed.Upload(use.offsets.data(), DType::kI32, 1,
                                            static_cast<int64_t>(use.offsets.size())));
  rows.num_rows = static_cast<int>(use.offsets.size()) - 1;
  rows.max_length = use.max_length;
  ASSIGN_OR_RETURN(const View q, bed.Random(shape.t, shape.n));
  ASSIGN_OR_RETURN(const View k, bed.Random(shape.t, shape.k));
  ASSIGN_OR_RETURN(const View v, bed.Random(shape.t, shape.k));
  ASSIGN_OR_RETURN(const View out, bed.Random(shape.t, shape.n));
  ASSIGN_OR_RETURN(const View lse, bed.Random(shape.t, use.attention.num_heads));
  const auto forward = [&] {
    return bed.ops().Attention(bed.ctx(), rows, use.attention, q, k, v, out, lse);
  };
  if (shape.kind == ProductKind::kAttention) return bed.Fastest(each, forward);
  RETURN_IF_ERROR(forward());
  ASSIGN_OR_RETURN(const View dq, bed.Random(shape.t, shape.n));
  ASSIGN_OR_RETURN(const View dk, bed.Random(shape.t, shape.k));
  ASSIGN_OR_RETURN(const View dv, bed.Random(shape.t, shape.k));
  return bed.Fastest(each, [&] {
    return bed.ops().AttentionBackward(bed.ctx(), rows, use.attention, q, q, k, v, out, lse, dq, dk,
                                       dv);
  });
}

absl::StatusOr<double> Repeat(Bed& bed, const ProductShape& shape, const ProductUse& use,
                              absl::Duration each) {
  switch (shape.kind) {
    case ProductKind::kFrozenForward:
    case ProductKind::kFrozenBackward:
    case ProductKind::kOutputForward:
    case ProductKind::kOutputBackward:
      return RepeatFrozen(bed, shape, use, each);
    case ProductKind::kLoraDown:
    case ProductKind::kLoraDownBackward:
    case ProductKind::kLoraDownBackwardA:
      return RepeatLoraDown(bed, shape, each);
    case ProductKind::kLoraUp:
    case ProductKind::kLoraUpBackward:
      return RepeatLoraUp(bed, shape, each);
    case ProductKind::kAttention:
    case ProductKind::kAttentionBackward:
      return RepeatAttention(bed, shape, use, each);
  }
  return absl::InternalError("no such product");
}

}  // namespace

absl::StatusOr<std::map<ProductShape, double>> MeasureBestSeconds(Ops* ops, const Profile& profile,
                                                                  const BestRateOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, ops->device()->CreateStream());
  std::map<ProductShape, double> best;
  for (const auto& [shape, use] : profile.products) {
    options.progress(best.size(), profile.products.size());
    Bed bed(ops, stream.get());
    ASSIGN_OR_RETURN(double seconds, Repeat(bed, shape, use, options.each));
    if (use.fastest_seconds > 0) seconds = std::min(seconds, use.fastest_seconds);
    best[shape] = seconds;
  }
  return best;
}

}  // namespace tundra::bench
