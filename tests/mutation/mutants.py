"""Mutants of fusible's own sources: what mutants/*.toml lists, and the source tree that holds all of them at once.

A file of mutants/ speaks of one area:

    file = "passes/affine.cpp"

    [[mutant]]
    name     = "eps is dropped"                     # what is wrong with it, unique in its file
    rule     = "algebra"                            # what it breaks
    original = "wide(operands[3]) + *eps_number"    # occurs exactly once in `file`, or once in `within`, which does
    mutated  = "wide(operands[3])"

`kind = "statement"` replaces a statement by one (or, without `mutated`, by none); the default is an expression. `file` may stand at a mutant.
`equivalent` says why no case can see it, where none can.
"""
from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import tomllib
import zlib

FOLDER = pathlib.Path(__file__).parent / "mutants"
KEYS = {"name", "rule", "original", "mutated", "kind", "within", "file", "equivalent"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    rule: str
    file: str
    original: str
    mutated: str
    kind: str
    within: str
    listed_in: str
    equivalent: str = ""

    @property
    def key(self) -> str:
        return f"{self.file}: {self.name}"

    @property
    def number(self) -> int:
        return zlib.crc32(self.key.encode())

    @property
    def digest(self) -> str:
        text = "\0".join([self.file, self.original, self.mutated, self.kind, self.within])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def span(self, text: str) -> tuple[int, int]:
        """Where the original stands in `text`, the file's. ValueError when it is not there exactly once."""
        begin, end = 0, len(text)
        for what, wanted in (("within", self.within), ("original", self.original)):
            if not wanted:
                continue
            found = text.count(wanted, begin, end)
            if found != 1:
                raise ValueError(f"{self.listed_in}: '{self.name}': `{what}` was needed exactly once in {self.file}, found {found} times: "
                                 "follow the change of the code there, or give more of it")
            begin = text.index(wanted, begin, end)
            end = begin + len(wanted)
        return begin, end


def listed(folder: pathlib.Path = FOLDER) -> list[Mutant]:
    """All mutants, in the order of the files. ValueError names what is wrong in which file."""
    mutants: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        with path.open("rb") as stream:
            area = tomllib.load(stream)
        for entry in area.get("mutant", []):
            unknown = entry.keys() - KEYS
            if unknown:
                raise ValueError(f"{path.name}: a mutant may hold {', '.join(sorted(KEYS))}, found {', '.join(sorted(unknown))}")
            mutant = Mutant(entry["name"], entry["rule"], entry.get("file", area.get("file", "")), entry["original"], entry.get("mutated", ""),
                            entry.get("kind", "expression"), entry.get("within", ""), path.name, entry.get("equivalent", ""))
            if mutant.kind not in ("expression", "statement"):
                raise ValueError(f"{path.name}: '{mutant.name}': kind expression or statement was needed, found '{mutant.kind}'")
            if mutant.kind == "expression" and not mutant.mutated:
                raise ValueError(f"{path.name}: '{mutant.name}': an expression needs `mutated`")
            mutants.append(mutant)
    for what in ("key", "number"):
        seen: dict[object, Mutant] = {}
        for mutant in mutants:
            other = seen.setdefault(getattr(mutant, what), mutant)
            if other is not mutant:
                raise ValueError(f"{mutant.listed_in}: '{mutant.name}': another name was needed, {other.listed_in} has '{other.name}'")
    return mutants


def with_mutants(text: str, mutants: list[Mutant]) -> str:
    """The file's text with every mutant in it, each chosen at run time by its number. Places may lie inside each other."""
    placed = sorted(((*mutant.span(text), mutant) for mutant in mutants), key=lambda place: (place[0], -place[1]))

    def written(begin: int, end: int, inside: list[tuple[int, int, Mutant]]) -> str:
        parts = []
        while inside:
            start, stop, mutant = inside[0]
            if stop > end:
                raise ValueError(f"{mutant.listed_in}: '{mutant.name}': its place and that of another mutant cross: give both the same one")
            nested = [place for place in inside[1:] if place[0] < stop]
            original = written(start, stop, nested)
            chosen = f"::fusible_mutant({mutant.number}u)"
            parts.append(text[begin:start])
            if mutant.kind == "statement":
                parts.append(f"if ({chosen}) {{ {mutant.mutated} }} else {{ {original} }}")
            else:
                parts.append(f"({chosen} ? ({mutant.mutated}) : ({original}))")
            begin = stop
            inside = inside[1 + len(nested):]
        return "".join(parts) + text[begin:end]

    return '#include "fusible_mutant.h"\n' + written(0, len(text), placed)


HEADER = """#pragma once
// The mutant that FUSIBLE_MUTANT names is alive; with FUSIBLE_MUTANT_TRACE=FILE the places that are reached are written there.
extern const unsigned fusible_living_mutant;
extern const bool fusible_traces_mutants;
void fusible_mutant_reached(unsigned number);
inline bool fusible_mutant(unsigned number) {
  if (__builtin_expect(fusible_traces_mutants, false)) fusible_mutant_reached(number);
  return number == fusible_living_mutant;
}
"""

SOURCE = """#include "fusible_mutant.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <unordered_set>

const unsigned fusible_living_mutant = std::getenv("FUSIBLE_MUTANT") ? std::strtoul(std::getenv("FUSIBLE_MUTANT"), nullptr, 10) : 0;
const bool fusible_traces_mutants = std::getenv("FUSIBLE_MUTANT_TRACE") != nullptr;

void fusible_mutant_reached(unsigned number) {
  static std::mutex& mutex = *new std::mutex;
  static auto& seen = *new std::unordered_set<unsigned>;
  std::lock_guard lock(mutex);
  if (!seen.insert(number).second) return;
  if (FILE* file = std::fopen(std::getenv("FUSIBLE_MUTANT_TRACE"), "a")) {
    std::fprintf(file, "%u\\n", number);
    std::fclose(file);
  }
}
"""
