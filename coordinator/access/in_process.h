// How the web server, which calls the API from within the process, tells for whom.
#pragma once

#include <string>

namespace tundra::coordinator {

// Metadata of such calls: the peer's address, and the key that shows that it comes from here.
inline constexpr char kPeerMetadata[] = "tundra-peer";
inline constexpr char kPeerKeyMetadata[] = "tundra-peer-key";

// Random, made anew by each process, known to nobody else.
const std::string& PeerKey();

}  // namespace tundra::coordinator
