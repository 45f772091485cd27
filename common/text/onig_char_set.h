// Sets of characters as PCRE2 writes them, for onig_translate.cc: what fits between
// brackets ("items"), and what does not.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/text/unicode_tables.h"

namespace tundra {

inline constexpr char kSpaceItems[] =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";
inline constexpr char kNotSpaceItems[] =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
    "\\x{3001}-\\x{10ffff}";
inline constexpr char kHexItems[] = "0-9a-fA-F";
inline constexpr char kAnyCharacter[] = "(?s:.)";

// "\x{1f600}".
std::string Hex(char32_t c);

// Appends the items "a-z" of one range.
void AppendRange(char32_t first, char32_t last, std::string& out);

std::string RangeItems(const CodePointRange* ranges, size_t size);

// \p{category} and what Oniguruma's newer Unicode adds to it. One or two letters.
std::string CategoryItems(std::string_view category);

// What \w matches.
std::string WordItems();

// The characters of a class: those that fit between brackets, and fragments
// that match exactly one character each.
struct CharSet {
  std::string items;
  std::vector<std::string> fragments;

  bool empty() const { return items.empty() && fragments.empty(); }

  void AddNegated(const std::string& negated_items) {
    fragments.push_back(absl::StrCat("[^", negated_items, "]"));
  }

  // A fragment that matches one character in the set (or not in it).
  std::string Fragment(bool negated) const {
    if (fragments.empty()) return absl::StrCat(negated ? "[^" : "[", items, "]");
    std::string any;
    if (!items.empty()) absl::StrAppend(&any, "[", items, "]|");
    for (const std::string& f : fragments) absl::StrAppend(&any, f, "|");
    any.pop_back();
    return negated ? absl::StrCat("(?:(?!", any, ")", kAnyCharacter, ")")
                   : absl::StrCat("(?:", any, ")");
  }
};

}  // namespace tundra
