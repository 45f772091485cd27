#include "coordinator/coordinator.h"

#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/logging.h"
#include "common/rpc.h"
#include "common/status.h"
#include "common/version.h"
#include "coordinator/api/context.h"
#include "coordinator/api/server.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/blobs/garbage.h"
#include "coordinator/http/gauges.h"
#include "coordinator/http/job_watch.h"
#include "coordinator/http/metrics.h"
#include "coordinator/http/probe_server.h"
#include "coordinator/http/web_server.h"
#include "coordinator/http/web_tls.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/workers/drained.h"

namespace tundra::coordinator {
namespace {

constexpr int kThreads = 8;
constexpr int kValidationThreads = 2;
constexpr int kBlobThreads = 4;
constexpr int kSessionThreads = 4;
constexpr size_t kMaxQueued = 1024;
constexpr absl::Duration kGarbageInterval = absl::Minutes(5);
constexpr absl::Duration kStopGrace = absl::Seconds(1);
constexpr int64_t kMostAuditEntries = 1'000'000;

// Errors: kPermissionDenied for what would let in anybody, or tell everybody.
absl::Status CheckPort(const std::string& flag, const std::string& address,
                       const CoordinatorOptions& options) {
  RETURN_IF_ERROR(SplitAddress(address).status());
  if (IsLoopbackAddress(address)) return absl::OkStatus();
  if (options.auth.allow_anonymous) {
    return absl::PermissionDeniedError(
        absl::StrCat(flag, " ", address,
                     " can be reached from other machines: --allow-anonymous, which lets "
                     "everybody in, is for loopback only"));
  }
  if (options.insecure || !options.tls.cert.empty()) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(flag, " ", address,
                   " can be reached from other machines, and nothing would be encrypted: give "
                   "--tls-cert and --tls-key (tools/make-certificates makes some), listen on "
                   "127.0.0.1, or say --insecure if the network is yours alone"));
}

absl::Status CheckSafety(const CoordinatorOptions& options) {
  RETURN_IF_ERROR(CheckPort("--listen", options.listen, options));
  RETURN_IF_ERROR(CheckPort("--web", options.web, options));
  // Probes and metrics only: no names of jobs or users.
  RETURN_IF_ERROR(SplitAddress(options.http).status());
  if (options.tls.cert.empty() && !options.tls.ca.empty()) {
    return absl::InvalidArgumentError(
        "--tls-client-ca needs the server's own certificate too: --tls-cert and --tls-key");
  }
  if (!IsLoopbackAddress(options.listen) && !options.insecure &&
      !options.auth.worker_token_file.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat("--listen ", options.listen,
                     " can be reached from other machines: workers there need certificates of "
                     "their own (--tls-client-ca), not the shared --worker-token-file"));
  }
  return absl::OkStatus();
}

class CoordinatorImpl : public Coordinator {
 public:
  explicit CoordinatorImpl(CoordinatorOptions options)
      : options_(std::move(options)),
        metrics_(ProgramVersion()),
        watch_(&metrics_, options_.clock),
        fleet_(options_.clock,
               {.heartbeat_interval = options_.heartbeat_interval, .lease = options_.lease}),
        relay_(&fleet_, options_.clock) {}

  ~CoordinatorImpl() override { Stop(); }

  absl::Status Start() {
    RETURN_IF_ERROR(CheckSafety(options_));
    if (!options_.tls.cert.empty() || !options_.tls.key.empty()) {
      ASSIGN_OR_RETURN(tls_, TlsSource::Open(options_.tls));
    }
    RETURN_IF_ERROR(OpenStores());
    RETURN_IF_ERROR(StartAccess());
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
    ASSIGN_OR_RETURN(api_, StartApiServer(options_.listen, tls_, &context_));
    ASSIGN_OR_RETURN(probes_,
                     StartProbeServer(options_.http, {.metrics = [this] { return Render(); },
                                                      .ready = [this] { return IsReady(); }}));
    WebOptions web;
    web.address = options_.web;
    web.api = api_->InProcessChannel();
    web.authorize = [this](const WebCaller& caller, std::string_view method) {
      Credentials credentials;
      if (!caller.authorization.empty()) credentials.authorization = caller.authorization;
      credentials.peer = caller.peer;
      // A known caller that may not is refused by the API, which also audits it.
      return authenticator_->Knows(credentials)
                 ? absl::OkStatus()
                 : authenticator_->Authorize(credentials, method).status;
    };
    if (tls_ != nullptr) web.tls = ServerContexts(tls_);
    ASSIGN_OR_RETURN(web_, StartWebServer(std::move(web)));
    housekeeping_ = std::thread([this] { Housekeeping(); });
    return absl::OkStatus();
  }

  int grpc_port() const override { return api_->port(); }
  int http_port() const override { return probes_->port(); }
  int web_port() const override { return web_->port(); }

  void Stop() override {
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      stopping_ = true;
    }
    // Sessions and watches end at the API server's stop; the executors drain
    // after it, while what they use is still there.
    fleet_.EndSessions();
    if (web_ != nullptr) web_->Stop();
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
    ASSIGN_OR_RETURN(page_tokens_, PageTokens::Open(options_.data_dir));
    return absl::OkStatus();
  }

  absl::Status StartAccess() {
    options_.auth.on_failure = [this](std::string_view reason) { metrics_.OnAuthFailure(reason); };
    options_.auth.tls = tls_;
    authenticator_ = std::make_unique<Authenticator>(store_.get(), options_.clock, options_.auth);
    RETURN_IF_ERROR(authenticator_->Start());
    return LoadDrained(*store_, fleet_);
  }

  void FillContext() {
    context_.authenticator = authenticator_.get();
    context_.refusals = &refusals_;
    context_.page_tokens = &*page_tokens_;
    context_.uploads = &uploads_;
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
    const absl::Status status = store_->Read([&](ReadTxn& txn) -> absl::Status {
      RETURN_IF_ERROR(MeasureJobs(txn, options_.clock->Now(), watch_, readings));
      return MeasureQuotas(txn, readings);
    });
    if (!status.ok()) LogWarning("metrics: {}", std::string(status.message()));
    MeasureVolume(options_.data_dir, readings);
    if (tls_ != nullptr) metrics_.SetCertExpiry(tls_->Get().first->not_after);
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
      authenticator_->Refresh();
      if (tls_ != nullptr) tls_->Refresh();
      if (options_.clock->Monotonic() < next_garbage) continue;
      next_garbage = options_.clock->Monotonic() + kGarbageInterval;
      const absl::Status thinned =
          store_->Write([](Txn& txn) { return txn.KeepAudit(kMostAuditEntries); });
      if (!thinned.ok()) LogWarning("audit: {}", std::string(thinned.message()));
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
  std::shared_ptr<TlsSource> tls_;
  JobWatch watch_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Authenticator> authenticator_;
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
  RefusalLimit refusals_;
  std::optional<PageTokens> page_tokens_;
  UploadRoom uploads_;
  Context context_;
  std::unique_ptr<ApiServer> api_;
  std::unique_ptr<ProbeServer> probes_;
  std::unique_ptr<WebServer> web_;
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
