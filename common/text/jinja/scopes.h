// Resolves names as Jinja's compiler does (jinja2/idtracking.py): which scope a
// variable belongs to follows from the text, not from what runs. A name that a
// body sets before it first reads it, outside of any if, is undefined at the
// body's start even where the caller passed a variable of that name.
//
// Also checks what Jinja checks when it compiles: filters and tests exist (inside
// an if they may be missing until they run), break and continue stand in a loop,
// nobody assigns to `loop` in one.
#pragma once

#include <string>
#include <vector>

#include "common/text/jinja/ast.h"

namespace tundra::jinja {

// Fills `hidden` of each scoped body and uses_caller, uses_varargs and
// uses_kwargs of macros and call blocks. Throws Error with its line.
void ResolveScopes(ScopedBody* root, const std::vector<std::string>& names);

}  // namespace tundra::jinja
