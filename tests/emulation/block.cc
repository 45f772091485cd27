#include "tests/emulation/block.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace tundra::emulation {
namespace {

namespace context = boost::context;

constexpr size_t kStackBytes = size_t{256} << 10;
constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
// What shared memory holds before a block writes to it: not a number as f32 or bf16.
constexpr unsigned char kUnwritten = 0xff;

std::string Text(const dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct AsyncCopy {
  void* to = nullptr;
  const void* from = nullptr;
  int group = -1;  // -1 until it is committed
};

// What a sanitizer must be told when stacks change.
class StackSwitch {
 public:
#if defined(__SANITIZE_ADDRESS__)
  // Before leaving this stack for [bottom, bottom + size), and after coming back to it.
  void Leave(const void* bottom, size_t size) {
    __sanitizer_start_switch_fiber(&fake_, bottom, size);
  }
  void LeaveForGood(const void* bottom, size_t size) {
    __sanitizer_start_switch_fiber(nullptr, bottom, size);
  }
  void Back(const void** from_bottom, size_t* from_size) {
    __sanitizer_finish_switch_fiber(fake_, from_bottom, from_size);
  }

 private:
  void* fake_ = nullptr;
#else
  void Leave(const void*, size_t) {}
  void LeaveForGood(const void*, size_t) {}
  void Back(const void**, size_t*) {}
#endif
};

// A stack that runs one task after another.
class Fibre {
 public:
  Fibre() : stack_(context::protected_fixedsize_stack(kStackBytes).allocate()) {
    context_ =
        context::fiber(std::allocator_arg, context::preallocated(stack_.sp, stack_.size, stack_),
                       context::protected_fixedsize_stack(kStackBytes),
                       [this](context::fiber&& from) { return Loop(std::move(from)); });
  }

  // Its task has ended.
  ~Fibre() {
    task_ = nullptr;
    Resume(nullptr);
  }
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // From the scheduler: goes on with the task until it waits or ends.
  void Resume(const std::function<void()>* task) {
    if (task != nullptr) task_ = task;
    to_scheduler_.Leave(Bottom(), stack_.size);
    context_ = std::move(context_).resume();
    to_scheduler_.Back(nullptr, nullptr);
  }
  // From the task: back to the scheduler, until the next Resume.
  void Wait() {
    to_fibre_.Leave(scheduler_bottom_, scheduler_size_);
    scheduler_ = std::move(scheduler_).resume();
    to_fibre_.Back(&scheduler_bottom_, &scheduler_size_);
  }

 private:
  const void* Bottom() const { return static_cast<const char*>(stack_.sp) - stack_.size; }

  context::fiber Loop(context::fiber&& from) {
    scheduler_ = std::move(from);
    to_fibre_.Back(&scheduler_bottom_, &scheduler_size_);
    while (task_ != nullptr) {
      (*task_)();
      Wait();
    }
    to_fibre_.LeaveForGood(scheduler_bottom_, scheduler_size_);
    return std::move(scheduler_);
  }

  context::stack_context stack_;
  context::fiber context_, scheduler_;
  const std::function<void()>* task_ = nullptr;
  StackSwitch to_scheduler_, to_fibre_;
  const void* scheduler_bottom_ = nullptr;
  size_t scheduler_size_ = 0;
};

struct Thread {
  State state = State::kReady;
  Fibre* fibre = nullptr;
  dim3 index;
  Collective collective = nullptr;
  void* args = nullptr;
  std::vector<AsyncCopy> copies;
  int groups = 0;
};

struct Runner;
thread_local Runner* g_runner = nullptr;
uint32_t g_order = 0;

std::vector<unsigned> OrderOf(unsigned n, uint32_t order) {
  std::vector<unsigned> sequence(n);
  std::iota(sequence.begin(), sequence.end(), 0u);
  if (order == 0) return sequence;
  std::reverse(sequence.begin(), sequence.end());
  if (order == 1) return sequence;
  uint64_t state = order;
  for (unsigned i = n; i > 1; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(sequence[i - 1], sequence[(state >> 33) % i]);
  }
  return sequence;
}

// One block after another, on fibres that are kept.
struct Runner {
  std::string kernel_name;
  std::vector<Thread> threads;
  unsigned current = 0;
  std::vector<unsigned char> shared_storage;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  std::deque<std::unique_ptr<Fibre>> fibres;
  std::vector<Fibre*> idle;
  std::function<void()> task;
  std::string error;
  bool abandoned = false;  // waiting threads end instead of going on

  void RunBlock(const std::function<void()>& kernel, const Shape& shape);
  void Abandon();
  // From a thread: lets others run.
  void Wait() {
    threads[current].fibre->Wait();
    if (abandoned) throw KernelError("abandoned");
  }

 private:
  Fibre* TakeFibre() {
    if (idle.empty()) {
      fibres.push_back(std::make_unique<Fibre>());
      return fibres.back().get();
    }
    Fibre* fibre = idle.back();
    idle.pop_back();
    return fibre;
  }
  bool RunWarp(unsigned warp, const std::vector<unsigned>& lanes);
  void RunThread(unsigned i);
  bool ReleaseBarrier();
};

void Runner::RunThread(unsigned i) {
  Thread& thread = threads[i];
  current = i;
  threadIdx = thread.index;
  const bool fresh = thread.fibre == nullptr;
  if (fresh) thread.fibre = TakeFibre();
  thread.fibre->Resume(fresh ? &task : nullptr);
  if (thread.state == State::kDone) {
    idle.push_back(thread.fibre);
    thread.fibre = nullptr;
    if (!thread.copies.empty() && error.empty()) {
      error = "kernel " + kernel_name + ", block " + Text(blockIdx) + ", thread " +
              Text(thread.index) + ": ends with copies of CpAsync that were never waited for";
    }
  }
}

// Runs the lanes of one warp until none can go on. Whether any did.
bool Runner::RunWarp(unsigned warp, const std::vector<unsigned>& lanes) {
  bool any = false;
  for (bool again = true; again;) {
    again = false;
    for (const unsigned lane : lanes) {
      if (threads[warp * kWarp + lane].state != State::kReady) continue;
      RunThread(warp * kWarp + lane);
      if (!error.empty()) return false;
      again = any = true;
    }
  }
  return any;
}

// When nothing can run: all threads go on from the barrier, or something is wrong.
bool Runner::ReleaseBarrier() {
  size_t at_barrier = 0, in_warp = 0;
  for (const Thread& thread : threads) {
    at_barrier += thread.state == State::kAtBarrier ? 1 : 0;
    in_warp += thread.state == State::kInWarp ? 1 : 0;
  }
  if (at_barrier + in_warp == 0) return false;
  if (at_barrier < threads.size()) {
    const auto stuck = std::find_if(threads.begin(), threads.end(), [](const Thread& thread) {
      return thread.state == State::kAtBarrier || thread.state == State::kInWarp;
    });
    error = "kernel " + kernel_name + ", block " + Text(blockIdx) + ", thread " +
            Text(stuck->index) + ": waits for ever: of " + std::to_string(threads.size()) +
            " threads " + std::to_string(at_barrier) + " are at a barrier of the block, " +
            std::to_string(in_warp) + " at a collective of their warp, and the rest have ended";
    return false;
  }
  for (Thread& thread : threads) thread.state = State::kReady;
  return true;
}

// Ends all threads of a block that failed, so that their fibres can be used again.
void Runner::Abandon() {
  abandoned = true;
  for (unsigned i = 0; i < threads.size(); ++i) {
    threads[i].copies.clear();
    if (threads[i].fibre != nullptr) RunThread(i);
  }
  abandoned = false;
}

void Runner::RunBlock(const std::function<void()>& kernel, const Shape& shape) {
  const unsigned count = shape.block.x * shape.block.y * shape.block.z;
  threads.assign(count, Thread());
  for (unsigned i = 0; i < count; ++i) {
    threads[i].index = dim3(i % shape.block.x, i / shape.block.x % shape.block.y,
                            i / (shape.block.x * shape.block.y));
  }
  shared_bytes = shape.shared_bytes;
  shared_storage.assign(shared_bytes + 128, kUnwritten);
  const auto address = reinterpret_cast<uintptr_t>(shared_storage.data());
  shared = shared_storage.data() + (128 - address % 128) % 128;
  task = [this, &kernel] {
    try {
      kernel();
    } catch (const KernelError& failure) {
      if (error.empty()) error = failure.what();
    }
    threads[current].state = State::kDone;
  };
  const std::vector<unsigned> warps = OrderOf(count / kWarp, g_order), lanes = OrderOf(32, g_order);
  do {
    for (const unsigned warp : warps) {
      RunWarp(warp, lanes);
      if (!error.empty()) return;
    }
  } while (ReleaseBarrier());
}

std::string CheckShape(const Shape& shape) {
  const unsigned count = shape.block.x * shape.block.y * shape.block.z;
  if (count == 0 || count % kWarp != 0 || count > kMaxThreads) {
    return "a block of " + std::to_string(count) + " threads is not 1 to 32 whole warps";
  }
  // The largest that one block can have on the smallest card that is built for (89).
  if (shape.shared_bytes > 99 * 1024) {
    return std::to_string(shape.shared_bytes) + " bytes of shared memory; a block has 101376";
  }
  if (shape.grid.y > 65535 || shape.grid.z > 65535) return "grid " + Text(shape.grid);
  return "";
}

std::mutex g_count_mutex;
std::map<std::string, int64_t>& Counts() {
  static auto* counts = new std::map<std::string, int64_t>();
  return *counts;
}

}  // namespace

void Fail(const std::string& message) {
  if (g_runner == nullptr) throw KernelError(message);
  throw KernelError("kernel " + g_runner->kernel_name + ", block " + Text(blockIdx) + ", thread " +
                    Text(threadIdx) + ": " + message);
}

std::string RunGrid(const std::string& name, const Shape& shape,
                    const std::function<void()>& kernel) {
  if (std::string wrong = CheckShape(shape); !wrong.empty()) return "kernel " + name + ": " + wrong;
  static thread_local const std::unique_ptr<Runner> runner = std::make_unique<Runner>();
  runner->kernel_name = name;
  runner->error.clear();
  g_runner = runner.get();
  gridDim = shape.grid;
  blockDim = shape.block;
  const unsigned blocks = shape.grid.x * shape.grid.y * shape.grid.z;
  for (const unsigned b : OrderOf(blocks, g_order)) {
    blockIdx =
        dim3(b % shape.grid.x, b / shape.grid.x % shape.grid.y, b / (shape.grid.x * shape.grid.y));
    runner->RunBlock(kernel, shape);
    if (!runner->error.empty()) {
      runner->Abandon();
      break;
    }
  }
  g_runner = nullptr;
  return runner->error;
}

void SetOrder(uint32_t order) { g_order = order; }

void SyncBlock() {
  Thread& thread = g_runner->threads[g_runner->current];
  thread.state = State::kAtBarrier;
  g_runner->Wait();
}

void MeetWarp(Collective run, void* args) {
  Runner* runner = g_runner;
  const unsigned first = runner->current / kWarp * kWarp;
  Thread& thread = runner->threads[runner->current];
  thread.state = State::kInWarp;
  thread.collective = run;
  thread.args = args;
  void* all[kWarp];
  bool complete = true;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Thread& other = runner->threads[first + lane];
    if (other.state != State::kInWarp) {
      complete = false;
      break;
    }
    if (other.collective != run) Fail("lanes of a warp are at different collectives");
    all[lane] = other.args;
  }
  if (!complete) return runner->Wait();
  run(all);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    runner->threads[first + lane].state = State::kReady;
  }
}

unsigned char* SharedMemory() { return g_runner->shared; }
size_t SharedBytes() { return g_runner->shared_bytes; }

void AddAsyncCopy(void* to, const void* from) {
  g_runner->threads[g_runner->current].copies.push_back({to, from, -1});
}

void CommitAsyncCopies() {
  Thread& thread = g_runner->threads[g_runner->current];
  for (AsyncCopy& copy : thread.copies) copy.group = copy.group < 0 ? thread.groups : copy.group;
  ++thread.groups;
}

void WaitAsyncCopies(int newest_left) {
  Thread& thread = g_runner->threads[g_runner->current];
  std::vector<AsyncCopy> later;
  for (const AsyncCopy& copy : thread.copies) {
    if (copy.group < 0 || copy.group >= thread.groups - newest_left) {
      later.push_back(copy);
    } else if (copy.from != nullptr) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  thread.copies = std::move(later);
}

void CountLaunch(const std::string& name) {
  const std::lock_guard<std::mutex> lock(g_count_mutex);
  ++Counts()[name.substr(0, name.find('<'))];
}

int64_t Launches(const std::string& kernel) {
  const std::lock_guard<std::mutex> lock(g_count_mutex);
  const auto found = Counts().find(kernel);
  return found == Counts().end() ? 0 : found->second;
}

}  // namespace tundra::emulation
