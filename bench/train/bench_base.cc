#include "bench/train/bench_base.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/device/view.h"
#include "worker/model/base_files.h"

namespace tundra::bench {
namespace {

// Transformers initialises matrices of decoders with this standard deviation.
constexpr double kInitialDeviation = 0.02;

// The names and shapes of a base's tensors, as its weight file has them.
std::vector<std::pair<std::string, Shape>> Tensors(const ModelConfig& config) {
  const Shape matrix = {config.vocab, config.hidden};
  std::vector<std::pair<std::string, Shape>> tensors = {{"model.embed_tokens.weight", matrix},
                                                        {"model.norm.weight", {config.hidden}}};
  if (!config.tied) tensors.emplace_back("lm_head.weight", matrix);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const Shape shapes[kLayerTensors] = {{config.hidden},
                                         {config.q_width(), config.hidden},
                                         {config.kv_width(), config.hidden},
                                         {config.kv_width(), config.hidden},
                                         {config.hidden, config.q_width()},
                                         {config.hidden},
                                         {config.intermediate, config.hidden},
                                         {config.intermediate, config.hidden},
                                         {config.hidden, config.intermediate}};
    for (int t = 0; t < kLayerTensors; ++t) {
      tensors.emplace_back(LayerTensorName(layer, static_cast<LayerTensor>(t)), shapes[t]);
    }
  }
  return tensors;
}

// A weight file of the right header and size without contents: a hole, which takes no
// room on the disk. A shard plan is made from a base's files.
absl::Status WriteHollowWeights(const ModelConfig& config, StoredType stored,
                                const std::string& path) {
  nlohmann::json header;
  uint64_t at = 0;
  for (const auto& [name, shape] : Tensors(config)) {
    const uint64_t end = at + static_cast<uint64_t>(NumElements(shape) * StoredSize(stored));
    header[name] = {
        {"dtype", std::string(StoredName(stored))}, {"shape", shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  const std::string text = header.dump();
  uint64_t length = text.size();
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, path);
  RETURN_IF_ERROR(
      WriteAll(fd.get(), {reinterpret_cast<const char*>(&length), sizeof(length)}, path));
  RETURN_IF_ERROR(WriteAll(fd.get(), text, path));
  if (::ftruncate(fd.get(), static_cast<off_t>(sizeof(length) + length + at)) != 0) {
    return ErrnoStatus(errno, path);
  }
  return absl::OkStatus();
}

// SplitMix64: fast, and each number a function of its place alone.
// reference: Steele et al. 2014, "Fast splittable pseudorandom number generators".
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

template <typename T, typename Convert>
void DrawTensor(const UnitTensor& tensor, uint64_t key, void* to, const Convert& convert) {
  const int64_t n = NumElements(tensor.shape);
  T* out = static_cast<T*>(to);
  if (tensor.shape.size() == 1) {
    std::fill(out, out + n, convert(1.0F));  // a norm
    return;
  }
  // Uniform in ±√3 · deviation has that deviation.
  const float width = static_cast<float>(std::sqrt(3.0) * kInitialDeviation);
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t bits = Mix(key + static_cast<uint64_t>(i));
    const float unit = static_cast<float>(bits >> 40) * 0x1p-23F - 1.0F;
    out[i] = convert(width * unit);
  }
}

void DrawUnit(const Unit& unit, uint64_t key, std::byte* to) {
  for (const UnitTensor& tensor : unit.tensors) {
    key = Mix(key);
    if (tensor.type == StoredType::kBF16) {
      DrawTensor<BF16>(tensor, key, to + tensor.offset, [](float v) { return ToBF16(v); });
    } else {
      DrawTensor<float>(tensor, key, to + tensor.offset, [](float v) { return v; });
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<BenchBase>> BenchBase::Open(const std::string& model, uint64_t seed,
                                                           int threads) {
  std::unique_ptr<BenchBase> base(new BenchBase());
  const absl::StatusOr<const ModelShape*> shape = FindModelShape(model);
  if (shape.ok()) {
    RETURN_IF_ERROR(base->Draw(**shape, seed, threads));
  } else if (model.find('/') != std::string::npos || FileExists(model)) {
    RETURN_IF_ERROR(base->Load(model));
  } else {
    return shape.status();
  }
  return base;
}

absl::Status BenchBase::Load(const std::string& folder) {
  name_ = folder;
  ASSIGN_OR_RETURN(config_, ReadModelConfig(folder));
  ASSIGN_OR_RETURN(const BaseFiles files, BaseFiles::Open(folder));
  ASSIGN_OR_RETURN(plan_, ShardPlan::Make(config_, files, 1));
  ASSIGN_OR_RETURN(loaded_, ResidentShard::Load(*plan_, files, 0));
  return absl::OkStatus();
}

absl::Status BenchBase::Draw(const ModelShape& shape, uint64_t seed, int threads) {
  name_ = std::string(shape.name);
  random_ = true;
  ASSIGN_OR_RETURN(config_, ParseModelConfig(ConfigJson(shape), name_));
  const TempDir folder;
  RETURN_IF_ERROR(WriteHollowWeights(config_, shape.stored, folder / "model.safetensors"));
  {
    ASSIGN_OR_RETURN(const BaseFiles files, BaseFiles::Open(folder.path()));
    ASSIGN_OR_RETURN(plan_, ShardPlan::Make(config_, files, 1));
  }
  const uint64_t bytes = plan_->shard_bytes();
  drawn_ = Fd(::memfd_create("tundra-bench", MFD_CLOEXEC));
  if (!drawn_.valid()) return ErrnoStatus(errno, "memory for the base");
  if (::posix_fallocate(drawn_.get(), 0, static_cast<off_t>(bytes)) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat(name_, ": no memory for ", bytes,
                                                     " bytes of weights; choose a smaller shape"));
  }
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, drawn_.get(), 0);
  if (memory == MAP_FAILED) return ErrnoStatus(errno, "mapping the base");
  const absl::Cleanup unmap = [&] { ::munmap(memory, bytes); };
  std::atomic<size_t> next{0};
  const auto draw = [&] {
    for (size_t u = next++; u < plan_->units().size(); u = next++) {
      const Unit& unit = plan_->units()[u];
      DrawUnit(unit, Mix(seed * 0x10001 + u),
               static_cast<std::byte*>(memory) + unit.offset_in_shard);
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(draw);
  draw();
  for (std::thread& helper : helpers) helper.join();
  return absl::OkStatus();
}

}  // namespace tundra::bench
