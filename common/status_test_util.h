// GoogleTest helpers for absl::Status.
//
//   TUNDRA_ASSERT_OK(DoIt());
//   TUNDRA_ASSERT_OK_AND_ASSIGN(auto value, Make());
//   EXPECT_THAT(Parse("x"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 3")));
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tundra::testing {

inline absl::Status ToStatus(const absl::Status& status) { return status; }
template <typename T>
absl::Status ToStatus(const absl::StatusOr<T>& status) {
  return status.status();
}

MATCHER(IsOk, "is OK") {
  const absl::Status status = ToStatus(arg);
  *result_listener << std::string(status.ToString());
  return status.ok();
}

MATCHER_P2(StatusIs, code, message, "") {
  const absl::Status status = ToStatus(arg);
  *result_listener << std::string(status.ToString());
  return status.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

}  // namespace tundra::testing

#define TUNDRA_ASSERT_OK(expr) ASSERT_THAT((expr), ::tundra::testing::IsOk())
#define TUNDRA_EXPECT_OK(expr) EXPECT_THAT((expr), ::tundra::testing::IsOk())

#define TUNDRA_TEST_CONCAT_INNER(a, b) a##b
#define TUNDRA_TEST_CONCAT(a, b) TUNDRA_TEST_CONCAT_INNER(a, b)
#define TUNDRA_ASSERT_OK_AND_ASSIGN(lhs, expr) \
  TUNDRA_ASSERT_OK_AND_ASSIGN_IMPL(TUNDRA_TEST_CONCAT(statusor_, __LINE__), lhs, expr)
#define TUNDRA_ASSERT_OK_AND_ASSIGN_IMPL(var, lhs, expr) \
  auto var = (expr);                                     \
  ASSERT_THAT(var, ::tundra::testing::IsOk());           \
  lhs = *std::move(var)
