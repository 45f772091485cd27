// What the handlers of the API work with.
#pragma once

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "coordinator/access/authenticator.h"
#include "coordinator/api/dataset_validation.h"
#include "coordinator/api/page_tokens.h"
#include "coordinator/api/refusal_limit.h"
#include "coordinator/api/upload_room.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/store/store.h"
#include "coordinator/workers/controller.h"
#include "coordinator/workers/executor.h"
#include "coordinator/workers/fleet.h"
#include "coordinator/workers/generation.h"
#include "coordinator/workers/hub.h"
#include "coordinator/workers/ingest.h"
#include "coordinator/workers/rpc_observer.h"

namespace tundra::coordinator {

// All outlive the server.
struct Context {
  Store* store = nullptr;
  BlobStore* blobs = nullptr;
  Fleet* fleet = nullptr;
  Controller* controller = nullptr;
  Hub* hub = nullptr;
  Ingest* ingest = nullptr;
  GenerationRelay* relay = nullptr;
  DatasetValidator* validator = nullptr;
  Clock* clock = nullptr;
  // For the API's work on the store, for validation (which may hold a thread for
  // long), for what reads or writes blobs, and for reports of workers, which must
  // not wait for any of them: their leases run.
  Executor* executor = nullptr;
  Executor* validation_executor = nullptr;
  Executor* blob_executor = nullptr;
  Executor* session_executor = nullptr;
  RpcObserver* observer = nullptr;
  Authenticator* authenticator = nullptr;
  RefusalLimit* refusals = nullptr;
  const PageTokens* page_tokens = nullptr;
  UploadRoom* uploads = nullptr;
};

}  // namespace tundra::coordinator
