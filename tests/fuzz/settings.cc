// Files that hold settings: the coordinator's, the client's, and the client's note of what
// `tundra local up` runs.
#include "client/address.h"
#include "coordinator/config.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  static const fuzz::Scratch scratch;
  static const bool prepared = [] {
    ::setenv("TUNDRA_CONFIG", (scratch / "config.yaml").c_str(), 1);
    ::setenv("TUNDRA_HOME", scratch.path().c_str(), 1);
    for (const char* name : {"TUNDRA_CONTEXT", "TUNDRA_ADDRESS", "TUNDRA_TOKEN",
                             "TUNDRA_TOKEN_FILE", "TUNDRA_TLS_CA"}) {
      ::unsetenv(name);
    }
    return true;
  }();
  (void)prepared;
  const auto parts = fuzz::Parts(fuzz::View(data, size), 3);
  scratch.Write("coordinator.yaml", parts[0]);
  scratch.Write("config.yaml", parts[1]);
  scratch.Write("local.json", parts[2]);
  coordinator::Config config;
  if (coordinator::ReadConfigFile(scratch / "coordinator.yaml", config).ok()) {
    (void)coordinator::CheckConfig(config);
  }
  (void)client::FindAddress({});
  client::AddressFlags flags;
  flags.context = "lab";
  (void)client::FindAddress(flags);
  return 0;
}
