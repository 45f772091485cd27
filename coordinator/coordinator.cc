#include "coordinator/coordinator.h"

#include <thread>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status.h"
#include "coordinator/api/context.h"
#include "coordinator/api/server.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/blobs/garbage.h"
#include "coordinator/http/gauges.h"
#include "coordinator/http/job_watch.h"
#include "coordinator/http/metrics.h"
#include "coordinator/http/probe_server.h"
#include "coordinator/store/sqlite_store.h"

namespace tundra::coordinator {
namespace {

constexpr int kThreads = 8;
constexpr int kValidationThreads = 2;
constexpr int kBlobThreads = 4;
constexpr int kSessionThreads = 4;
constexpr size_t kMaxQueued = 1024;
constexpr absl::Duration kGarbageInterval = absl::Minutes(5);
constexpr absl::Duration kStopGrace = absl::Seconds(1);
constexpr char kVersion[] = "0.1.0";

absl::Status CheckAddress(const std::string& flag, const std::string& address, bool insecure) {
  std::pair<std::string, int> parts;
  ASSIGN_OR_RETURN(parts, SplitAddress(address));
  if (insecure || IsLoopback(parts.first)) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      flag, " ", address,
      " can be reached from other machines, and there is no authentication "
      "yet: anybody who reaches it can use it. Listen on 127.0.0.1, or say --insecure if the "
      "network is yours alone"));
}

class CoordinatorImpl : public Coordinator {
 public:
  explicit CoordinatorImpl(CoordinatorOptions options)
      : options_(std::move(options)),
        metrics_(kVersion),
        watch_(&metrics_, options_.clock),
        fleet_(options_.clock,
               {.heartbeat_interval = options_.heartbeat_interval, .lease = options_.lease}),
        relay_(&fleet_, options_.clock) {}

  ~CoordinatorImpl() override { Stop(); }

  absl::Status Start() {
    RETURN_IF_ERROR(CheckAddress("--listen", options_.listen, options_.insecure));
    RETURN_IF_ERROR(CheckAddress("--http", options_.http, options_.insecure));
    RETURN_IF_ERROR(OpenStores());
    controller_ = std::make_unique<Controller>(
        store_.get(), &fleet_, &hub_, options_.clock,
        ControllerOptions{.on_decision = [this](const Decision& d) { watch_.OnDecision(d); },
                          .on_plan = [this](const auto& held) { watch_.OnPlan(held); }});
    ingest_ = std::make_unique<Ingest>(
        store_.get(), blobs_.get(), &fleet_, controller_.get(), &hub_, options_.clock,
        IngestOptions{.on_job_report = [this](const JobReportResult& r) { watch_.OnReport(r); }});
    executor_ = std::make_unique<Executor>(kThreads, kMaxQueued);
    validation_executor_ = std::make_unique<Executor>(kValidationThreads, kMaxQueued);
    blob_executor_ = std::make_unique<Executor>(kBlobThreads, kMaxQueued);
    session_executor_ = std::make_unique<Executor>(kSessionThreads, kMaxQueued);
    FillContext();
    // A plan first: no worker may hear "drop your groups" from an empty mind.
    RETURN_IF_ERROR(controller_->Start());
    ASSIGN_OR_RETURN(api_, StartApiServer(options_.listen, &context_));
    ASSIGN_OR_RETURN(probes_,
                     StartProbeServer(options_.http, {.metrics = [this] { return Render(); },
                                                      .ready = [this] { return IsReady(); }}));
    housekeeping_ = std::thread([this] { Housekeeping(); });
    return absl::OkStatus();
  }

  int grpc_port() const override { return api_->port(); }
  int http_port() const override { return probes_->port(); }

  void Stop() override {
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      stopping_ = true;
    }
    // Sessions and watches end at the API server's stop; the executors drain
    // after it, while what they use is still there.
    fleet_.EndSessions();
    if (api_ != nullptr) api_->Stop(kStopGrace);
    if (probes_ != nullptr) probes_->Stop();
    if (housekeeping_.joinable()) housekeeping_.join();
    if (controller_ != nullptr) controller_->Stop();
    executor_.reset();
    validation_executor_.reset();
    blob_executor_.reset();
    session_executor_.reset();
  }

 private:
  absl::Status OpenStores() {
    SqliteOptions sqlite;
    sqlite.data_dir = options_.data_dir;
    sqlite.on_commit = [this](absl::Duration took) { metrics_.OnCommit(took); };
    ASSIGN_OR_RETURN(store_, OpenSqliteStore(std::move(sqlite)));
    ASSIGN_OR_RETURN(blobs_, OpenDirectoryBlobStore(options_.data_dir));
    return absl::OkStatus();
  }

  void FillContext() {
    context_.store = store_.get();
    context_.blobs = blobs_.get();
    context_.fleet = &fleet_;
    context_.controller = controller_.get();
    context_.hub = &hub_;
    context_.ingest = ingest_.get();
    context_.relay = &relay_;
    context_.validator = options_.validator.get();
    context_.clock = options_.clock;
    context_.executor = executor_.get();
    context_.validation_executor = validation_executor_.get();
    context_.blob_executor = blob_executor_.get();
    context_.session_executor = session_executor_.get();
    context_.observer = &metrics_;
  }

  bool IsReady() {
    absl::MutexLock lock(&mu_);
    return !stopping_;
  }

  std::string Render() {
    GaugeReadings readings;
    readings.leader = IsReady();
    watch_.CountDeviceSeconds();
    for (const auto& [state, count] : fleet_.CountWorkers()) readings.workers[state] = count;
    const absl::Status status = store_->Read(
        [&](ReadTxn& txn) { return MeasureJobs(txn, options_.clock->Now(), watch_, readings); });
    if (!status.ok()) LogWarning("metrics: {}", std::string(status.message()));
    MeasureVolume(options_.data_dir, readings);
    return metrics_.Render(readings);
  }

  void Housekeeping() {
    absl::Duration next_garbage = options_.clock->Monotonic();
    for (;;) {
      {
        absl::MutexLock lock(&mu_);
        mu_.AwaitWithTimeout(absl::Condition(&stopping_), absl::Seconds(1));
        if (stopping_) return;
      }
      relay_.Expire();
      if (options_.clock->Monotonic() < next_garbage) continue;
      next_garbage = options_.clock->Monotonic() + kGarbageInterval;
      const absl::StatusOr<int> removed =
          CollectGarbage(*store_, *blobs_, options_.clock->Now(), options_.blob_grace);
      if (!removed.ok()) {
        LogWarning("garbage: {}", std::string(removed.status().message()));
      } else if (*removed > 0) {
        LogInfo("removed {} blobs that nothing refers to", *removed);
      }
    }
  }

  CoordinatorOptions options_;
  Metrics metrics_;
  JobWatch watch_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<BlobStore> blobs_;
  Fleet fleet_;
  Hub hub_;
  GenerationRelay relay_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<Ingest> ingest_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Executor> validation_executor_;
  std::unique_ptr<Executor> blob_executor_;
  std::unique_ptr<Executor> session_executor_;
  Context context_;
  std::unique_ptr<ApiServer> api_;
  std::unique_ptr<ProbeServer> probes_;
  std::thread housekeeping_;
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> StartCoordinator(CoordinatorOptions options) {
  auto coordinator = std::make_unique<CoordinatorImpl>(std::move(options));
  RETURN_IF_ERROR(coordinator->Start());
  return coordinator;
}

}  // namespace tundra::coordinator
