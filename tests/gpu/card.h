// What tests on a card share: the backend, through the library that programs open.
#pragma once

#include <string>

#include "worker/device/cuda_backend.h"

namespace tundra {

// Why no card can be used here; "" when one can.
std::string WhyNoCard();

// The backend's functions; only where WhyNoCard() is "".
const CudaBackendTable& CardBackend();

// A test program's main: where there is no card it says why and returns 77, which ctest counts as
// skipped.
int CardTestMain(int argc, char** argv);

}  // namespace tundra
