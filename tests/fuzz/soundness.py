#!/usr/bin/env python3
"""Writes the generated sections of docs/soundness.md from the statistics that `fuzz_graphs --statistics FILE` appended.

    python tests/fuzz/soundness.py FILE [--page docs/soundness.md]

A section lies between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; the rest of the page is written by hand, or by other commands.
Exit 2 when the page lacks a section or the file holds nothing.
"""
import argparse
import collections
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read(path: pathlib.Path) -> tuple[dict[str, collections.Counter], dict[str, list[int]]]:
    """Counts and first seeds by target, added up over all lines (one per 1,000 modules of a run)."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    seeds: dict[str, list[int]] = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        run = json.loads(line)
        target = run.pop("target")
        seeds[target].append(run.pop("first seed"))
        counts[target].update(run)
    return counts, seeds


def table(header: list[str], rows: list[list[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def share(count: int, of: int) -> str:
    return f"{100 * count / max(1, of):.1f} %"


def modules(counts: dict[str, collections.Counter], seeds: dict[str, list[int]]) -> str:
    rows = []
    for target, count in counts.items():
        total = count["modules"]
        ours = target == "fusible"
        rows.append([target, f"{min(seeds[target])} to {max(seeds[target])}", f"{total:,}", count["different"], count["another exception"],
                     share(count["with_fusion"], total) if ours else "", share(count["with_decline"], total) if ours else "",
                     share(count["raising"], total), count["unusable"]])
    return table(["target", "first seeds", "modules compared", "different", "raise another exception", "with an accepted fusion", "with a decline", "raise in every call",
                  "not compared"], rows)


def histogram(count: collections.Counter) -> str:
    fused = {name.removeprefix("fused "): n for name, n in count.items() if name.startswith("fused ")}
    declined: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for name, n in count.items():
        if name.startswith("declined "):
            _, step, code = name.split(" ")
            declined[step][code] = n
    codes = sorted({code for row in declined.values() for code in row})
    rows = [[step, fused.get(step, 0), *(declined[step].get(code, "") for code in codes)] for step in sorted({*fused, *declined})]
    return table(["step", "fused", *codes], rows)


def fill(page: str, section: str, text: str) -> str:
    pattern = re.compile(rf"(<!-- {section}:begin -->\n).*?(<!-- {section}:end -->)", re.S)
    if not pattern.search(page):
        raise ValueError(f"the page needs a section <!-- {section}:begin --> ... <!-- {section}:end -->, found none")
    return pattern.sub(lambda found: found[1] + text + "\n" + found[2], page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("statistics", type=pathlib.Path)
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/soundness.md")
    arguments = parser.parse_args()
    try:
        counts, seeds = read(arguments.statistics)
        if not counts:
            raise ValueError(f"{arguments.statistics} holds no run: run fuzz_graphs --statistics {arguments.statistics} first")
        page = arguments.page.read_text()
        page = fill(page, "modules", modules(counts, seeds))
        if "fusible" in counts:
            page = fill(page, "histogram", histogram(counts["fusible"]))
        arguments.page.write_text(page)
    except (OSError, ValueError) as error:
        print(f"soundness.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
