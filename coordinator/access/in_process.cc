#include "coordinator/access/in_process.h"

#include "common/secret.h"

namespace tundra::coordinator {

const std::string& PeerKey() {
  static const auto* const key = new std::string(NewSecret());
  return *key;
}

}  // namespace tundra::coordinator
