#!/usr/bin/env python3
"""Writes docs/mutants.md from what check.py found.

    python tests/mutation/table.py

Exit 2 when a mutant of mutants/*.toml, as it is now, has no result.
"""
from __future__ import annotations

import argparse
import collections
import json
import pathlib
import sys

from mutants import Mutant, listed

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = pathlib.Path(__file__).parent / "results.json"
HEAD = """# Mutants

What the suites notice: each rule of fusible broken on purpose, one at a time, and the first case that turns red. Written by

    python tests/mutation/check.py     # builds all mutants into one tree, then meets each with the cases that reach it
    python tests/mutation/table.py

A case named `python.FILE` or `FILE.py::TEST` is one of tests/python, the others are ctest's. *Cannot be seen*: the mutant computes the same by
another way; the reason stands with it in tests/mutation/mutants/.
"""


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def fate(mutant: Mutant, result: dict[str, str]) -> str:
    if "killed by" in result:
        return "red"
    return "cannot be seen" if mutant.equivalent else result["outcome"]


def killer(result: dict[str, str]) -> str:
    return f"`{result['killed by']}`" + ("" if result["outcome"] == "failed" else f" ({result['outcome']})")


def page(mutants: list[Mutant], results: dict[str, dict[str, str]]) -> str:
    fates = {mutant.key: fate(mutant, results[mutant.key]) for mutant in mutants}
    columns = ("red", "survived", "not reached", "cannot be seen")
    rules = collections.defaultdict(collections.Counter)
    for mutant in mutants:
        rules[mutant.rule][fates[mutant.key]] += 1
    total = collections.Counter(fates.values())
    lines = [HEAD, f"{total['red']} of {len(mutants)} mutants turn a case red.", "", row("rule", "mutants", *columns), row(*["---"] * (2 + len(columns)))]
    lines += [row(rule, sum(count.values()), *(count[name] or "" for name in columns)) for rule, count in sorted(rules.items())]
    for file in sorted({mutant.file for mutant in mutants}):
        lines += ["", f"## {file}", "", row("broken", "rule", "red"), row("---", "---", "---")]
        for mutant in mutants:
            if mutant.file == file:
                state = fates[mutant.key]
                reason = f"{state}: {mutant.equivalent}" if state == "cannot be seen" else f"**{state}**"
                lines.append(row(mutant.name, mutant.rule, killer(results[mutant.key]) if state == "red" else reason))
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/mutants.md")
    arguments = parser.parse_args()
    try:
        results = json.loads(RESULTS.read_text())["mutants"]
        mutants = listed()
        stale = [mutant.key for mutant in mutants if results.get(mutant.key, {}).get("digest") != mutant.digest]
        if stale:
            raise ValueError(f"a result for each of {len(mutants)} mutants was needed, {len(stale)} have none (first '{stale[0]}'): run check.py")
        arguments.page.write_text(page(mutants, results))
    except (OSError, ValueError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
