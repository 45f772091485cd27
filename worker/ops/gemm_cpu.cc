// Splits a product over threads and calls the kernel of the machine's instruction set.
#include "worker/ops/gemm_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/ops/gemm_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/ops/gemm_inl.h"
#include "worker/ops/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace tundra {
namespace HWY_NAMESPACE {

int64_t GemmPanelWidth() { return kNr; }
int64_t GemmRowGroup() { return kMr; }

void GemmPart(const GemmArgs& args, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float* work) {
  GemmSerial(args, m0, m1, n0, n1, work);
}

void GemmPackPanels(const GemmArgs& args, int64_t panel0, int64_t panel1, float* out) {
  for (int64_t panel = panel0; panel < panel1; ++panel) {
    const int64_t n = panel * kNr;
    PackPanel(args, 0, args.k, n, std::min(kNr, args.n - n), out + n * args.k);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tundra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tundra {
namespace {

HWY_EXPORT(GemmPanelWidth);
HWY_EXPORT(GemmRowGroup);
HWY_EXPORT(GemmPart);
HWY_EXPORT(GemmPackPanels);

// Multiply-adds that are worth waking a thread for: some 30 us of one core.
constexpr double kWorkPerThread = 1 << 20;

struct Grid {
  int64_t rows = 1;
  int64_t cols = 1;
};

// How to cut C for `threads` threads: the cut whose largest part costs least, counting
// the packing that each part repeats. It never changes a bit of the result.
Grid ChooseGrid(const GemmArgs& args, int threads, int64_t row_groups, int64_t panels) {
  const double work =
      static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k);
  const auto parts =
      static_cast<int64_t>(std::clamp(work / kWorkPerThread, 1.0, static_cast<double>(threads)));
  Grid best;
  double best_cost = 0;
  for (int64_t rows = 1; rows <= std::min(parts, row_groups); ++rows) {
    const int64_t cols = std::min(parts / rows, panels);
    const double part_m = static_cast<double>((row_groups + rows - 1) / rows) *
                          static_cast<double>(HWY_DYNAMIC_DISPATCH(GemmRowGroup)());
    const double part_n = static_cast<double>((panels + cols - 1) / cols) *
                          static_cast<double>(HWY_DYNAMIC_DISPATCH(GemmPanelWidth)());
    const double pack_a = args.a_k == 1 && args.a_scale == 1 ? 0.1 : 1.5;
    const double pack_b = args.packed ? 0.1 : 1.5;
    const double cost = part_m * part_n / 16 + pack_a * part_m + pack_b * part_n;
    if (best_cost == 0 || cost < best_cost) {
      best_cost = cost;
      best = {rows, cols};
    }
  }
  return best;
}

}  // namespace

size_t GemmWorkspaceBytes(int threads) {
  return static_cast<size_t>(threads) * kGemmWorkspaceFloats * sizeof(float);
}

void Gemm(const GemmArgs& args, int threads, void* workspace) {
  if (args.m <= 0 || args.n <= 0) return;
  const int64_t mr = HWY_DYNAMIC_DISPATCH(GemmRowGroup)();
  const int64_t nr = HWY_DYNAMIC_DISPATCH(GemmPanelWidth)();
  const int64_t row_groups = (args.m + mr - 1) / mr;
  const int64_t panels = (args.n + nr - 1) / nr;
  const Grid grid = ChooseGrid(args, threads, row_groups, panels);
  const auto part = HWY_DYNAMIC_DISPATCH(GemmPart);
  ParallelTasks(threads, grid.rows * grid.cols, [&](int64_t i, int worker) {
    const int64_t r = i / grid.cols;
    const int64_t c = i % grid.cols;
    part(args, row_groups * r / grid.rows * mr,
         std::min(args.m, row_groups * (r + 1) / grid.rows * mr), panels * c / grid.cols * nr,
         std::min(args.n, panels * (c + 1) / grid.cols * nr),
         static_cast<float*>(workspace) + worker * kGemmWorkspaceFloats);
  });
}

size_t PackedGemmBytes(int64_t n, int64_t k) {
  const int64_t nr = HWY_DYNAMIC_DISPATCH(GemmPanelWidth)();
  return static_cast<size_t>((n + nr - 1) / nr * nr * k) * sizeof(float);
}

void PackGemmB(const GemmArgs& args, int threads, void* out) {
  const int64_t nr = HWY_DYNAMIC_DISPATCH(GemmPanelWidth)();
  const auto pack = HWY_DYNAMIC_DISPATCH(GemmPackPanels);
  ParallelRanges(
      threads, (args.n + nr - 1) / nr, GrainOf(args.k * nr),
      [&](int64_t begin, int64_t end) { pack(args, begin, end, static_cast<float*>(out)); });
}

}  // namespace tundra
#endif  // HWY_ONCE
