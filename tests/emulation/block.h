// Runs the threads of a CUDA block on the CPU, as fibres of one OS thread: what
// tests/emulation/kernel.h is built on.
//
// A thread runs until it meets a barrier of its block or a collective of its warp, where it
// waits for the others. Nothing runs at the same time, so a race shows as a result that
// depends on the order in which threads run; SetOrder changes it. What would be undefined
// behaviour on a device is an error here, with the kernel, block and thread:
//   * an access outside of a view, a row, shared memory or any live device allocation;
//   * a barrier that not all threads of the block reach, a warp collective that not all
//     lanes reach, or on which lanes disagree;
//   * copies of CpAsync that are never waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

// As in CUDA. Written by the emulation before a thread runs.
struct dim3 {
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned x, y, z;
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tundra::emulation {

// Ends the kernel with an error. Thrown by Fail, caught by RunGrid.
struct KernelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// "kernel K, block (x, y, z), thread (x, y, z): message".
[[noreturn]] void Fail(const std::string& message);

struct Shape {
  dim3 grid, block;
  size_t shared_bytes = 0;
};

// Runs all blocks one after another. Returns "" or what went wrong first; blocks after an
// error don't run. `name` is the kernel's, for messages and Launches().
std::string RunGrid(const std::string& name, const Shape& shape,
                    const std::function<void()>& kernel);

// The order of blocks in a grid and threads in a block: 0 rising, 1 falling, else a shuffle
// with that seed. Of the whole process.
void SetOrder(uint32_t order);

// For code inside a kernel.
void SyncBlock();
// All lanes of the warp meet; the last one calls run(args of lane 0…31), then all go on.
using Collective = void (*)(void* const* args);
void MeetWarp(Collective run, void* args);
unsigned char* SharedMemory();
size_t SharedBytes();
// A copy that happens when CpAsyncWait lets it: 16 bytes, zeros when from is null.
void AddAsyncCopy(void* to, const void* from);
void CommitAsyncCopies();
void WaitAsyncCopies(int newest_left);

// How often each kernel was launched with a grid that is not empty, by its name without
// template arguments.
struct LaunchCount {
  std::string kernel;
  int64_t launches = 0;
};
void CountLaunch(const std::string& name);
int64_t Launches(const std::string& kernel);

}  // namespace tundra::emulation
