// Macros that pass absl::Status errors up, and one that adds context on the way.
//
//   RETURN_IF_ERROR(Open(path));
//   ASSIGN_OR_RETURN(auto file, Open(path));
//   return Annotate(status, "reading ", path);
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace tundra {

// The same code, with "context: " before the message. OK stays OK.
template <typename... Parts>
absl::Status Annotate(const absl::Status& status, const Parts&... context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context..., ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace tundra

#define TUNDRA_STATUS_CONCAT_INNER(a, b) a##b
#define TUNDRA_STATUS_CONCAT(a, b) TUNDRA_STATUS_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expr)                           \
  do {                                                  \
    if (absl::Status tundra_status = (expr); !tundra_status.ok()) return tundra_status; \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(TUNDRA_STATUS_CONCAT(tundra_statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(var, lhs, expr) \
  auto var = (expr);                          \
  if (!var.ok()) return std::move(var).status(); \
  lhs = *std::move(var)
