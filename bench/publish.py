"""Writes a race's table into docs/performance.md and README.md, between the markers <!-- race --> and <!-- /race -->.

    python bench/publish.py build/race/race.json
"""
import json
import sys
from pathlib import Path

from summary import best_rival, finished, geometric_mean, speedups
from tables import milliseconds

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"eager": "eager", "ofi": "OFI", "llga": "LLGA", "inductor": "Inductor", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "fusible": "fusible"}


def cell(figures, spread):
    if figures is None:
        return "-"
    return f"{figures['median']:.2f}x" + (f" [{figures['p10']:.2f}, {figures['p90']:.2f}]" if spread else "")


def table(result, spread, base="freeze"):
    """A row per race: what `base` takes, every peer's ratio to it, and ours to the best of the others."""
    peers = [name for name in result["peers"] if name != base]
    settings = sorted({(race["batch"], race["threads"]) for race in result["races"]})
    rows = [["model", *(["batch", "threads"] if len(settings) > 1 else []), f"{base}, ms", *(NAMES[name] for name in peers), "best peer", "fusible against it"]]
    against = []
    for race in result["races"]:
        ratios, rival = speedups(race, base), best_rival(race)
        if not ratios or "fusible" not in finished(race):
            continue
        ours = speedups(race, rival)["fusible"]
        against.append(ours["median"])
        where = [str(race["batch"]), str(race["threads"])] if len(settings) > 1 else []
        rows.append([race["model"], *where, f"{milliseconds(race['peers'][base]):.2f}", *(cell(ratios.get(name), spread) for name in peers),
                     NAMES.get(rival, rival), cell(ours, spread)])
    means = [geometric_mean(ratios[name]["median"] for race in result["races"] if name in (ratios := speedups(race, base))) for name in peers]
    blank = [""] * (2 if len(settings) > 1 else 0)
    rows.append(["geometric mean", *blank, "", *(f"{mean:.2f}x" for mean in means), "", f"{geometric_mean(against):.2f}x"])
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def put(path, lines):
    before, found, rest = path.read_text().partition("<!-- race -->\n")
    _, end, after = rest.partition("<!-- /race -->")
    if not found or not end:
        sys.exit(f"{path}: the markers <!-- race --> and <!-- /race --> were needed, none were found")
    path.write_text(before + found + "\n".join(lines) + "\n" + end + after)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    result = json.loads(Path(sys.argv[1]).read_text())
    put(ROOT / "docs" / "performance.md", table(result, spread=True))
    put(ROOT / "README.md", table(result, spread=False))


if __name__ == "__main__":
    main()
