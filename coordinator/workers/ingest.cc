#include "coordinator/workers/ingest.h"

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/printable.h"
#include "common/sha256.h"
#include "common/status.h"
#include "common/version.h"
#include "coordinator/blobs/garbage.h"
#include "coordinator/store/job_draft.h"

namespace tundra::coordinator {
namespace {

constexpr int kMaxDevices = 4096;
constexpr int kMaxBases = 1000;
constexpr int kMaxTextFiles = 32;
constexpr int64_t kMaxTextFileBytes = int64_t{256} << 20;
constexpr char kBasePrefix[] = "bases/";
// Warnings that are remembered, so that they are logged once.
constexpr size_t kMostSaid = 1000;
// Bases of workers whose files were compared, so that they are compared once.
constexpr size_t kMostJudged = 100'000;

absl::Status Malformed(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("worker report: ", what));
}

absl::Status CheckBase(const v1::BaseInfo& info) {
  const std::string& name = info.base().name();
  if (name.rfind(kBasePrefix, 0) != 0 || !IsSha256Hex(name.substr(sizeof(kBasePrefix) - 1))) {
    return Malformed("a base's name must be bases/ and a SHA-256");
  }
  if (info.text_files_size() > kMaxTextFiles) return Malformed("too many text files of a base");
  if (HasControlCharacters(info.base().display_name())) {
    return Malformed("a base's display_name must have no control characters");
  }
  for (const v1::AdapterFile& file : info.text_files()) {
    if (!IsSha256Hex(file.sha256()) || file.size_bytes() < 0 ||
        file.size_bytes() > kMaxTextFileBytes) {
      return Malformed(absl::StrCat("text file ", file.filename(), " of base ",
                                    info.base().display_name(),
                                    " needs a SHA-256 and at most 256 MiB"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckReport(const v1::WorkerReport& report) {
  if (report.worker_id().empty() || report.worker_id().size() > 128) {
    return Malformed("worker_id must have 1 to 128 characters");
  }
  if (HasControlCharacters(report.worker_id()) || HasControlCharacters(report.display_name())) {
    return Malformed("worker_id and display_name must have no control characters");
  }
  RETURN_IF_ERROR(CheckWorkerVersion(report.build(), ProgramVersion()));
  if (report.incarnation().empty()) return Malformed("incarnation is required");
  if (report.devices_size() > kMaxDevices) return Malformed("too many devices");
  if (report.bases_size() > kMaxBases) return Malformed("too many bases");
  std::set<int32_t> devices;
  for (const v1::DeviceInfo& device : report.devices()) {
    if (HasControlCharacters(device.name()) || HasControlCharacters(device.numerics_class())) {
      return Malformed("a device's name and class must have no control characters");
    }
    if (!devices.insert(device.index()).second) {
      return Malformed(absl::StrCat("device ", device.index(), " is there twice"));
    }
  }
  for (const v1::BaseInfo& info : report.bases()) RETURN_IF_ERROR(CheckBase(info));
  return absl::OkStatus();
}

Ingest::Ingest(Store* store, BlobStore* blobs, Fleet* fleet, Controller* controller, Hub* hub,
               Clock* clock, IngestOptions options)
    : store_(store),
      blobs_(blobs),
      fleet_(fleet),
      controller_(controller),
      hub_(hub),
      clock_(clock),
      options_(std::move(options)) {}

// The first session of a worker binds its id to the certificate; one without may be bound later.
absl::Status Ingest::CheckIdentity(const WorkerId& worker, const std::string& identity) {
  {
    absl::MutexLock lock(&mu_);
    const auto known = identities_.find(worker);
    if (known != identities_.end() && known->second == identity) return absl::OkStatus();
  }
  // Reads first: a worker that is known can come back while the disk is full.
  WorkerRecord record{.id = worker, .identity = identity, .drained = false};
  bool stored = false;
  const auto check = [&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<WorkerRecord> workers, txn.ListWorkers());
    for (const WorkerRecord& known : workers) {
      if (known.id != worker) continue;
      if (!known.identity.empty() && known.identity != identity) {
        return absl::PermissionDeniedError(
            absl::StrCat("worker ", worker.value, " belongs to the certificate \"", known.identity,
                         "\", and this session has ",
                         identity.empty() ? "none" : absl::StrCat("\"", identity, "\""),
                         "; remove the worker's data folder to give it a new id"));
      }
      record.drained = known.drained;
      stored = known.identity == identity;
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(store_->Read(check));
  if (!stored) {
    RETURN_IF_ERROR(store_->Write([&](Txn& txn) -> absl::Status {
      RETURN_IF_ERROR(check(txn));
      RETURN_IF_ERROR(txn.PutWorker(record));
      v1::AuditEntry entry;
      *entry.mutable_time() = ToProto(clock_->Now());
      entry.set_actor(absl::StrCat("workers/", identity.empty() ? "token" : identity));
      entry.set_method("Session");
      entry.set_resource(absl::StrCat("workers/", worker.value));
      return txn.AppendAudit(entry);
    }));
    LogInfo("audit: workers/{}: Session workers/{}", identity.empty() ? "token" : identity,
            worker.value);
  }
  absl::MutexLock lock(&mu_);
  identities_[worker] = identity;
  return absl::OkStatus();
}

absl::Status Ingest::Take(const std::shared_ptr<SessionLink>& link, const std::string& identity,
                          const v1::WorkerReport& report) {
  RETURN_IF_ERROR(CheckReport(report));
  const WorkerId worker{report.worker_id()};
  RETURN_IF_ERROR(CheckIdentity(worker, identity));
  std::set<std::string> wanted;
  const v1::WorkerReport taken = TakeBases(report, wanted);
  // Job reports before ranks: steps that a lost rank's group still made must
  // count before the scheduler judges the attempt.
  bool moved = false;
  std::vector<v1::JobAck> acks;
  for (const v1::JobReport& job : report.jobs()) {
    const absl::StatusOr<JobReportResult> result =
        ApplyJobReport(*store_, *blobs_, delivered_, worker, job, clock_->Now());
    if (!result.ok()) {
      LogWarning("worker {}, job {}: {}", worker.value, job.job_id(),
                 std::string(result.status().message()));
      continue;
    }
    if (options_.on_job_report) options_.on_job_report(*result);
    acks.push_back(result->ack);
    wanted.insert(result->missing_blobs.begin(), result->missing_blobs.end());
    moved |= result->moved;
    if (result->changed) hub_->Notify({job.job_id()});
  }
  const bool changed =
      fleet_->TakeReport(link, identity, taken, std::move(acks), std::move(wanted));
  if (changed || moved) controller_->Kick();
  return absl::OkStatus();
}

void Ingest::Leave(const SessionLink* link) {
  if (fleet_->Disconnect(link)) controller_->Kick();
}

absl::Status Ingest::BlobArrived(const WorkerId& worker, const BlobId& blob) {
  RETURN_IF_ERROR(
      store_->Write([&](Txn& txn) { return RecordBlob(txn, *blobs_, blob, clock_->Now()); }));
  delivered_.Add(worker, blob);
  fleet_->BlobArrived(blob.value);
  return absl::OkStatus();
}

v1::WorkerReport Ingest::TakeBases(const v1::WorkerReport& report, std::set<std::string>& wanted) {
  v1::WorkerReport taken = report;
  taken.clear_bases();
  for (const v1::BaseInfo& info : report.bases()) {
    const absl::Status status = StoreBase({report.worker_id()}, info);
    if (!status.ok()) {
      const std::string line = absl::StrCat("base ", info.base().display_name(), " of worker ",
                                            report.worker_id(), ": ", status.message());
      absl::MutexLock lock(&mu_);
      if (said_.size() >= kMostSaid) said_.clear();
      if (said_.insert(line).second) LogWarning("{}", line);  // once, not with every report
    }
    // One with other files than are known is no holder of the base.
    if (absl::IsFailedPrecondition(status)) continue;
    *taken.add_bases() = info;
    if (!status.ok()) continue;
    for (const v1::AdapterFile& file : info.text_files()) {
      if (absl::IsNotFound(blobs_->Size({file.sha256()}).status())) wanted.insert(file.sha256());
    }
  }
  return taken;
}

// A base's hash covers its files: one of the same name has the same bytes for ever, and one that is
// known stays. What a newer worker reads in addition may come. Adds to `info` what it lacks.
absl::Status KeepFiles(ReadTxn& txn, const BaseHash& hash, v1::BaseInfo& info) {
  const absl::StatusOr<BaseRecord> known = txn.GetBase(hash);
  if (absl::IsNotFound(known.status())) return absl::OkStatus();
  RETURN_IF_ERROR(known.status());
  std::map<std::string, std::string> files;
  for (const v1::AdapterFile& file : info.text_files()) files[file.filename()] = file.sha256();
  for (const v1::AdapterFile& file : known->info.text_files()) {
    const auto it = files.find(file.filename());
    if (it == files.end()) {
      *info.add_text_files() = file;
      continue;
    }
    if (it->second == file.sha256()) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "the worker has another ", file.filename(), " than is known of the base with this hash, ",
        hash.value, "; its word on it is not taken: look at that worker's base folder"));
  }
  return absl::OkStatus();
}

// Workers may name the same folder differently; one word holds while the worker
// that gave it is there.
absl::Status Ingest::StoreBase(const WorkerId& worker, const v1::BaseInfo& info) {
  v1::BaseInfo clean = info;
  clean.mutable_base()->clear_worker_count();
  const std::string hash = clean.base().name().substr(sizeof(kBasePrefix) - 1);
  const std::string text = clean.SerializeAsString();
  bool others = false;
  {
    absl::MutexLock lock(&mu_);
    const auto owner = base_owners_.find(hash);
    const bool own = owner != base_owners_.end() && owner->second == worker;
    others = owner != base_owners_.end() && !own && fleet_->IsConnected(owner->second);
    const auto judged = judged_.find({worker, hash});
    if (judged != judged_.end() && judged->second.text == text &&
        (own || others || !judged->second.status.ok())) {
      return judged->second.status;
    }
  }
  absl::Status status;
  if (others) {
    status = store_->Read([&](ReadTxn& txn) { return KeepFiles(txn, {hash}, clean); });
  } else {
    status = store_->Write([&](Txn& txn) -> absl::Status {
      v1::BaseInfo kept = clean;
      RETURN_IF_ERROR(KeepFiles(txn, {hash}, kept));
      return txn.PutBase({hash}, kept);
    });
  }
  if (!status.ok() && !absl::IsFailedPrecondition(status)) return status;
  absl::MutexLock lock(&mu_);
  if (judged_.size() >= kMostJudged) judged_.clear();
  judged_[{worker, hash}] = {text, status};
  if (status.ok() && !others) base_owners_[hash] = worker;
  return status;
}

}  // namespace tundra::coordinator
