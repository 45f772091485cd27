#include "worker/cuda/cudnn_graphs.h"

#include <dlfcn.h>

#include <cstdlib>
#include <exception>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace cudnn_frontend {
// Where the frontend looks for cuDNN's functions. Set once, by OpenCudnn.
void* cudnn_dlhandle = nullptr;
}  // namespace cudnn_frontend

namespace tundra::cuda {
namespace {

namespace fe = cudnn_frontend;
using Attributes = fe::graph::Tensor_attributes;
using Tensor = std::shared_ptr<Attributes>;

// The first with ragged rows, groups of query heads and a workspace that is linear in tokens.
constexpr size_t kOldestVersion = 90600;
constexpr char kPlan[] = "a plan for attention (TUNDRA_CUDA_ATTENTION=own does without it)";
// An environment variable of the frontend's that chooses between algorithms.
constexpr char kWorkspaceVariable[] = "CUDNN_FRONTEND_ATTN_DP_WORKSPACE_LIMIT";

// NVRTC's version; its code is what runs.
int compiler_major = 0, compiler_minor = 0;

// Opens NVRTC, with which cuDNN compiles kernels: without it, it would have fewer.
absl::Status OpenCompiler() {
  const auto cudart_version = reinterpret_cast<decltype(&::cudnnGetCudartVersion)>(
      ::dlsym(fe::cudnn_dlhandle, "cudnnGetCudartVersion"));
  const std::string path =
      absl::StrCat("libnvrtc.so.", cudart_version == nullptr ? 0 : cudart_version() / 1000);
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  using Version = int(int*, int*);
  const auto version =
      library == nullptr ? nullptr : reinterpret_cast<Version*>(::dlsym(library, "nvrtcVersion"));
  if (version == nullptr || version(&compiler_major, &compiler_minor) != 0) {
    return absl::NotFoundError(absl::StrCat("cuDNN: can't use ", path,
                                            ", which it compiles kernels with; install it "
                                            "beside cuDNN"));
  }
  return absl::OkStatus();
}

absl::Status Open() {
  const char* path = std::getenv("TUNDRA_CUDNN_LIBRARY");
  if (path == nullptr || *path == '\0') path = "libcudnn.so.9";
  void* library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrCat("cuDNN: can't open ", path, ": ", ::dlerror(),
                                            "; install cuDNN 9 or name its file in "
                                            "TUNDRA_CUDNN_LIBRARY"));
  }
  fe::cudnn_dlhandle = library;
  try {
    if (fe::detail::get_backend_version() < kOldestVersion) {
      return absl::NotFoundError(absl::StrCat(
          "cuDNN: ", path, " is version ", fe::detail::get_backend_version_string(), "; ",
          fe::detail::convert_version_to_str(kOldestVersion), " or newer is needed"));
    }
    int device = 0;
    (void)fe::detail::cuda_get_device(&device);  // the frontend opens the CUDA runtime at this
    return OpenCompiler();
  } catch (const std::exception& error) {
    return absl::NotFoundError(absl::StrCat("cuDNN: ", error.what()));
  }
}

// Makes the tensors of one graph.
class Tensors {
 public:
  Tensors(CudnnGraph& graph, const RaggedShape& shape) : graph_(graph), shape_(shape) {
    query_lengths_ = List(CudnnTensor::kQueryLengths, shape.rows, fe::DataType_t::INT32);
    key_lengths_ = List(CudnnTensor::kKeyLengths, shape.rows, fe::DataType_t::INT32);
    query_offsets_ = List(CudnnTensor::kQueryOffsets, shape.rows + 1, fe::DataType_t::INT64);
    key_offsets_ = List(CudnnTensor::kKeyOffsets, shape.rows + 1, fe::DataType_t::INT64);
    stats_offsets_ = List(CudnnTensor::kStatsOffsets, shape.rows + 1, fe::DataType_t::INT64);
  }

  Tensor query_lengths() const { return query_lengths_; }
  Tensor key_lengths() const { return key_lengths_; }

  // An operand like q (`wide`) or like k, or the stats.
  Tensor Input(CudnnTensor number, bool wide) {
    Attributes attributes;
    Describe(attributes, number, wide);
    return graph_.tensor(attributes);
  }
  Tensor StatsInput() {
    Attributes attributes;
    DescribeStats(attributes);
    return graph_.tensor(attributes);
  }
  void Output(const Tensor& tensor, CudnnTensor number, bool wide) {
    Describe(tensor->set_output(true), number, wide);
  }
  void StatsOutput(const Tensor& tensor) { DescribeStats(tensor->set_output(true)); }

 private:
  Tensor List(CudnnTensor number, int64_t count, fe::DataType_t type) {
    return graph_.tensor(Attributes()
                             .set_uid(static_cast<int64_t>(number))
                             .set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(type));
  }
  void Describe(Attributes& attributes, CudnnTensor number, bool wide) {
    const int64_t heads = wide ? shape_.heads : shape_.kv_heads, dim = shape_.dim;
    attributes.set_uid(static_cast<int64_t>(number))
        .set_dim({shape_.rows, heads, shape_.max_length, dim})
        .set_stride({heads * shape_.max_length * dim, dim, heads * dim, 1})
        .set_data_type(fe::DataType_t::BFLOAT16);
    attributes.set_ragged_offset(wide ? query_offsets_ : key_offsets_);
  }
  void DescribeStats(Attributes& attributes) {
    const int64_t heads = shape_.heads;
    attributes.set_uid(static_cast<int64_t>(CudnnTensor::kStats))
        .set_dim({shape_.rows, heads, shape_.max_length, 1})
        .set_stride({heads * shape_.max_length, 1, heads, 1})
        .set_data_type(fe::DataType_t::FLOAT);
    attributes.set_ragged_offset(stats_offsets_);
  }

  CudnnGraph& graph_;
  const RaggedShape& shape_;
  Tensor query_lengths_, key_lengths_, query_offsets_, key_offsets_, stats_offsets_;
};

// What forward and backward have in common.
template <typename Options>
Options OptionsOf(const Tensors& tensors, const RaggedShape& shape) {
  Options options;
  options.set_name("attention")
      .set_attn_scale(shape.scale)
      .set_padding_mask(true)
      .set_seq_len_q(tensors.query_lengths())
      .set_seq_len_kv(tensors.key_lengths())
      .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
      .set_diagonal_band_right_bound(0);
  return options;
}

void AddForward(CudnnGraph& graph, const RaggedShape& shape) {
  Tensors tensors(graph, shape);
  auto options = OptionsOf<fe::graph::SDPA_attributes>(tensors, shape);
  options.set_generate_stats(true);
  const auto [out, stats] =
      graph.sdpa(tensors.Input(CudnnTensor::kQ, true), tensors.Input(CudnnTensor::kK, false),
                 tensors.Input(CudnnTensor::kV, false), options);
  tensors.Output(out, CudnnTensor::kOut, true);
  tensors.StatsOutput(stats);
}

void AddBackward(CudnnGraph& graph, const RaggedShape& shape) {
  Tensors tensors(graph, shape);
  auto options = OptionsOf<fe::graph::SDPA_backward_attributes>(tensors, shape);
  options.set_deterministic_algorithm(true)
      .set_max_total_seq_len_q(shape.tokens)
      .set_max_total_seq_len_kv(shape.tokens);
  const auto [dq, dk, dv] = graph.sdpa_backward(
      tensors.Input(CudnnTensor::kQ, true), tensors.Input(CudnnTensor::kK, false),
      tensors.Input(CudnnTensor::kV, false), tensors.Input(CudnnTensor::kOut, true),
      tensors.Input(CudnnTensor::kDOut, true), tensors.StatsInput(), options);
  tensors.Output(dq, CudnnTensor::kDQ, true);
  tensors.Output(dk, CudnnTensor::kDK, false);
  tensors.Output(dv, CudnnTensor::kDV, false);
}

// kUnimplemented for a failure that follows from cuDNN's version, the kind of device and the
// shape, in which all ranks of a numerics class agree.
absl::Status Supported(fe::error_t error) {
  if (error.is_good()) return absl::OkStatus();
  const fe::error_code_t code = error.get_code();
  if (code == fe::error_code_t::CUDA_API_FAILED || code == fe::error_code_t::HANDLE_ERROR ||
      code == fe::error_code_t::INVALID_CUDA_DEVICE) {
    return CudnnStatus(error, kPlan);
  }
  return absl::UnimplementedError(error.get_message());
}

}  // namespace

absl::Status OpenCudnn() {
  static const absl::Status opened = Open();
  return opened;
}

std::string CudnnVersion() {
  std::string version =
      absl::StrCat("cudnn-", fe::detail::get_backend_version(), "-frontend-",
                   CUDNN_FRONTEND_VERSION, "-nvrtc-", compiler_major, ".", compiler_minor);
  const char* workspace = std::getenv(kWorkspaceVariable);
  if (workspace != nullptr) absl::StrAppend(&version, "-workspace-", workspace);
  return version;
}

absl::Status CudnnStatus(fe::error_t error, const char* what) {
  if (error.is_good()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": cuDNN says ", error.get_message()));
}

absl::StatusOr<std::shared_ptr<CudnnGraph>> MakeCudnnGraph(Direction direction,
                                                           const RaggedShape& shape,
                                                           const CudnnTarget& target) {
  try {
    auto graph = std::make_shared<CudnnGraph>();
    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT)
        .set_sm_version(target.compute);
    direction == Direction::kForward ? AddForward(*graph, shape) : AddBackward(*graph, shape);
    if (target.description != nullptr) graph->set_device_properties(target.description);
    RETURN_IF_ERROR(Supported(graph->validate()));
    RETURN_IF_ERROR(Supported(target.description != nullptr
                                  ? graph->build_operation_graph()
                                  : graph->build_operation_graph(target.handle)));
    RETURN_IF_ERROR(Supported(graph->create_execution_plans({fe::HeurMode_t::A})));
    RETURN_IF_ERROR(Supported(graph->check_support()));
    return graph;
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(kPlan, ": cuDNN says ", error.what()));
  }
}

absl::Status BuildCudnnPlan(CudnnGraph& graph) {
  try {
    fe::error_t error = graph.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE);
    const std::string message = error.get_message();
    // What was promised and can't be compiled is a fault of the machine, unless cuDNN says else.
    if (message.find("NOT_SUPPORTED") != std::string::npos &&
        message.find("PREREQUISITE_MISSING") == std::string::npos) {
      return absl::UnimplementedError(message);
    }
    return CudnnStatus(error, kPlan);
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(kPlan, ": cuDNN says ", error.what()));
  }
}

}  // namespace tundra::cuda
