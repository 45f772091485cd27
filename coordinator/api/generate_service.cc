// GenerateService over gRPC: the client's end of the relay, and the upload of
// adapter folders.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/api/call.h"
#include "coordinator/api/catalog.h"
#include "coordinator/api/services.h"
#include "coordinator/api/streams.h"
#include "tundra/v1/generate.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using Call = grpc::CallbackServerContext;

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr int64_t kMaxAdapterBytes = int64_t{1} << 30;
constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;

// How long the call may wait for a worker: to its deadline, less what its answer
// needs to arrive.
absl::Duration PatienceOf(const Call& call) {
  const absl::Duration left = absl::FromChrono(call.deadline() - std::chrono::system_clock::now());
  return std::clamp(left - absl::Milliseconds(200), absl::ZeroDuration(), kPatience);
}

class GenerateReactor : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                        public std::enable_shared_from_this<GenerateReactor> {
 public:
  GenerateReactor(const Context* context, Catalog* catalog, Call* call, v1::GenerateRequest request)
      : context_(context),
        catalog_(catalog),
        patience_(PatienceOf(*call)),
        request_(std::move(request)),
        timer_(context, "Generate"),
        who_(Authorize(*context, *call, "Generate")) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Begin() {
    self_ = shared_from_this();
    if (!who_.ok()) {
      End(who_.status);
      return this;
    }
    auto self = self_;
    if (!context_->executor->TryRun([self] { self->Start(); })) End(Busy());
    return this;
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
    }
    if (ok) {
      Pump();
    } else {
      End(absl::CancelledError("cancelled"));
    }
  }
  void OnCancel() override { End(absl::CancelledError("cancelled")); }
  void OnDone() override { self_.reset(); }

 private:
  void Start() {
    absl::StatusOr<v1::GenerateTask> task = catalog_->MakeTask(who_.caller, request_);
    if (!task.ok()) return End(task.status());
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
      task_ = task->task_id();
    }
    const absl::Status status = context_->relay->Start(*task, patience_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Pump();
    });
    if (!status.ok()) return End(status);
    absl::MutexLock lock(&mu_);
    // The client went while the task was being given out.
    if (finished_) context_->relay->Forget(task_);
  }

  void Pump() {
    GenerationRelay::Piece piece;
    {
      absl::MutexLock lock(&mu_);
      if (finished_ || writing_) return;
      piece = context_->relay->Take(task_);
      if (piece.response.has_value()) {
        response_ = *std::move(piece.response);
        writing_ = true;
        StartWrite(&response_);
        return;
      }
    }
    if (piece.done) End(piece.status);
  }

  void End(const absl::Status& status) {
    std::string task;
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
      finished_ = true;
      task = task_;
      const grpc::Status out = ToGrpc(status);
      timer_.Done(out);
      Finish(out);
    }
    if (!task.empty()) context_->relay->Forget(task);
  }

  const Context* const context_;
  Catalog* const catalog_;
  const absl::Duration patience_;
  const v1::GenerateRequest request_;
  const CallTimer timer_;
  const Authorization who_;
  std::shared_ptr<GenerateReactor> self_;
  v1::GenerateResponse response_;
  absl::Mutex mu_;
  std::string task_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

class AdapterUpload : public UploadReactor<v1::UploadAdapterRequest, v1::UploadAdapterResponse> {
 public:
  AdapterUpload(const Context* context, Catalog* catalog, Call* call,
                v1::UploadAdapterResponse* response)
      : UploadReactor(context, "UploadAdapter", call, response), catalog_(catalog) {}

 protected:
  absl::Status OnMessage(const v1::UploadAdapterRequest& request) override {
    if (request.has_metadata()) {
      RETURN_IF_ERROR(EndFile());
      return BeginFile(request.metadata());
    }
    if (adapter_.files().empty()) return absl::InvalidArgumentError("metadata must come first");
    if (is_config_ && config_.size() <= kMaxConfigBytes) config_ += request.chunk();
    if (writer_ != nullptr) return writer_->Append(request.chunk());
    hash_.Update(request.chunk());
    return absl::OkStatus();
  }

  absl::Status OnEnd(v1::UploadAdapterResponse* response) override {
    RETURN_IF_ERROR(EndFile());
    if (adapter_.files_size() != 2) {
      return absl::InvalidArgumentError(
          "an adapter has two files: adapter_config.json and adapter_model.safetensors");
    }
    // The rest of it the worker judges, which knows the base.
    if (!nlohmann::json::parse(config_, nullptr, /*allow_exceptions=*/false).is_object()) {
      return absl::InvalidArgumentError(
          "adapter_config.json: not a JSON object; give the folder of an adapter as PEFT saves "
          "it");
    }
    ASSIGN_OR_RETURN(*response->mutable_name(), catalog_->KeepUpload(caller(), adapter_, sealed_));
    return absl::OkStatus();
  }

 private:
  absl::Status BeginFile(const v1::UploadAdapterRequest::FileMetadata& m) {
    is_config_ = m.filename() == "adapter_config.json";
    Violations v;
    v.Require(is_config_ || m.filename() == "adapter_model.safetensors", "metadata.filename",
              "must be adapter_config.json or adapter_model.safetensors");
    for (const v1::AdapterFile& file : adapter_.files()) {
      v.Require(file.filename() != m.filename(), "metadata.filename", "came twice");
    }
    v.Require(m.size_bytes() >= 1 && m.size_bytes() <= kMaxAdapterBytes, "metadata.size_bytes",
              "must be 1 byte to 1 GiB");
    v.Require(!is_config_ || m.size_bytes() <= kMaxConfigBytes, "metadata.size_bytes",
              "is over 1 MiB for adapter_config.json; is it the right file?");
    v.Require(IsSha256Hex(m.sha256()), "metadata.sha256", "must be the SHA-256 of the file");
    RETURN_IF_ERROR(v.ToStatus());
    v1::AdapterFile* const file = adapter_.add_files();
    file->set_filename(m.filename());
    file->set_sha256(m.sha256());
    file->set_size_bytes(m.size_bytes());
    // The bytes of a file that the tenant has already take no room: they are only compared.
    ASSIGN_OR_RETURN(const bool there, catalog_->HasUploaded(caller(), {m.sha256()}));
    if (there) return absl::OkStatus();
    ASSIGN_OR_RETURN(shares_.emplace_back(),
                     context()->uploads->Take(*context()->store, caller().tenant, m.size_bytes()));
    ASSIGN_OR_RETURN(writer_, context()->blobs->Create({m.sha256()}, m.size_bytes()));
    return absl::OkStatus();
  }

  absl::Status EndFile() {
    if (adapter_.files().empty()) return absl::OkStatus();
    if (writer_ != nullptr) {
      RETURN_IF_ERROR(writer_->Seal());
      sealed_.push_back(std::move(writer_));
      return absl::OkStatus();
    }
    const v1::AdapterFile& file = *adapter_.files().rbegin();
    if (std::exchange(hash_, Sha256()).Finish() == file.sha256()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(file.filename(), ": the bytes do not hash to ",
                                            file.sha256(), "; send them again"));
  }

  Catalog* const catalog_;
  v1::Adapter adapter_;
  // Of the file that comes; no writer when it is there already, and its bytes are hashed instead.
  bool is_config_ = false;
  Sha256 hash_;
  std::string config_;
  // In this order: room is given back after the files of a refused upload have gone.
  std::vector<UploadRoom::Share> shares_;
  std::unique_ptr<BlobWriter> writer_;
  std::vector<std::unique_ptr<BlobWriter>> sealed_;
};

class GenerateServiceImpl : public v1::GenerateService::CallbackService {
 public:
  explicit GenerateServiceImpl(const Context* context) : context_(context), catalog_(context) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(Call* call,
                                                           const v1::GenerateRequest* in) override {
    return std::make_shared<GenerateReactor>(context_, &catalog_, call, *in)->Begin();
  }
  grpc::ServerReadReactor<v1::UploadAdapterRequest>* UploadAdapter(
      Call* call, v1::UploadAdapterResponse* out) override {
    return std::make_shared<AdapterUpload>(context_, &catalog_, call, out)->Begin();
  }

 private:
  const Context* const context_;
  Catalog catalog_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewGenerateService(const Context* context) {
  return std::make_unique<GenerateServiceImpl>(context);
}

}  // namespace tundra::coordinator
