// The coordinator's Prometheus metrics: prefix tundra_, base units, and no job,
// worker or user in a label.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "coordinator/workers/rpc_observer.h"

namespace tundra::coordinator {

// Gauges that are asked for when somebody looks.
struct GaugeReadings {
  std::map<std::string, double> jobs;     // by state
  std::map<std::string, double> workers;  // by state
  double queue_devices = 0;
  double queue_oldest_seconds = 0;
  double checkpoint_oldest_age_seconds = 0;
};

// Thread-safe.
class Metrics : public RpcObserver {
 public:
  // `version` goes into build_info.
  explicit Metrics(const std::string& version);
  ~Metrics() override;

  void OnRpc(std::string_view method, int code, absl::Duration took) override;
  void OnCommit(absl::Duration took);
  void OnSteps(int64_t steps, int64_t tokens);
  void OnFailure(const std::string& reason);
  void OnFencedWrite();
  void OnAuthFailure(std::string_view reason);

  // Sets the gauges, and returns everything in the text format.
  std::string Render(const GaugeReadings& readings);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace tundra::coordinator
