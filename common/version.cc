#include "common/version.h"

#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace tundra {
namespace {

constexpr size_t kMostCharacters = 64;

// Major, minor, patch.
using Numbers = std::array<uint32_t, 3>;

std::optional<Numbers> Parse(std::string_view text) {
  if (text.size() > kMostCharacters) return std::nullopt;
  Numbers numbers{};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0 && (at == end || *at++ != '.')) return std::nullopt;
    const auto [next, error] = std::from_chars(at, end, numbers[i]);
    if (error != std::errc()) return std::nullopt;
    at = next;
  }
  if (at != end && *at != '-' && *at != '+') return std::nullopt;
  return numbers;
}

}  // namespace

std::string ProgramVersion() { return TUNDRA_VERSION; }

absl::Status CheckWorkerVersion(const std::string& worker, const std::string& coordinator) {
  const std::optional<Numbers> theirs = Parse(worker);
  const std::optional<Numbers> ours = Parse(coordinator);
  TUNDRA_CHECK(ours.has_value()) << coordinator;
  if (!theirs.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("the worker's build \"",
                                                   worker.substr(0, kMostCharacters),
                                                   "\" is not a version such as 1.2.3"));
  }
  const auto [major, minor, patch] = *ours;
  const auto [worker_major, worker_minor, worker_patch] = *theirs;
  const bool same = worker_major == major && worker_minor == minor;
  const bool before = minor == 0 ? uint64_t{worker_major} + 1 == major
                                 : worker_major == major && worker_minor + 1 == minor;
  if (same || before) return absl::OkStatus();
  const bool newer = *theirs > *ours;
  return absl::FailedPreconditionError(absl::StrCat(
      "the worker is version ", worker, " and the coordinator ", coordinator,
      newer ? ": upgrade the coordinator first, a coordinator takes no newer workers"
            : ": upgrade the worker, a coordinator takes workers of its own minor version and of "
              "the one before"));
}

}  // namespace tundra
