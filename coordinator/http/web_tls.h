// TLS for the web server, with the certificates that the gRPC server has.
#pragma once

#include <openssl/ssl.h>

#include <functional>
#include <memory>

#include "common/tls.h"

namespace tundra::coordinator {

// The context for the next connection: made anew when the source has new material. TLS 1.2 and
// 1.3. Asks browsers for no certificate. Thread-safe.
std::function<std::shared_ptr<SSL_CTX>()> ServerContexts(std::shared_ptr<TlsSource> source);

}  // namespace tundra::coordinator
