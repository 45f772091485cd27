#include "coordinator/api/requests.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra::coordinator {

std::string HashRequest(const google::protobuf::MessageLite& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps in order of their keys
    request.SerializeToCodedStream(&coded);
  }
  return Sha256Hex(bytes);
}

std::string RequestKey(const TenantId& tenant, std::string_view method) {
  return absl::StrCat(tenant.value, "/", std::string(method));
}

absl::StatusOr<std::string> FindRequest(ReadTxn& txn, const std::string& key,
                                        const std::string& request_id, const std::string& hash,
                                        absl::Time now) {
  if (request_id.empty()) return "";
  const absl::StatusOr<RequestRecord> record = txn.GetRequest(key, request_id);
  if (absl::IsNotFound(record.status())) return "";
  RETURN_IF_ERROR(record.status());
  if (now - record->create_time > absl::Hours(24)) return "";
  if (record->request_hash != hash) {
    return absl::AlreadyExistsError(absl::StrCat("request_id ", request_id,
                                                 " was used for another request (which made ",
                                                 record->resource, "); choose a new one"));
  }
  return record->resource;
}

}  // namespace tundra::coordinator
