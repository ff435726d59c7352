#pragma once

// What a file must satisfy beyond its grammar.

#include "passes/patterns/cursor.h"
#include "passes/patterns/library.h"

namespace fusible::patterns {

// Every operation leads to the last one, and the roles that the entry's kind needs are there.
void check_spelling(const Cursor& cursor, const Entry& entry, const Spelling& spelling);
// The step is one that the fused operators know, with as many arguments, and of the entry's kind; `written` is how the file has it.
void check_step(const Cursor& cursor, const Entry& entry, int column, const std::string& written);
// Every matched operation leads to the last one; needs and emit name only what is matched or built.
void check_rule(const Cursor& cursor, const Rule& rule, int line, int column);
// Every operation that is no operator names a member of the vocabulary, with roles that it has, no entry is spelled by itself, and every
// spelling has the roles without which its entry's step cannot be.
void check_vocabulary(const Library& library);
// Roles of an entry in the order of its first spelling: what positional arguments of `conv(x, w, b)` stand for.
std::vector<std::string> roles_of(const Entry& entry);

}  // namespace fusible::patterns
