#include "coordinator/api/own.h"

#include "absl/strings/str_cat.h"

namespace tundra::coordinator {
namespace {

// The store's answer for an id that nobody has gives the words.
template <typename Record, typename Get>
absl::StatusOr<Record> Own(const Caller& caller, const std::string& id, Get get) {
  absl::StatusOr<Record> record = get(id);
  if (!record.ok() || caller.Sees(record->tenant)) return record;
  constexpr char kNobodys[] = "?";
  std::string words(get(kNobodys).status().message());
  const size_t at = words.find(kNobodys);
  if (at != std::string::npos) words.replace(at, sizeof(kNobodys) - 1, id);
  return absl::NotFoundError(words);
}

}  // namespace

absl::StatusOr<JobRecord> GetOwnJob(ReadTxn& txn, const Caller& caller, const JobId& id) {
  return Own<JobRecord>(caller, id.value, [&](const std::string& i) { return txn.GetJob({i}); });
}

absl::StatusOr<DatasetRecord> GetOwnDataset(ReadTxn& txn, const Caller& caller,
                                            const DatasetId& id) {
  return Own<DatasetRecord>(caller, id.value,
                            [&](const std::string& i) { return txn.GetDataset({i}); });
}

absl::StatusOr<UploadRecord> GetOwnUpload(ReadTxn& txn, const Caller& caller,
                                          const std::string& id) {
  return Own<UploadRecord>(caller, id, [&](const std::string& i) { return txn.GetUpload(i); });
}

}  // namespace tundra::coordinator
