// Distinct types for the ids of the vocabulary, so that a job's id cannot be
// passed where a dataset's is wanted. Ids are made by the server only.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace tundra {

// A string id of kind Tag, e.g. JobId{"job-3f9c…"}.
template <typename Tag>
struct StringId {
  std::string value;
  auto operator<=>(const StringId&) const = default;
  bool empty() const { return value.empty(); }
};

using JobId = StringId<struct JobTag>;
using DatasetId = StringId<struct DatasetTag>;
using WorkerId = StringId<struct WorkerTag>;
using GroupId = StringId<struct GroupTag>;
// Lower-case hex SHA-256 of the blob's bytes.
using BlobId = StringId<struct BlobTag>;
using TenantId = StringId<struct TenantTag>;
using TokenId = StringId<struct TokenTag>;
// Content hash of a base: lower-case hex SHA-256 (see worker/model/base_hash.h).
using BaseHash = StringId<struct BaseTag>;

// "PREFIX-" and 20 random characters of [0-9a-z] (103 bits), from the system's
// random source.
std::string NewIdValue(std::string_view prefix);

}  // namespace tundra

template <typename Tag>
struct std::hash<tundra::StringId<Tag>> {
  size_t operator()(const tundra::StringId<Tag>& id) const {
    return std::hash<std::string>()(id.value);
  }
};
