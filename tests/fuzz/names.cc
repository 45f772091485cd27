// What the API takes as text inside a request: filters, names of resources, page tokens, entity
// tags, versions, addresses, secrets.
#include "coordinator/api/names.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/printable.h"
#include "common/rpc.h"
#include "common/secret.h"
#include "common/version.h"
#include "coordinator/api/filter.h"
#include "coordinator/api/page_tokens.h"
#include "coordinator/http/json_api.h"
#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tundra;
  using namespace tundra::coordinator;
  const std::string text(fuzz::View(data, size));
  const auto filter = ParseJobFilter(text);
  if (filter.ok()) EXPECT_FUZZ(filter->size() <= 32);
  const auto id = ParseName(text, "jobs", "name");
  if (id.ok()) EXPECT_FUZZ("jobs/" + *id == text);
  const auto adapter = ParseAdapterName(text, "adapter");
  if (adapter.ok()) EXPECT_FUZZ(adapter->job.empty() != adapter->upload.empty());
  static const PageTokens tokens("a secret of the coordinator");
  const auto position = tokens.Parse(text, "jobs", "", 7);
  if (position.ok() && !text.empty()) {
    EXPECT_FUZZ(tokens.Parse(tokens.Make("jobs", "", *position), "jobs", "", 7) == position);
  }
  if (CheckWorkerVersion(text, "1.2.3").ok()) EXPECT_FUZZ(!HasControlCharacters(text));
  const auto parts = fuzz::Parts(text, 2);
  (void)NamesTag(parts[0], parts[1]);
  const auto address = SplitAddress(text);
  if (address.ok()) {
    EXPECT_FUZZ(address->second >= 0 && address->second <= 65'535);
    (void)IsLoopback(address->first);
  }
  if (CheckLoopback(text, /*tls=*/false, /*insecure=*/false).ok()) {
    EXPECT_FUZZ(CheckAddress(text).ok() && IsLoopbackAddress(text));
  }
  (void)CheckSecret(text, "text");
  return 0;
}
