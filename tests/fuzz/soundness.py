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

TOOLS = {"fusible": "fusible", "freeze": "torch.jit.freeze", "ofi": "optimize_for_inference", "llga": "oneDNN Graph (LLGA) on a frozen module",
         "rewriter": "torch's rewriter (FuseAddRelu, FuseLinear)"}
QUOTA = 50  # times that each step is to be met with each code by which it can be left
ROOT = pathlib.Path(__file__).resolve().parents[2]


Run = dict[str, object]  # a line: up to 1,000 modules of one target, from "first seed" on


def read(path: pathlib.Path) -> list[Run]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def added(runs: list[Run]) -> collections.Counter:
    """The counts of all runs."""
    total: collections.Counter = collections.Counter()
    for run in runs:
        total.update({name: n for name, n in run.items() if name not in ("target", "steered", "first seed")})
    return total


def table(header: list[str], rows: list[list[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def share(count: int, of: int) -> str:
    return f"{100 * count / max(1, of):.1f} %"


def modules(runs: list[Run]) -> str:
    seeds = [run["first seed"] for run in runs]
    count = added(runs)
    total = count["modules"]
    return table(["first seeds", "modules compared", "different", "raise another exception", "the executor decides", "with an accepted fusion", "with a decline", "raise in every call", "not compared"],
                 [[f"{min(seeds)} to {max(seeds)}", f"{total:,}", count["different"], count["another exception"], count["executor decides"], share(count["with_fusion"], total),
                   share(count["with_decline"], total), share(count["raising"], total), count["unusable"]]])


def tools(runs: list[Run]) -> str:
    """The runs whose first seed every target has: the same modules for all."""
    targets = sorted({run["target"] for run in runs}, key=list(TOOLS).index)
    common = set.intersection(*({run["first seed"] for run in runs if run["target"] == target} for target in targets))
    rows = []
    for target in targets:
        count = added([run for run in runs if run["target"] == target and run["first seed"] in common])
        wrong, crashed = count["different"] - count["crashed"], count["crashed"]
        rows.append([TOOLS[target], f"{count['modules']:,}", f"{count['modules'] - wrong - crashed:,}", wrong, crashed, count["missed"]])
    return table(["tool", "modules", "right", "wrong", "crashed", "right, but fused nothing where fusible does"], rows)


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


def short(count: collections.Counter) -> str:
    """The cells that a run has to fill (quota.h) and did not."""
    missing = [f"{name.removeprefix('declined ')} ({n})" for name, n in sorted(count.items()) if name.startswith("declined ") and n < QUOTA]
    return f"Met less than {QUOTA} times: {', '.join(missing)}." if missing else f"Each of them was met at least {QUOTA} times."


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
        runs = read(arguments.statistics)
        steered = [run for run in runs if run.get("steered")]
        runs = [run for run in runs if not run.get("steered")]
        ours = [run for run in runs if run["target"] == "fusible"]
        if not ours and not steered:
            raise ValueError(f"{arguments.statistics} holds no run of fusible: run fuzz_graphs --statistics {arguments.statistics} first")
        page = arguments.page.read_text()
        if ours:
            page = fill(page, "modules", modules(ours))
            page = fill(page, "histogram", histogram(added(ours)))
        if steered:
            page = fill(page, "steered", modules(steered) + "\n\n" + histogram(added(steered)) + "\n\n" + short(added(steered)))
        if len(ours) < len(runs):
            page = fill(page, "tools", tools(runs))
        arguments.page.write_text(page)
    except (OSError, ValueError) as error:
        print(f"soundness.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
