// Products with frozen weights on a card, at real shapes in bf16: a row's bits don't depend on how
// many rows there are, and come again. What the library is told (products_cublaslt.cc) should see
// to it; its kernels alone can show it.
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "common/status_test_util.h"
#include "tests/gpu/card.h"
#include "worker/device/arena.h"
#include "worker/ops/ops.h"

namespace tundra {
namespace {

constexpr int64_t kRows[] = {1, 7, 128, 2048, 4096};
constexpr int64_t kMostRows = 4096;
// Rows that are compared, where there are as many.
constexpr int64_t kCompared = 7;
// Values are drawn once and repeat after a prime number, which no width divides.
constexpr size_t kPeriod = 1000003;

struct WeightShape {
  int64_t n = 0, k = 0;
};
std::ostream& operator<<(std::ostream& out, const WeightShape& shape) {
  return out << shape.n << "x" << shape.k;
}

struct Outcome {
  std::string first_rows;  // bytes
  size_t hash = 0;         // of all rows
  bool operator==(const Outcome&) const = default;
};

class FrozenRows : public ::testing::TestWithParam<WeightShape> {
 protected:
  void SetUp() override {
    TUNDRA_ASSERT_OK_AND_ASSIGN(device_, CardBackend().create_device(0));
    TUNDRA_ASSERT_OK_AND_ASSIGN(ops_, CardBackend().create_ops(device_.get()));
    TUNDRA_ASSERT_OK_AND_ASSIGN(stream_, device_->CreateStream());
    const auto [n, k] = GetParam();
    TUNDRA_ASSERT_OK_AND_ASSIGN(weight_, Random<BF16>(n * k, 1, &ToBF16));
    const auto same = [](float v) { return v; };
    TUNDRA_ASSERT_OK_AND_ASSIGN(in_, Random<float>(kMostRows * std::max(n, k), 2, same));
    TUNDRA_ASSERT_OK_AND_ASSIGN(out_, device_->Allocate(in_.size()));
    frozen_ = FrozenWeight::Plain(weight_.Matrix(DType::kBF16, n, k));
    TUNDRA_ASSERT_OK_AND_ASSIGN(
        Arena arena, Arena::Create(device_.get(), ops_->workspace_bytes() +
                                                      ops_->MatmulScratchBytes(kMostRows, frozen_,
                                                                               Precision::kBF16) +
                                                      8 * Arena::kAlignment));
    scratch_ = std::make_unique<Arena>(std::move(arena));
  }
  Ctx ctx() { return {stream_.get(), scratch_.get()}; }

  template <typename T, typename Convert>
  absl::StatusOr<Buffer> Random(int64_t count, uint32_t seed, const Convert& convert) {
    std::minstd_rand engine(seed);
    std::normal_distribution<float> normal;
    std::vector<T> drawn(std::min(kPeriod, static_cast<size_t>(count)));
    for (T& value : drawn) value = convert(normal(engine));
    ASSIGN_OR_RETURN(Buffer buffer, device_->Allocate(static_cast<size_t>(count) * sizeof(T)));
    const size_t period = drawn.size() * sizeof(T);
    for (size_t at = 0; at < buffer.size(); at += period) {
      RETURN_IF_ERROR(device_->CopyIn(ctx(), static_cast<char*>(buffer.data()) + at, drawn.data(),
                                      std::min(period, buffer.size() - at)));
    }
    RETURN_IF_ERROR(device_->Synchronize(ctx()));
    return buffer;
  }

  absl::StatusOr<Outcome> Multiply(Direction direction, int64_t rows) {
    const auto [n, k] = GetParam();
    const bool forward = direction == Direction::kForward;
    const View in = in_.Matrix(DType::kF32, rows, forward ? k : n);
    const View out = out_.Matrix(DType::kF32, rows, forward ? n : k);
    RETURN_IF_ERROR(device_->Zero(ctx(), out.data, out.bytes()));  // not an earlier product's
    RETURN_IF_ERROR(
        forward
            ? ops_->FrozenMatmul(ctx(), in, frozen_, Precision::kBF16, Write::kSet, out)
            : ops_->FrozenMatmulBackward(ctx(), in, frozen_, Precision::kBF16, Write::kSet, out));
    const size_t row_bytes = static_cast<size_t>(out.cols) * sizeof(float);
    Outcome outcome;
    std::string some;
    constexpr int64_t kAtOnce = 64;
    for (int64_t r = 0; r < rows; r += kAtOnce) {
      some.resize(static_cast<size_t>(std::min(kAtOnce, rows - r)) * row_bytes);
      RETURN_IF_ERROR(device_->CopyOut(ctx(), some.data(), out.At(r, 0), some.size()));
      RETURN_IF_ERROR(device_->Synchronize(ctx()));
      if (r == 0) outcome.first_rows = some.substr(0, kCompared * row_bytes);
      outcome.hash = outcome.hash * 31 + std::hash<std::string_view>()(some);
    }
    return outcome;
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Arena> scratch_;
  Buffer weight_, in_, out_;
  FrozenWeight frozen_;
};

TEST_P(FrozenRows, BitsDontDependOnTheNumberOfRowsAndComeAgain) {
  for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
    SCOPED_TRACE(direction == Direction::kForward ? "forward" : "backward");
    TUNDRA_ASSERT_OK_AND_ASSIGN(const Outcome most, Multiply(direction, kMostRows));
    const auto [n, k] = GetParam();
    const size_t row_bytes =
        static_cast<size_t>(direction == Direction::kForward ? n : k) * sizeof(float);
    EXPECT_NE(most.first_rows.substr(0, row_bytes), std::string(row_bytes, '\0'));
    EXPECT_NE(most.first_rows.substr(0, row_bytes), most.first_rows.substr(row_bytes, row_bytes));
    for (const int64_t rows : kRows) {
      TUNDRA_ASSERT_OK_AND_ASSIGN(const Outcome once, Multiply(direction, rows));
      TUNDRA_ASSERT_OK_AND_ASSIGN(const Outcome again, Multiply(direction, rows));
      EXPECT_TRUE(once == again) << rows << " rows: two runs differ";
      const std::string& got = once.first_rows;
      ASSERT_EQ(got.size(), static_cast<size_t>(std::min(rows, kCompared)) * row_bytes);
      EXPECT_TRUE(got == most.first_rows.substr(0, got.size()))
          << rows << " rows: the first rows' bits are not those among " << kMostRows << " rows";
    }
  }
}

// SmolLM2-135M's MLP; and Llama-3-8B's attention, MLP both ways, and output.
INSTANTIATE_TEST_SUITE_P(Shapes, FrozenRows,
                         ::testing::Values(WeightShape{1536, 576}, WeightShape{4096, 4096},
                                           WeightShape{14336, 4096}, WeightShape{4096, 14336},
                                           WeightShape{128256, 4096}),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace tundra

int main(int argc, char** argv) { return tundra::CardTestMain(argc, argv); }
