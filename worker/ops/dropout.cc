#include "worker/ops/dropout.h"

#include "absl/strings/str_cat.h"

namespace tundra {

absl::StatusOr<DropoutNumbers> DropoutNumbersOf(const DropoutKey& key) {
  if (!(key.probability >= 0 && key.probability < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a dropout probability of ", key.probability, " is not in [0, 1)"));
  }
  if (key.layer >= 1u << 12 || key.module >= 1u << 12) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", key.layer, ", module ", key.module, ": both must be below 4096"));
  }
  const auto use = static_cast<uint32_t>(PhiloxUse::kDropout);
  const PhiloxBlock mixed = Philox4x32(
      {static_cast<uint32_t>(key.step), static_cast<uint32_t>(key.step >> 32), key.epoch, use},
      PhiloxKeyOf(key.seed));
  DropoutNumbers numbers;
  numbers.philox_key = {mixed[0], mixed[1]};
  numbers.last_word = use | key.layer << 8 | key.module << 20;
  numbers.threshold = static_cast<uint32_t>(static_cast<double>(key.probability) * 0x1p32);
  numbers.scale = 1.0f / (1.0f - key.probability);
  return numbers;
}

}  // namespace tundra
