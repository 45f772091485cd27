#include "worker/ops/ops_suite.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"

namespace tundra::suite {
namespace {

constexpr unsigned char kGapByte = 0x5a;

}  // namespace

Mat Random(uint32_t seed, int64_t rows, int64_t cols, DType dtype, double stddev) {
  std::mt19937 engine(seed * 7919 + 17);
  std::normal_distribution<double> normal(0, stddev);
  Mat a(rows, cols);
  for (double& x : a.v) {
    const auto value = static_cast<float>(normal(engine));
    x = dtype == DType::kBF16 ? ToFloat(ToBF16(value)) : value;
  }
  return a;
}

Mat Transposed(const Mat& a) {
  Mat t(a.cols, a.rows);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) t(c, r) = a(r, c);
  }
  return t;
}

Mat Times(const Mat& a, const Mat& b) {
  TUNDRA_CHECK(a.cols == b.rows);
  Mat c(a.rows, b.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t k = 0; k < a.cols; ++k) {
      const double x = a(i, k);
      for (int64_t j = 0; j < b.cols; ++j) c(i, j) += x * b(k, j);
    }
  }
  return c;
}

Mat Plus(const Mat& a, const Mat& b, double scale) {
  Mat c = a;
  for (size_t i = 0; i < c.v.size(); ++i) c.v[i] += scale * b.v[i];
  return c;
}

// Once for the tests of all files.
INSTANTIATE_TEST_SUITE_P(All, OpsSuite, testing::ValuesIn(Backends()),
                         testing::PrintToStringParamName());

std::ostream& operator<<(std::ostream& out, const Backend& backend) { return out << backend.name; }

Bed::Bed(const Backend& backend, int threads, size_t scratch_bytes) {
  auto device = backend.make_device(threads);
  TUNDRA_CHECK(device.ok()) << device.status();
  device_ = *std::move(device);
  auto ops = backend.make_ops(device_.get());
  TUNDRA_CHECK(ops.ok()) << ops.status();
  ops_ = *std::move(ops);
  auto stream = device_->CreateStream();
  TUNDRA_CHECK(stream.ok()) << stream.status();
  stream_ = *std::move(stream);
  auto scratch = Arena::Create(device_.get(), scratch_bytes);
  TUNDRA_CHECK(scratch.ok()) << scratch.status();
  scratch_ = std::make_unique<Arena>(*std::move(scratch));
}

absl::Status Bed::Finished(absl::Status status) {
  return status.ok() ? device_->Synchronize(ctx()) : status;
}

View Bed::New(DType dtype, int64_t rows, int64_t cols, int64_t gap) {
  const size_t bytes = static_cast<size_t>(rows * (cols + gap)) * DTypeSize(dtype);
  auto buffer = device_->Allocate(std::max<size_t>(bytes, 1));
  TUNDRA_CHECK(buffer.ok()) << buffer.status();
  buffers_.push_back(*std::move(buffer));
  const std::string pattern(bytes, static_cast<char>(kGapByte));
  TUNDRA_CHECK(device_->CopyIn(ctx(), buffers_.back().data(), pattern.data(), bytes).ok());
  TUNDRA_CHECK(device_->Synchronize(ctx()).ok());
  return View(buffers_.back().data(), dtype, rows, cols, cols + gap);
}

View Bed::Put(const Mat& a, DType dtype, int64_t gap) {
  const View view = New(dtype, a.rows, a.cols, gap);
  for (int64_t r = 0; r < a.rows; ++r) {
    std::string row(static_cast<size_t>(a.cols) * DTypeSize(dtype), 0);
    for (int64_t c = 0; c < a.cols; ++c) {
      char* to = row.data() + static_cast<size_t>(c) * DTypeSize(dtype);
      const double d = a(r, c);
      const auto f = static_cast<float>(d);
      const BF16 b = ToBF16(f);
      const auto i = static_cast<int64_t>(d);
      switch (dtype) {
        case DType::kF32:
          std::memcpy(to, &f, 4);
          break;
        case DType::kBF16:
          std::memcpy(to, &b, 2);
          break;
        case DType::kI64:
          std::memcpy(to, &i, 8);
          break;
        case DType::kF64:
          std::memcpy(to, &d, 8);
          break;
        case DType::kI32:
          TUNDRA_CHECK(false) << "not needed";
      }
    }
    TUNDRA_CHECK(device_->CopyIn(ctx(), view.At(r, 0), row.data(), row.size()).ok());
    TUNDRA_CHECK(device_->Synchronize(ctx()).ok());
  }
  return view;
}

View Bed::PutInts(const std::vector<int32_t>& values) {
  const View view = New(DType::kI32, 1, static_cast<int64_t>(values.size()));
  TUNDRA_CHECK(device_->CopyIn(ctx(), view.data, values.data(), values.size() * 4).ok());
  TUNDRA_CHECK(device_->Synchronize(ctx()).ok());
  return view;
}

View Bed::PutLongs(const std::vector<int64_t>& values) {
  const View view = New(DType::kI64, 1, static_cast<int64_t>(values.size()));
  TUNDRA_CHECK(device_->CopyIn(ctx(), view.data, values.data(), values.size() * 8).ok());
  TUNDRA_CHECK(device_->Synchronize(ctx()).ok());
  return view;
}

Targets Bed::PutTargets(const std::vector<int32_t>& ids) {
  return {PutInts(ids), static_cast<int64_t>(ids.size()) - std::count(ids.begin(), ids.end(), -1)};
}

std::string Bed::Bytes(ConstView view) {
  const size_t row_bytes = static_cast<size_t>(view.cols) * DTypeSize(view.dtype);
  std::string bytes(row_bytes * static_cast<size_t>(view.rows), 0);
  for (int64_t r = 0; r < view.rows; ++r) {
    TUNDRA_CHECK(device_
                     ->CopyOut(ctx(), bytes.data() + static_cast<size_t>(r) * row_bytes,
                               view.At(r, 0), row_bytes)
                     .ok());
  }
  TUNDRA_CHECK(device_->Synchronize(ctx()).ok());
  if (view.stride > view.cols) {
    for (int64_t r = 0; r < view.rows; ++r) {
      std::string gap(static_cast<size_t>(view.stride - view.cols) * DTypeSize(view.dtype), 0);
      TUNDRA_CHECK(device_->CopyOut(ctx(), gap.data(), view.At(r, view.cols), gap.size()).ok());
      TUNDRA_CHECK(device_->Synchronize(ctx()).ok());
      EXPECT_EQ(gap, std::string(gap.size(), static_cast<char>(kGapByte)))
          << "something was written between rows";
    }
  }
  return bytes;
}

Mat Bed::Get(ConstView view) {
  const std::string bytes = Bytes(view);
  Mat a(view.rows, view.cols);
  for (size_t i = 0; i < a.v.size(); ++i) {
    const char* from = bytes.data() + i * DTypeSize(view.dtype);
    switch (view.dtype) {
      case DType::kF32: {
        float x;
        std::memcpy(&x, from, 4);
        a.v[i] = x;
        break;
      }
      case DType::kBF16: {
        BF16 x;
        std::memcpy(&x, from, 2);
        a.v[i] = ToFloat(x);
        break;
      }
      case DType::kI32: {
        int32_t x;
        std::memcpy(&x, from, 4);
        a.v[i] = x;
        break;
      }
      case DType::kI64: {
        int64_t x;
        std::memcpy(&x, from, 8);
        a.v[i] = static_cast<double>(x);
        break;
      }
      case DType::kF64:
        std::memcpy(&a.v[i], from, 8);
        break;
    }
  }
  return a;
}

void ExpectNear(const Mat& got, const Mat& want, double tolerance, const std::string& what) {
  ASSERT_EQ(got.rows, want.rows) << what;
  ASSERT_EQ(got.cols, want.cols) << what;
  double largest = 1e-30;
  for (const double x : want.v) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  }
  for (size_t i = 0; i < got.v.size(); ++i) {
    if (got.v[i] == want.v[i]) continue;
    ASSERT_LE(std::abs(got.v[i] - want.v[i]), tolerance * largest)
        << what << " at row " << i / static_cast<size_t>(got.cols) << ", column "
        << i % static_cast<size_t>(got.cols) << ": " << got.v[i] << ", reference " << want.v[i];
  }
}

void ExpectGradient(const std::function<double(const Mat&)>& f, const Mat& x, const Mat& gradient,
                    double tolerance, const std::string& what) {
  double largest = 1e-30;
  for (const double g : gradient.v) largest = std::max(largest, std::abs(g));
  constexpr double kStep = 1e-4;
  const size_t stride = std::max<size_t>(1, x.v.size() / 24);
  for (size_t i = 0; i < x.v.size(); i += stride) {
    Mat moved = x;
    moved.v[i] = x.v[i] + kStep;
    const double up = f(moved);
    moved.v[i] = x.v[i] - kStep;
    const double down = f(moved);
    ASSERT_NEAR(gradient.v[i], (up - down) / (2 * kStep), tolerance * largest)
        << what << ", element " << i;
  }
}

}  // namespace tundra::suite
