#include "worker/ops/onednn_matmul.h"

#include <omp.h>

#include <list>
#include <map>
#include <mutex>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace tundra {
namespace {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

// Panels of 64 columns of B, 16 deep (pairs for bf16): what oneDNN's AVX512 and AMX
// kernels read. Measured against `any` on the shapes of a 135M model: no slower.
Tag PackedTag(bool bf16) { return bf16 ? Tag::BA16a64b2a : Tag::BA16a64b; }

// B = Wᵀ [K, N] forward, W [N, K] backward, as strides over row-major w_NK.
dnnl::memory::desc PlainWeight(const OneDnnMatmul::Call& c) {
  const Type type = c.bf16 ? Type::bf16 : Type::f32;
  if (c.direction == Direction::kForward) {
    return {{c.inner, c.cols}, type, {1, c.weight_stride}};
  }
  return {{c.inner, c.cols}, type, {c.weight_stride, 1}};
}

dnnl::memory::desc PackedWeight(int64_t n, int64_t k, Direction direction, bool bf16) {
  const Type type = bf16 ? Type::bf16 : Type::f32;
  if (direction == Direction::kForward) return {{k, n}, type, PackedTag(bf16)};
  return {{n, k}, type, PackedTag(bf16)};
}

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int>;

Key KeyOf(const OneDnnMatmul::Call& c) {
  const int flags = (c.bf16 ? 1 : 0) | (c.packed ? 2 : 0) | (c.accumulate ? 4 : 0) |
                    (c.direction == Direction::kForward ? 8 : 0);
  return {c.t, c.inner, c.cols, c.in_stride, c.out_stride, c.packed ? 0 : c.weight_stride, flags};
}

struct Ready {
  dnnl::matmul matmul;
  dnnl::memory::desc in, weight, out;
};

Ready Make(const OneDnnMatmul::Call& c) {
  const Type type = c.bf16 ? Type::bf16 : Type::f32;
  Ready ready;
  ready.in = dnnl::memory::desc({c.t, c.inner}, type, {c.in_stride, 1});
  ready.weight = c.packed ? (c.direction == Direction::kForward
                                 ? PackedWeight(c.cols, c.inner, c.direction, c.bf16)
                                 : PackedWeight(c.inner, c.cols, c.direction, c.bf16))
                          : PlainWeight(c);
  ready.out = dnnl::memory::desc({c.t, c.cols}, Type::f32, {c.out_stride, 1});
  dnnl::primitive_attr attributes;
  if (c.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::desc desc(ready.in, ready.weight, ready.out);
  ready.matmul = dnnl::matmul(dnnl::matmul::primitive_desc(desc, attributes, Engine()));
  return ready;
}

absl::Status FromOneDnn(const dnnl::error& error, std::string_view what) {
  const std::string message = absl::StrCat("oneDNN: ", std::string(what), ": ", error.what());
  if (error.status == dnnl_unimplemented) return absl::UnimplementedError(message);
  if (error.status == dnnl_out_of_memory) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

}  // namespace

// The least recently used primitive leaves when there are kCapacity.
struct OneDnnMatmul::Cache {
  static constexpr size_t kCapacity = 256;

  std::mutex mutex;
  std::list<std::pair<Key, Ready>> recent;
  std::map<Key, std::list<std::pair<Key, Ready>>::iterator> found;

  Ready Get(const Call& call) {
    const Key key = KeyOf(call);
    std::lock_guard lock(mutex);
    if (const auto it = found.find(key); it != found.end()) {
      recent.splice(recent.begin(), recent, it->second);
      return it->second->second;
    }
    recent.emplace_front(key, Make(call));
    found[key] = recent.begin();
    if (recent.size() > kCapacity) {
      found.erase(recent.back().first);
      recent.pop_back();
    }
    return recent.front().second;
  }
};

OneDnnMatmul::OneDnnMatmul(int threads) : threads_(threads), cache_(std::make_unique<Cache>()) {}
OneDnnMatmul::~OneDnnMatmul() = default;

absl::Status OneDnnMatmul::Run(const Call& call) {
  try {
    // oneDNN asks OpenMP for the calling thread's number, both when it makes a
    // primitive and when it runs one.
    omp_set_num_threads(threads_);
    Ready ready = cache_->Get(call);
    const auto memory = [](const dnnl::memory::desc& desc, const void* data) {
      return dnnl::memory(desc, Engine(), const_cast<void*>(data));
    };
    thread_local dnnl::stream stream(Engine());
    ready.matmul.execute(stream, {{DNNL_ARG_SRC, memory(ready.in, call.in)},
                                  {DNNL_ARG_WEIGHTS, memory(ready.weight, call.weight)},
                                  {DNNL_ARG_DST, memory(ready.out, call.out)}});
    stream.wait();
    return absl::OkStatus();
  } catch (const dnnl::error& error) {
    return FromOneDnn(error, absl::StrCat(call.bf16 ? "bf16" : "f32", " product ", call.t, " x ",
                                          call.inner, " x ", call.cols));
  }
}

size_t OneDnnMatmul::PackedBytes(int64_t n, int64_t k, Direction direction, bool bf16) const {
  try {
    return PackedWeight(n, k, direction, bf16).get_size();
  } catch (const dnnl::error&) {
    return 0;
  }
}

absl::Status OneDnnMatmul::Pack(ConstView from_NK, Direction direction, void* to) {
  try {
    omp_set_num_threads(threads_);
    Call plain;
    plain.bf16 = from_NK.dtype == DType::kBF16;
    plain.direction = direction;
    plain.inner = direction == Direction::kForward ? from_NK.cols : from_NK.rows;
    plain.cols = direction == Direction::kForward ? from_NK.rows : from_NK.cols;
    plain.weight_stride = from_NK.stride;
    dnnl::memory from(PlainWeight(plain), Engine(), const_cast<void*>(from_NK.data));
    dnnl::memory packed(PackedWeight(from_NK.rows, from_NK.cols, direction, plain.bf16), Engine(),
                        to);
    dnnl::stream stream(Engine());
    dnnl::reorder(from, packed).execute(stream, from, packed);
    stream.wait();
    return absl::OkStatus();
  } catch (const dnnl::error& error) {
    return FromOneDnn(error, absl::StrCat("packing a weight ", from_NK.rows, " x ", from_NK.cols));
  }
}

}  // namespace tundra
