#include "common/address.h"

#include <arpa/inet.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tundra {
namespace {

constexpr char kUnix[] = "unix:";

}  // namespace

absl::StatusOr<std::pair<std::string, int>> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon != std::string::npos && colon > 0 &&
      absl::SimpleAtoi(address.substr(colon + 1), &port) && port >= 0 && port <= 65'535) {
    std::string host = address.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
      host = host.substr(1, host.size() - 2);
    }
    return std::make_pair(host, port);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("address '", address,
                   "' is not HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:7700"));
}

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::Status CheckAddress(const std::string& address) {
  return address.starts_with(kUnix) ? absl::OkStatus() : SplitAddress(address).status();
}

bool IsLoopbackAddress(const std::string& address) {
  if (address.starts_with(kUnix)) return true;
  const auto parts = SplitAddress(address);
  return parts.ok() && IsLoopback(parts->first);
}

}  // namespace tundra
