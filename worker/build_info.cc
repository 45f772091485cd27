#include "worker/build_info.h"

namespace tundra::worker {

std::string BuildVersion() { return TUNDRA_VERSION; }

}  // namespace tundra::worker
