// Products through cuBLASLt. One algorithm for each (inner, cols, direction, types,
// alignment): the first that the library's heuristic names for a fixed number of rows, used
// for every number of rows, so that neither timing nor the size of a micro-batch chooses.
// Without split-K, whose partial sums would be added in an order of the library's; nor
// stream-K, whose order would depend on the number of rows (see Choose). Whether it can do a
// number of rows, the library is asked when that number comes for the first time.
//
// cuBLASLt counts in columns: row-major out [t, cols] is its column-major D [cols, t].
#include <cublasLt.h>

#include <array>
#include <map>
#include <span>
#include <string>

#include "absl/synchronization/mutex.h"
#include "common/status.h"
#include "worker/cuda/products.h"

namespace tundra::cuda {
namespace {

// Rows that the heuristic is asked for.
constexpr int64_t kNominalRows = 2048;
// Algorithms that the heuristic may name.
constexpr int kCandidates = 16;

absl::Status StatusOf(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(what, ": cuBLASLt says ", cublasLtGetStatusString(status)));
}

// The largest power of two up to 16 that divides an address and the bytes between rows.
int Alignment(const void* data, int64_t stride, size_t element_bytes) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(data) |
                         static_cast<uintptr_t>(stride) * element_bytes | uintptr_t{16};
  return static_cast<int>(bits & (~bits + 1));
}

// Descriptions that free themselves.
struct Free {
  void operator()(cublasLtMatmulDesc_t p) const { (void)cublasLtMatmulDescDestroy(p); }
  void operator()(cublasLtMatrixLayout_t p) const { (void)cublasLtMatrixLayoutDestroy(p); }
  void operator()(cublasLtMatmulPreference_t p) const { (void)cublasLtMatmulPreferenceDestroy(p); }
};
using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Free>;
using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Free>;
using Preference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Free>;

absl::StatusOr<Layout> MakeLayout(cudaDataType_t type, int64_t rows, int64_t cols, int64_t ld) {
  cublasLtMatrixLayout_t layout = nullptr;
  RETURN_IF_ERROR(StatusOf(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows),
                                                      static_cast<uint64_t>(cols), ld),
                           "describing a matrix"));
  return Layout(layout);
}

struct Description {
  Operation operation;
  Layout weight, in, out;
};

absl::StatusOr<Description> Describe(const Product& p, int64_t rows) {
  Description d;
  cublasLtMatmulDesc_t operation = nullptr;
  RETURN_IF_ERROR(StatusOf(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                           "describing a product"));
  d.operation.reset(operation);
  // The weight is the left factor. Forward it lies as inner x cols and is turned.
  const bool forward = p.direction == Direction::kForward;
  const cublasOperation_t turn = forward ? CUBLAS_OP_T : CUBLAS_OP_N;
  RETURN_IF_ERROR(StatusOf(
      cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &turn, sizeof turn),
      "describing a product"));
  const cudaDataType_t type = p.bf16 ? CUDA_R_16BF : CUDA_R_32F;
  ASSIGN_OR_RETURN(d.weight, MakeLayout(type, forward ? p.inner : p.cols,
                                        forward ? p.cols : p.inner, p.weight_stride));
  ASSIGN_OR_RETURN(d.in, MakeLayout(type, p.inner, rows, p.in_stride));
  ASSIGN_OR_RETURN(d.out, MakeLayout(CUDA_R_32F, p.cols, rows, p.out_stride));
  return d;
}

struct Key {
  int64_t inner, cols;
  bool bf16, forward;
  int weight_alignment, in_alignment, out_alignment;  // bytes
  auto operator<=>(const Key&) const = default;
};

Key KeyOf(const Product& p) {
  const size_t bytes = p.bf16 ? 2 : 4;
  return {p.inner,
          p.cols,
          p.bf16,
          p.direction == Direction::kForward,
          Alignment(p.weight, p.weight_stride, bytes),
          Alignment(p.in, p.in_stride, bytes),
          Alignment(p.out, p.out_stride, sizeof(float))};
}

std::string ShapeText(const Product& p) {
  const bool forward = p.direction == Direction::kForward;
  return absl::StrCat("the ", forward ? "forward" : "backward", " product with a weight of ",
                      forward ? p.cols : p.inner, " x ", forward ? p.inner : p.cols,
                      p.bf16 ? " in bf16" : " in f32");
}

template <typename T>
absl::Status Prefer(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute,
                    T value) {
  return StatusOf(
      cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
      "choosing an algorithm");
}

class CublasLtProducts final : public Products {
 public:
  static absl::StatusOr<std::unique_ptr<Products>> Create() {
    cublasLtHandle_t handle = nullptr;
    RETURN_IF_ERROR(StatusOf(cublasLtCreate(&handle), "opening cuBLASLt"));
    return std::unique_ptr<Products>(new CublasLtProducts(handle));
  }
  ~CublasLtProducts() override { (void)cublasLtDestroy(handle_); }

  absl::Status Run(cudaStream_t stream, const Product& p) override {
    if (p.t == 0 || p.cols == 0) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Description d, Describe(p, p.t));
    ASSIGN_OR_RETURN(const cublasLtMatmulAlgo_t algorithm, AlgorithmFor(p, d));
    const float one = 1, beta = p.accumulate ? 1 : 0;
    return StatusOf(cublasLtMatmul(handle_, d.operation.get(), &one, p.weight, d.weight.get(), p.in,
                                   d.in.get(), &beta, p.out, d.out.get(), p.out, d.out.get(),
                                   &algorithm, p.workspace, kProductWorkspace, stream),
                    "a product");
  }

 private:
  explicit CublasLtProducts(cublasLtHandle_t handle) : handle_(handle) {}

  struct Chosen {
    cublasLtMatmulAlgo_t algorithm;
    std::map<int64_t, absl::Status> by_rows;  // whether it can do them
  };

  absl::StatusOr<cublasLtMatmulAlgo_t> AlgorithmFor(const Product& p, const Description& d) {
    const Key key = KeyOf(p);
    const absl::MutexLock lock(&mutex_);
    auto found = chosen_.find(key);
    if (found == chosen_.end()) {
      ASSIGN_OR_RETURN(const cublasLtMatmulAlgo_t algorithm, Choose(p, key));
      found = chosen_.emplace(key, Chosen{algorithm, {}}).first;
    }
    Chosen& chosen = found->second;
    auto checked = chosen.by_rows.find(p.t);
    if (checked == chosen.by_rows.end()) {
      checked = chosen.by_rows.emplace(p.t, Check(p, d, chosen.algorithm)).first;
    }
    RETURN_IF_ERROR(checked->second);
    return chosen.algorithm;
  }

  absl::Status Check(const Product& p, const Description& d,
                     const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result = {};
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(handle_, d.operation.get(), d.weight.get(), d.in.get(), d.out.get(),
                                d.out.get(), &algorithm, &result);
    if (status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kProductWorkspace) {
      return absl::OkStatus();
    }
    const std::string why =
        status != CUBLAS_STATUS_SUCCESS
            ? cublasLtGetStatusString(status)
            : absl::StrCat("it would take ", result.workspaceSize, " bytes of workspace");
    return absl::FailedPreconditionError(absl::StrCat(
        "the algorithm that cuBLASLt names for ", ShapeText(p), " can't do ", p.t, " rows (", why,
        "), and another one would give other bits; choose another training.micro_batch_tokens, or "
        "run with another version of CUDA"));
  }

  absl::StatusOr<cublasLtMatmulAlgo_t> Choose(const Product& p, const Key& key) {
    cublasLtMatmulPreference_t made = nullptr;
    RETURN_IF_ERROR(StatusOf(cublasLtMatmulPreferenceCreate(&made), "choosing an algorithm"));
    const Preference preference(made);
    RETURN_IF_ERROR(
        Prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kProductWorkspace}));
    RETURN_IF_ERROR(Prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                           uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE}));
    RETURN_IF_ERROR(Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                           static_cast<uint32_t>(key.weight_alignment)));
    RETURN_IF_ERROR(Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                           static_cast<uint32_t>(key.in_alignment)));
    RETURN_IF_ERROR(Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                           static_cast<uint32_t>(key.out_alignment)));
    RETURN_IF_ERROR(Prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                           static_cast<uint32_t>(key.out_alignment)));
    ASSIGN_OR_RETURN(const Description d, Describe(p, kNominalRows));
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results = {};
    int count = 0;
    RETURN_IF_ERROR(StatusOf(
        cublasLtMatmulAlgoGetHeuristic(handle_, d.operation.get(), d.weight.get(), d.in.get(),
                                       d.out.get(), d.out.get(), preference.get(), kCandidates,
                                       results.data(), &count),
        "choosing an algorithm"));
    return FirstWhole(p, {results.data(), static_cast<size_t>(count)});
  }

  // The first algorithm that adds each sum in one piece. The configuration tells split-K. It has
  // no word for stream-K, but what that leaves unfinished goes through the workspace: the first
  // that takes none, or where all do, the first. That rows don't count is tested on a card
  // (frozen_rows_card_test).
  static absl::StatusOr<cublasLtMatmulAlgo_t> FirstWhole(
      const Product& p, std::span<const cublasLtMatmulHeuristicResult_t> results) {
    const cublasLtMatmulAlgo_t* first = nullptr;
    for (const cublasLtMatmulHeuristicResult_t& result : results) {
      if (result.state != CUBLAS_STATUS_SUCCESS) continue;
      ASSIGN_OR_RETURN(const bool whole, WithoutSplit(result.algo));
      if (!whole) continue;
      if (result.workspaceSize == 0) return result.algo;
      if (first == nullptr) first = &result.algo;
    }
    if (first != nullptr) return *first;
    return absl::InternalError(absl::StrCat("cuBLASLt has no algorithm without split-K for ",
                                            ShapeText(p), "; run with another version of CUDA"));
  }

  static absl::StatusOr<bool> WithoutSplit(const cublasLtMatmulAlgo_t& algorithm) {
    int32_t splits = 0;
    uint32_t reduction = 0;
    size_t written = 0;
    RETURN_IF_ERROR(
        StatusOf(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                                      &splits, sizeof splits, &written),
                 "choosing an algorithm"));
    RETURN_IF_ERROR(StatusOf(
        cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                             &reduction, sizeof reduction, &written),
        "choosing an algorithm"));
    // Anything but a number of splits would be a way of the library's own.
    return (splits == 0 || splits == 1) && reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
  }

  cublasLtHandle_t handle_;
  absl::Mutex mutex_;
  std::map<Key, Chosen> chosen_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Products>> CreateProducts() { return CublasLtProducts::Create(); }

std::string ProductsVersion() { return absl::StrCat("cublaslt-", cublasLtGetVersion()); }

}  // namespace tundra::cuda
