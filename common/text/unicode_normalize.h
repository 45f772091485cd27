// The four normalization forms of Unicode, as the reference computes them: with
// the tables of an older Unicode, so that newer characters stay as they are.
#pragma once

#include "absl/status/status.h"
#include "common/text/text_piece.h"

namespace tundra {

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };

// Rewrites the piece when it is not in the form already. Linear but for a sort
// of each run of combining marks.
absl::Status Normalize(NormalizationForm form, TextArena& arena, TextPiece& piece);

}  // namespace tundra
