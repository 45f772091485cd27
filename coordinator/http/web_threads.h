// The web server's threads: as many as there are connections, up to a bound; beyond it
// connections wait, and beyond a second bound none is accepted.
#pragma once

#include <httplib.h>

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace tundra::coordinator {

// Thread-safe.
class WebThreads {
 public:
  explicit WebThreads(size_t most) : most_(most) {}

  // Blocks the caller, which accepts connections, while too many wait.
  void Run(std::function<void()> fn) {
    absl::MutexLock lock(&mu_);
    const auto has_room = [this] {
      mu_.AssertHeld();
      return waiting_.size() < 2 * most_ || stopping_;
    };
    mu_.Await(absl::Condition(&has_room));
    waiting_.push_back(std::move(fn));
    if (idle_ < waiting_.size() && threads_.size() < most_) {
      threads_.emplace_back([this] { Work(); });
    }
  }

  // Runs what waits, which ends soon once the server stops, and ends the threads.
  void Join() {
    Stop();
    std::vector<std::thread> threads;
    {
      absl::MutexLock lock(&mu_);
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

  // No call of Run blocks any more, and idle connections end.
  void Stop() {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }

  // An idle connection should end: one that no thread is left for waits, or the server stops.
  bool AreWanted() {
    absl::MutexLock lock(&mu_);
    return stopping_ || (threads_.size() >= most_ && waiting_.size() > idle_);
  }

 private:
  void Work() {
    for (;;) {
      std::function<void()> fn;
      {
        absl::MutexLock lock(&mu_);
        ++idle_;
        const auto has_work = [this] {
          mu_.AssertHeld();
          return !waiting_.empty() || stopping_;
        };
        mu_.Await(absl::Condition(&has_work));
        --idle_;
        if (waiting_.empty()) return;
        fn = std::move(waiting_.front());
        waiting_.pop_front();
      }
      fn();
    }
  }

  const size_t most_;
  absl::Mutex mu_;
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mu_);
  size_t idle_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

// What the library may own of it.
class ThreadsHandle : public httplib::TaskQueue {
 public:
  explicit ThreadsHandle(WebThreads* threads) : threads_(threads) {}
  void enqueue(std::function<void()> fn) override { threads_->Run(std::move(fn)); }
  void shutdown() override { threads_->Join(); }

 private:
  WebThreads* const threads_;
};

}  // namespace tundra::coordinator
