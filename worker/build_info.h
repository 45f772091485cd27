// Which program this is: groups never mix builds.
#pragma once

#include <string>

namespace tundra::worker {

// "0.1.0".
std::string BuildVersion();

}  // namespace tundra::worker
