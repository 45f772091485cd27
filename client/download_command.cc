// tundra download: the files of an adapter, resumed after a break, checked by hash.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "client/commands.h"
#include "client/output.h"
#include "client/progress.h"
#include "client/rpc_calls.h"
#include "common/files.h"
#include "common/rpc.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra::client {
namespace {

constexpr int kTries = 5;

struct DownloadFlags {
  std::string job;
  std::string to;
  int64_t step = -1;
};

absl::StatusOr<tundra::v1::Adapter> FindAdapter(const Service& service, const std::string& name,
                                                int64_t step) {
  if (step >= 0) {
    grpc::ClientContext context;
    Prepare(&context);
    tundra::v1::ListCheckpointsRequest request;
    request.set_parent(name);
    request.set_page_size(1000);
    tundra::v1::ListCheckpointsResponse response;
    RETURN_IF_ERROR(
        service.Explain(service.artifacts()->ListCheckpoints(&context, request, &response)));
    std::string known;
    for (const auto& checkpoint : response.checkpoints()) {
      if (checkpoint.step() == step) return checkpoint.adapter();
      known += absl::StrCat(known.empty() ? "" : ", ", checkpoint.step());
    }
    return absl::NotFoundError(absl::StrCat(name, " has no checkpoint of step ", step,
                                            "; it has: ", known.empty() ? "none" : known));
  }
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::GetJobRequest request;
  request.set_name(name);
  tundra::v1::Job job;
  RETURN_IF_ERROR(service.Explain(service.jobs()->GetJob(&context, request, &job)));
  if (!job.has_adapter() || job.adapter().files_size() == 0) {
    return absl::FailedPreconditionError(absl::StrCat(name, " has no adapter yet: it is ",
                                                      tundra::v1::JobState_Name(job.state()),
                                                      "; --step N takes the one of a checkpoint"));
  }
  return job.adapter();
}

absl::Status Continue(const Service& service, const std::string& adapter,
                      const tundra::v1::AdapterFile& file, int fd, const std::string& partial) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return ErrnoStatus(errno, partial);
  if (info.st_size > file.size_bytes()) {
    // A left-over of another adapter, longer than this one: of no use.
    if (::ftruncate(fd, 0) != 0) return ErrnoStatus(errno, partial);
    info.st_size = 0;
  }
  if (::lseek(fd, 0, SEEK_END) < 0) return ErrnoStatus(errno, partial);
  grpc::ClientContext context;
  tundra::v1::DownloadFileRequest request;
  request.set_name(adapter);
  request.set_filename(file.filename());
  request.set_offset(info.st_size);
  auto stub = service.artifacts();
  auto reader = stub->DownloadFile(&context, request);
  tundra::v1::DownloadFileResponse response;
  ProgressBar bar(file.filename(), file.size_bytes(), false);
  int64_t done = info.st_size;
  absl::Status local;
  while (local.ok() && reader->Read(&response)) {
    done += static_cast<int64_t>(response.chunk().size());
    local = done > file.size_bytes()
                ? absl::DataLossError(
                      absl::StrCat(partial, ": more than its ", file.size_bytes(), " bytes came"))
                : WriteAll(fd, response.chunk(), partial);
    bar.Set(done);
  }
  if (!local.ok()) context.TryCancel();
  const grpc::Status finished = reader->Finish();
  return local.ok() ? service.Explain(finished) : local;
}

absl::Status Download(const Service& service, const std::string& adapter,
                      const tundra::v1::AdapterFile& file, const std::string& dir) {
  // A name from the service never becomes a path beyond the folder.
  if (file.filename().empty() || file.filename().find('/') != std::string::npos ||
      file.filename().starts_with(".")) {
    return absl::InternalError(absl::StrCat("the service names a file '", file.filename(), "'"));
  }
  const std::string path = dir + "/" + file.filename();
  const std::string partial = path + ".part";
  absl::Status status;
  for (int tries = 0; tries < kTries; ++tries) {
    Fd fd(::open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!fd.valid()) return ErrnoStatus(errno, partial);
    status = Continue(service, adapter, file, fd.get(), partial);
    if (status.ok() && ::fsync(fd.get()) != 0) return ErrnoStatus(errno, partial);
    if (status.ok()) {
      ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(partial));
      if (hash == file.sha256()) {
        if (::rename(partial.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, path);
        return SyncDir(dir);
      }
      // For example a left-over of another adapter: once more from the start.
      ::unlink(partial.c_str());
      status = absl::DataLossError(absl::StrCat(path, ": the bytes do not match their hash"));
    }
    if (!absl::IsUnavailable(status) && !absl::IsDataLoss(status)) return status;
    if (absl::IsDataLoss(status)) ::unlink(partial.c_str());
    if (tries + 1 < kTries) service.AwaitNextTry(absl::Milliseconds(300));
  }
  return status;
}

int RunDownload(const CommonFlags& common, const DownloadFlags& flags) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  const auto name = service->JobName(flags.job);
  if (!name.ok()) return Fail(name.status());
  const auto adapter = FindAdapter(*service, *name, flags.step);
  if (!adapter.ok()) return Fail(adapter.status());
  if (const absl::Status made = MakeDirs(flags.to); !made.ok()) return Fail(made);
  for (const auto& file : adapter->files()) {
    const absl::Status status = Download(*service, adapter->name(), file, flags.to);
    if (!status.ok()) return Fail(status);
    if (!common.json()) {
      std::printf("%s/%s  %s  sha256 %s\n", flags.to.c_str(),
                  PrintableLine(file.filename()).c_str(), HumanBytes(file.size_bytes()).c_str(),
                  PrintableLine(file.sha256()).c_str());
    }
  }
  if (common.json()) std::printf("%s\n", ToJson(*adapter).c_str());
  return kOk;
}

}  // namespace

void AddDownload(CLI::App& app, CommonFlags& common, Run* run) {
  auto flags = std::make_shared<DownloadFlags>();
  CLI::App* command = NewCommand(app, common, "download",
                                 "Fetch a job's adapter in PEFT's layout, checked by hash");
  command->add_option("JOB", flags->job, "Id or name of a job")->required();
  command->add_option("--to", flags->to, "Folder to write to")->required();
  command->add_option("--step", flags->step, "The adapter of this checkpoint, not the last")
      ->check(CLI::NonNegativeNumber);
  command->callback([=, &common] { *run = [=, &common] { return RunDownload(common, *flags); }; });
}

}  // namespace tundra::client
