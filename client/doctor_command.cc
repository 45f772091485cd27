// tundra doctor: looks for what usually goes wrong, and says how to mend it.
#include <sys/statvfs.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/commands.h"
#include "client/output.h"
#include "client/rpc_calls.h"
#include "common/files.h"
#include "common/status.h"

namespace tundra::client {
namespace {

struct Finding {
  std::string what;
  bool ok = true;
  std::string detail;
};

Finding CheckDisk() {
  const std::string dir = DefaultDataDir();
  std::string existing = dir;
  while (existing.size() > 1 && !FileExists(existing)) {
    existing = existing.substr(0, existing.rfind('/'));
    if (existing.empty()) existing = "/";
  }
  struct statvfs info {};
  if (::statvfs(existing.c_str(), &info) != 0) return {"disk", false, dir + " cannot be looked at"};
  const auto free = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  const bool enough = free > int64_t{1} << 30;
  return {"disk", enough,
          absl::StrCat(HumanBytes(free), " free for this machine's default folder, ", dir,
                       enough ? "" : "; checkpoints need room: free some, or set TUNDRA_HOME")};
}

Finding CheckCpu() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  std::string flags;
  while (std::getline(file, line)) {
    if (line.starts_with("flags")) {
      flags = line + " ";
      break;
    }
  }
  const auto has = [&](const char* flag) {
    return flags.find(absl::StrCat(" ", flag, " ")) != std::string::npos;
  };
  const unsigned cores = std::thread::hardware_concurrency();
  const std::string isa = has("amx_bf16") || has("avx512_bf16") ? "bf16 products in hardware"
                          : has("avx512f")                      ? "AVX-512"
                          : has("avx2")                         ? "AVX2"
                          : has("sse4_1")                       ? "SSE4.1 only, so slow"
                                                                : "no SSE4.1, which is needed";
  const bool bf16 = has("amx_bf16") || has("avx512_bf16");
  return {"cpu", has("sse4_1"),
          absl::StrCat(cores, " cores, ", isa,
                       bf16 ? "" : "; bf16 jobs compute in f32 from bf16 weights here")};
}

std::vector<Finding> CheckService(const CommonFlags& common) {
  std::vector<Finding> findings;
  const auto service = Service::Open(common.address);
  if (!service.ok()) {
    findings.push_back({"service", false, std::string(service.status().message())});
    return findings;
  }
  grpc::ClientContext context;
  Prepare(&context, absl::Seconds(5));
  tundra::v1::ListBasesResponse bases;
  const grpc::Status status = service->bases()->ListBases(&context, {}, &bases);
  if (!status.ok()) {
    findings.push_back({"service", false, std::string(service->Explain(status).message())});
    return findings;
  }
  findings.push_back({"service", true,
                      absl::StrCat("answers at ", service->address().value, " (from ",
                                   service->address().source, ")")});
  int workers = 0;
  std::string names;
  for (const auto& base : bases.bases()) {
    workers = std::max(workers, base.worker_count());
    absl::StrAppend(&names, names.empty() ? "" : ", ", base.display_name());
  }
  findings.push_back({"workers", workers > 0,
                      workers > 0 ? absl::StrCat("connected; bases: ", names)
                                  : "none with a base is connected; start tundra-worker with "
                                    "--base-dir, and look at its log"});
  grpc::ClientContext jobs_context;
  Prepare(&jobs_context, absl::Seconds(5));
  tundra::v1::ListJobsRequest request;
  request.set_filter("state = FAILED");
  request.set_page_size(3);
  tundra::v1::ListJobsResponse failed;
  if (service->jobs()->ListJobs(&jobs_context, request, &failed).ok()) {
    for (const auto& job : failed.jobs()) {
      findings.push_back({"job", false,
                          absl::StrCat(job.name(), " (", job.display_name(),
                                       ") failed: ", job.failure().message())});
    }
  }
  return findings;
}

int Doctor(const CommonFlags& common) {
  std::vector<Finding> findings = {CheckCpu(), CheckDisk()};
  for (Finding& finding : CheckService(common)) findings.push_back(std::move(finding));
  bool reachable = true;
  bool ok = true;
  nlohmann::json json = nlohmann::json::array();
  for (const Finding& finding : findings) {
    ok = ok && (finding.ok || finding.what == "job");
    reachable = reachable && (finding.ok || finding.what != "service");
    json.push_back({{"check", finding.what}, {"ok", finding.ok}, {"detail", finding.detail}});
    if (!common.json()) {
      std::printf("%-4s %-8s %s\n", finding.ok ? "ok" : "!!", finding.what.c_str(),
                  Printable(finding.detail).c_str());
    }
  }
  if (common.json()) std::printf("%s\n", json.dump(2).c_str());
  if (!reachable) return kUnreachable;
  return ok ? kOk : kBadInput;
}

}  // namespace

void AddDoctor(CLI::App& app, CommonFlags& common, Run* run) {
  NewCommand(app, common, "doctor", "Check this machine and the service, and say what to mend")
      ->callback([=, &common] { *run = [&common] { return Doctor(common); }; });
}

}  // namespace tundra::client
