#include "worker/device/cpu_isa.h"

#include <mutex>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "hwy/highway.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace tundra {
namespace {

dnnl::cpu_isa OneDnnIsa(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kSse41:
      return dnnl::cpu_isa::sse41;
    case CpuIsa::kAvx2:
      return dnnl::cpu_isa::avx2;
    case CpuIsa::kAvx512:
      return dnnl::cpu_isa::avx512_core_vnni;
    case CpuIsa::kAvx512Bf16:
      return dnnl::cpu_isa::avx512_core_bf16;
    case CpuIsa::kAmx:
      return dnnl::cpu_isa::all;
  }
  return dnnl::cpu_isa::all;
}

// Highway targets that are beyond `isa`. Targets we don't compile are never chosen.
int64_t HighwayTargetsBeyond(CpuIsa isa) {
  if (isa == CpuIsa::kSse41) return HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL;
  if (isa == CpuIsa::kAvx2) return HWY_AVX3 | HWY_AVX3_DL;
  return 0;
}

CpuIsa FromOneDnn(dnnl::cpu_isa isa) {
  const auto has = [isa](dnnl::cpu_isa needed) {
    return (static_cast<unsigned>(isa) & static_cast<unsigned>(needed)) ==
           static_cast<unsigned>(needed);
  };
  if (has(dnnl::cpu_isa::avx512_core_amx)) return CpuIsa::kAmx;
  if (has(dnnl::cpu_isa::avx512_core_bf16)) return CpuIsa::kAvx512Bf16;
  if (has(dnnl::cpu_isa::avx512_core)) return CpuIsa::kAvx512;
  if (has(dnnl::cpu_isa::avx2)) return CpuIsa::kAvx2;
  return CpuIsa::kSse41;
}

// What Highway would choose when nothing is disabled.
CpuIsa HighwayIsa() {
  const int64_t targets = hwy::SupportedTargets();
  if (targets & (HWY_AVX3 | HWY_AVX3_DL)) return CpuIsa::kAvx512;
  if (targets & HWY_AVX2) return CpuIsa::kAvx2;
  return CpuIsa::kSse41;
}

absl::StatusOr<CpuIsa> Apply(std::string_view max_isa) {
  if ((hwy::SupportedTargets() & (HWY_SSE4 | HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL)) == 0) {
    return absl::UnimplementedError("this processor lacks SSE4.1, which the engine needs");
  }
  if (!max_isa.empty()) {
    ASSIGN_OR_RETURN(const CpuIsa cap, ParseCpuIsa(max_isa));
    if (dnnl::set_max_cpu_isa(OneDnnIsa(cap)) != dnnl::status::success) {
      return absl::FailedPreconditionError(
          absl::StrCat("oneDNN refuses to be capped at ", std::string(max_isa),
                       ": it was used before, or DNNL_MAX_CPU_ISA is set"));
    }
    hwy::DisableTargets(HighwayTargetsBeyond(cap));
  }
  const CpuIsa onednn = FromOneDnn(dnnl::get_effective_cpu_isa());
  // Both must agree at the level where they can: the lower one holds (DNNL_MAX_CPU_ISA
  // in the environment may have lowered oneDNN's).
  if (onednn < HighwayIsa()) hwy::DisableTargets(HighwayTargetsBeyond(onednn));
  return onednn > CpuIsa::kAvx512 && HighwayIsa() == CpuIsa::kAvx512
             ? onednn
             : std::min(onednn, HighwayIsa());
}

}  // namespace

std::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kSse41:
      return "sse41";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
    case CpuIsa::kAmx:
      return "amx";
  }
  return "?";
}

absl::StatusOr<CpuIsa> ParseCpuIsa(std::string_view name) {
  for (CpuIsa isa :
       {CpuIsa::kSse41, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16, CpuIsa::kAmx}) {
    if (name == CpuIsaName(isa)) return isa;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", std::string(name),
                   "\" is no instruction set that can be asked for; use sse41, avx2, avx512, "
                   "avx512_bf16 or amx"));
}

absl::StatusOr<CpuIsa> UseCpuIsa(std::string_view max_isa) {
  static std::mutex mutex;
  static std::optional<CpuIsa> in_effect;
  static std::string cap;
  if (!max_isa.empty()) RETURN_IF_ERROR(ParseCpuIsa(max_isa).status());
  std::lock_guard lock(mutex);
  if (in_effect.has_value()) {
    if (!max_isa.empty() && max_isa != cap && max_isa != CpuIsaName(*in_effect)) {
      return absl::FailedPreconditionError(
          absl::StrCat("the process already uses ", std::string(CpuIsaName(*in_effect)),
                       "; it can't change to ", std::string(max_isa)));
    }
    return *in_effect;
  }
  ASSIGN_OR_RETURN(const CpuIsa isa, Apply(max_isa));
  cap = max_isa;
  in_effect = isa;
  return isa;
}

std::string OneDnnVersion() {
  const dnnl_version_t* version = dnnl_version();
  return absl::StrCat(version->major, ".", version->minor, ".", version->patch);
}

}  // namespace tundra
