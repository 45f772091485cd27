// What a DropoutKey means in numbers: one definition for every device, so that the masks of
// a job are the same on all.
//
// The mask of element (data row, position, column) in one (layer, module): four columns
// share one Philox block.
//   key     = PhiloxKeyOf(first two words of Philox({step, step >> 32, epoch, use}, seed))
//   counter = {position, data row, column / 4, use | layer << 8 | module << 20}
// and the element is kept, times `scale`, when its word >= probability · 2^32.
#pragma once

#include "absl/status/statusor.h"
#include "common/philox.h"
#include "worker/ops/ops.h"

namespace tundra {

struct DropoutNumbers {
  PhiloxKey philox_key = {};
  uint32_t last_word = 0;  // of the counter
  uint32_t threshold = 0;
  float scale = 1;
};

// kInvalidArgument for a probability outside of [0, 1), a layer or module of 4096 or more.
absl::StatusOr<DropoutNumbers> DropoutNumbersOf(const DropoutKey& key);

}  // namespace tundra
