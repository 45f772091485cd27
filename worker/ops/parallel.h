// Threads of the CPU's operations: they split outputs, never sums.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace tundra {

// Runs task(i, worker) for i in [0, tasks), tasks handed out as workers come free.
// worker < threads names scratch. Only for tasks whose results don't depend on who
// runs them or when.
template <typename Task>
void ParallelTasks(int threads, int64_t tasks, const Task& task) {
  const int team = static_cast<int>(std::min<int64_t>(threads, tasks));
  if (team <= 1) {
    for (int64_t i = 0; i < tasks; ++i) task(i, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
  for (int64_t i = 0; i < tasks; ++i) task(i, omp_get_thread_num());
}

// Runs range(begin, end) over [0, n) cut into at most `threads` pieces of at least
// `grain` items each, so that little work doesn't pay for waking threads.
template <typename Range>
void ParallelRanges(int threads, int64_t n, int64_t grain, const Range& range) {
  if (n <= 0) return;
  const int64_t pieces = std::clamp<int64_t>(n / std::max<int64_t>(grain, 1), 1, threads);
  ParallelTasks(threads, pieces,
                [&](int64_t i, int) { range(n * i / pieces, n * (i + 1) / pieces); });
}

// Elements of an elementwise loop that are worth a thread.
inline constexpr int64_t kElementGrain = 32768;

// Items (rows of `width` elements, say) that are worth a thread.
inline int64_t GrainOf(int64_t width) {
  return std::max<int64_t>(1, kElementGrain / std::max<int64_t>(width, 1));
}

}  // namespace tundra
