// A stand-in for NCCL and the CUDA runtime, for tests: ranks are threads of one
// process, device memory is host memory, and faults strike where they are told to.
//
// It is as unhelpful as the real thing may be. A communicator is not ready at once,
// work is put on a stream only some polls after the call, a collective waits for all
// ranks without end, and nobody is told when a peer has gone (as between devices
// that share memory). Misuse is counted: see NcclStandInMisuse.
//
// A rank is known by its device: tests give each rank of each group a device of its
// own, by NewStandInDevice.
#pragma once

#include <string>
#include <vector>

#include "worker/collective/nccl_api.h"

namespace tundra {

const NcclApi& NcclStandIn();

int NewStandInDevice();

enum class NcclFault {
  kInitHangs,       // the communicator never gets ready
  kInitCallHangs,   // ncclCommInitRankConfig does not return
  kInitFails,       // ncclCommInitRankConfig: invalid usage
  kLaunchFails,     // a collective returns an error
  kLaunchHangs,     // a collective does not return
  kEnqueueHangs,    // a collective stays "in progress" for ever
  kKernelHangs,     // a collective is on the stream and never arrives at its peers
  kKernelEndsLate,  // a collective's kernel ends only when all other ranks have left
  kAsyncError,      // ncclCommGetAsyncError: remote error; the kernel ends without result
  kDeviceError,     // cudaEventQuery: an error; the kernel never arrives at its peers
  kQueryHangs,      // cudaEventQuery does not return, nor does the kernel arrive
  kAbortHangs,      // ncclCommAbort does not return
  kFinalizeHangs,   // ncclCommFinalize stays "in progress" for ever
};

// The fault strikes at that device's collective number `call` (from 0, over all its
// communicators); the init faults at that communicator; those of abort and finalize
// at once, at every communicator.
void InjectNcclFault(int device, NcclFault fault, int call = 0);

// Lets every function return that hangs, or will, on that device, with an error.
void ReleaseStandIn(int device);

// A stream of the device with work on it that goes on until FinishStandInWork.
CudaStream NewBusyStandInStream(int device);
void FinishStandInWork(CudaStream stream);

// What was done to a device's communicators.
struct NcclStandInCounts {
  int made = 0;
  int aborted = 0;
  int destroyed = 0;
  // Collectives, each by the number of its communicator on the device.
  std::vector<int> launched;
};
NcclStandInCounts StandInCounts(int device);

// Uses that NCCL or CUDA forbid or that engine rules do: a communicator used after
// its end or before it is ready, destroyed after a failure or without finalize, two
// functions in one communicator at once, ranks that disagree, work of a device on a
// thread that has another one set. Empty when all was well.
std::vector<std::string> NcclStandInMisuse();

}  // namespace tundra
