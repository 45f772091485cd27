// Tables of code points as the reference sees them. unicode.h has the functions
// to use; tests/parity/make_unicode_tables.py writes the values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tundra {

struct CodePointRange {
  char32_t first, last;  // both inside
};
struct CategoryRange {
  char32_t first, last;
  const char* category;  // two letters, e.g. "Lo"
};
struct CaseRange {
  char32_t first, last;
  int32_t delta;
};

// Sorted by first; no overlaps.
#define TUNDRA_TABLE(type, name) \
  extern const type name[];      \
  extern const size_t name##Size
TUNDRA_TABLE(CodePointRange, kNumericRanges);
TUNDRA_TABLE(CodePointRange, kPunctuationRanges);
TUNDRA_TABLE(CodePointRange, kWordRanges);
TUNDRA_TABLE(CodePointRange, kMarkRanges);
TUNDRA_TABLE(CodePointRange, kOnigWordExtraRanges);
TUNDRA_TABLE(CodePointRange, kHanRanges);
TUNDRA_TABLE(CodePointRange, kHiraganaRanges);
TUNDRA_TABLE(CodePointRange, kKatakanaRanges);
TUNDRA_TABLE(CodePointRange, kHangulRanges);
TUNDRA_TABLE(CodePointRange, kInertRanges);
TUNDRA_TABLE(CodePointRange, kComposesRanges);
TUNDRA_TABLE(CategoryRange, kCategoryDelta);
TUNDRA_TABLE(CaseRange, kLowercaseDelta);
#undef TUNDRA_TABLE

}  // namespace tundra
