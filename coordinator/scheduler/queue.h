// Places the queued jobs, first come first served.
#pragma once

#include <set>
#include <vector>

#include "coordinator/scheduler/devices.h"
#include "coordinator/scheduler/schedule.h"

namespace tundra::coordinator {

// For each job that is QUEUED and wants to run, appends the decision to start it
// (with those to dissolve idle groups in its way) or a WaitJob that says why not.
// `gone` are groups that earlier decisions dissolve.
void PlaceQueue(const Snapshot& snapshot, const std::set<GroupId>& gone, DeviceTable& devices,
                std::vector<Decision>& decisions);

}  // namespace tundra::coordinator
