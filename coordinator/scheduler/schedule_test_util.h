// For tests of the scheduler: what there is, in few words.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "coordinator/scheduler/schedule.h"

namespace tundra::coordinator {

inline const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

inline WorkerView NewWorker(const std::string& id, int devices,
                            std::vector<std::string> bases = {"B"}) {
  WorkerView worker;
  worker.id.value = id;
  worker.build = "build-1";
  worker.incarnation = id + "-run";
  worker.connected = true;
  for (int i = 0; i < devices; ++i) worker.devices.push_back({i, "class-1", 0});
  for (const std::string& base : bases) worker.bases.insert({base});
  return worker;
}

inline JobView NewJob(const std::string& id, int devices = 0, const std::string& base = "B") {
  JobView job;
  job.id.value = id;
  job.base.value = base;
  if (devices > 0) job.min_devices = job.max_devices = devices;
  return job;
}

inline GroupView NewGroup(const std::string& id, const WorkerView& worker, std::vector<int> devices,
                          const std::string& job = "", const std::string& base = "B") {
  GroupView group;
  group.record.id.value = id;
  group.record.epoch = 1;
  group.record.base.value = base;
  group.record.numerics_class = "class-1";
  group.record.build = "build-1";
  group.record.job.value = job;
  for (const int device : devices) {
    group.record.members.push_back({worker.id, device, worker.incarnation});
  }
  return group;
}

// A job that runs in a group.
inline JobView Placed(const std::string& id, const std::string& group,
                      v1::JobState state = v1::RUNNING) {
  JobView job = NewJob(id);
  job.state = state;
  job.group.value = group;
  job.numerics_class = "class-1";
  job.attempt_reported = true;
  return job;
}

inline Snapshot World(std::vector<WorkerView> workers, std::vector<GroupView> groups,
                      std::vector<JobView> jobs) {
  return {.jobs = std::move(jobs),
          .groups = std::move(groups),
          .workers = std::move(workers),
          .bases = {{{"B"}, {"tiny-tales", 100}}, {{"C"}, {"other", 100}}}};
}

template <typename T>
std::vector<T> Only(const std::vector<Decision>& decisions) {
  std::vector<T> out;
  for (const Decision& decision : decisions) {
    if (const T* d = std::get_if<T>(&decision)) out.push_back(*d);
  }
  return out;
}

}  // namespace tundra::coordinator
