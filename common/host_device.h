// Marks a function that host and device code share: a CUDA compiler then makes it for both.
// constexpr functions need no mark.
#pragma once

#if defined(__CUDACC__)
#define TUNDRA_HOST_DEVICE __host__ __device__
#else
#define TUNDRA_HOST_DEVICE
#endif
