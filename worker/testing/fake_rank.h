// A rank process for tests of the supervisor: speaks the link's protocol, loads
// and trains nothing. RankProcess starts /proc/self/exe again with "rank", which
// in the test program ends here; the main() below it does that.
//
// $TUNDRA_FAKE_RANK says how it behaves:
//   (empty)   reports a shard, its address, READY; "trains" what it is told to:
//             checkpoints of steps 1 to $TUNDRA_FAKE_STEPS, then waits to be steered
//   exits     ends with status 7 at once
//   deaf      never reads its link
//   garbage   sends bytes that make no message
//   lost      reports LOST with a reason and ends
//   unready   stays LOADING for ever
#pragma once

namespace tundra::worker {

// Returns the process's exit status.
int FakeRankMain();

}  // namespace tundra::worker
