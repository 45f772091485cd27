// A rank process: one device in one epoch of one group.
#pragma once

namespace tundra::worker {

// Runs the rank whose supervisor is at descriptor kRankFd, until the supervisor
// ends it or the group breaks. Returns the process's exit status.
int RankMain();

}  // namespace tundra::worker
