// The one suite that every backend's operations pass: what its tests share.
//
// A test is parameterised over Backends(), which a file of each test program defines; each
// operation is compared with a reference in double that is written here, from the formula, not from
// the code under test.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "worker/ops/ops.h"

namespace tundra::suite {

// A matrix of doubles, row-major: the reference's operand.
struct Mat {
  Mat() = default;
  Mat(int64_t rows, int64_t cols)
      : rows(rows), cols(cols), v(static_cast<size_t>(rows * cols), 0.0) {}
  double& operator()(int64_t r, int64_t c) { return v[static_cast<size_t>(r * cols + c)]; }
  double operator()(int64_t r, int64_t c) const { return v[static_cast<size_t>(r * cols + c)]; }

  int64_t rows = 0, cols = 0;
  std::vector<double> v;
};

// Normal numbers, exact in the dtype (f32 or bf16). The seed is the test's own.
Mat Random(uint32_t seed, int64_t rows, int64_t cols, DType dtype = DType::kF32,
           double stddev = 1.0);
Mat Transposed(const Mat& a);
Mat Times(const Mat& a, const Mat& b);
Mat Plus(const Mat& a, const Mat& b, double scale = 1.0);

struct Backend {
  std::string name;
  // kUnimplemented where this machine lacks it; tests then skip and say so.
  std::function<absl::StatusOr<std::unique_ptr<Device>>(int threads)> make_device;
  std::function<absl::StatusOr<std::unique_ptr<Ops>>(Device*)> make_ops;
  // Beside 1, the numbers of threads that must give the same bits.
  std::vector<int> threads = {2, 3, 4, 6, 8, 16, 32};
};
std::ostream& operator<<(std::ostream& out, const Backend& backend);
std::vector<Backend> Backends();

// A device with its operations, a stream and scratch; memory that goes with it.
class Bed {
 public:
  Bed(const Backend& backend, int threads, size_t scratch_bytes = size_t{64} << 20);

  Ops& ops() { return *ops_; }
  Device& device() { return *device_; }
  Arena& scratch() { return *scratch_; }
  Ctx ctx() { return {stream_.get(), scratch_.get()}; }

  // How an operation went, when its status is `status`: a device finds values that are out
  // of range only as it runs, and says so when the stream is waited for.
  absl::Status Finished(absl::Status status);

  // Device memory with these values. Rows are `gap` elements further apart than they are
  // long; the gaps hold a pattern that Get checks.
  View Put(const Mat& a, DType dtype = DType::kF32, int64_t gap = 0);
  View PutInts(const std::vector<int32_t>& values);
  View PutLongs(const std::vector<int64_t>& values);
  Targets PutTargets(const std::vector<int32_t>& ids);
  View New(DType dtype, int64_t rows, int64_t cols, int64_t gap = 0);
  Mat Get(ConstView view);
  // All bytes of the view's elements.
  std::string Bytes(ConstView view);

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Arena> scratch_;
  std::vector<Buffer> buffers_;
};

// Each |got − want| <= tolerance · the largest |want|. Equal infinities pass.
void ExpectNear(const Mat& got, const Mat& want, double tolerance, const std::string& what);

// Central differences of f at x, at up to 24 elements, against `gradient`.
void ExpectGradient(const std::function<double(const Mat&)>& f, const Mat& x, const Mat& gradient,
                    double tolerance, const std::string& what);

#define ASSERT_OK(expr)                               \
  do {                                                \
    const absl::Status assert_status = (expr);        \
    ASSERT_TRUE(assert_status.ok()) << assert_status; \
  } while (false)

class OpsSuite : public testing::TestWithParam<Backend> {};

}  // namespace tundra::suite
