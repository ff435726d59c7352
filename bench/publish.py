"""Writes races into docs/performance.md (each race a row) and README.md (each model a row), between the markers <!-- race --> and <!-- /race -->,
and their picture into docs/race.svg.

    python bench/publish.py build/race/race.json [FURTHER.json ...]

Several files, of one machine, count as one race: batches and thread counts that were raced one after the other.
"""
import json
import math
import sys
from pathlib import Path

from plot import svg
from summary import best_rival, finished, geometric_mean, speedups
from tables import milliseconds

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"eager": "eager", "ofi": "OFI", "llga": "LLGA", "inductor": "Inductor", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "fusible": "fusible"}


def joined(results):
    """All races as one result; ValueError when they are of several machines, or raced something twice."""
    machines = {result["machine"]["cpu"] for result in results}
    if len(machines) > 1:
        raise ValueError(f"races of one machine were needed, found {', '.join(sorted(machines))}")
    races = [race for result in results for race in result["races"]]
    settings = [(race["model"], race["batch"], race["threads"]) for race in races]
    if twice := {setting for setting in settings if settings.count(setting) > 1}:
        raise ValueError(f"each model, batch and thread count was needed once, found twice: {sorted(twice)}")
    models = list(dict.fromkeys(model for model, _, _ in settings))
    peers = {peer for result in results for peer in result["peers"]}
    races.sort(key=lambda race: (models.index(race["model"]), race["batch"], race["threads"]))
    return {**results[0], "races": races, "peers": [peer for peer in ("freeze", *NAMES) if peer in peers]}


def cell(figures, spread):
    if figures is None:
        return "-"
    return f"{figures['median']:.2f}x" + (f" [{figures['p10']:.2f}, {figures['p90']:.2f}]" if spread else "")


def setting_of(race):
    return race["batch"], race["threads"]


def counted(races, base):
    """The races in which `base` and fusible finished."""
    return [race for race in races if base in finished(race) and "fusible" in finished(race)]


def markdown(rows):
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def table(result, base="freeze"):
    """A row per race: what `base` takes, every peer's ratio to it, and ours to the best of the others, with their spreads."""
    peers = [name for name in result["peers"] if name != base]
    races = counted(result["races"], base)
    settings = sorted({setting_of(race) for race in races})
    rows = [["model", *(["batch", "threads"] if len(settings) > 1 else []), f"{base}, ms", *(NAMES[name] for name in peers), "best peer", "fusible against it"]]
    for race in races:
        ratios, rival = speedups(race, base), best_rival(race)
        where = [str(part) for part in setting_of(race)] if len(settings) > 1 else []
        rows.append([race["model"], *where, f"{milliseconds(race['peers'][base]):.2f}", *(cell(ratios.get(name), True) for name in peers),
                     NAMES.get(rival, rival), cell(speedups(race, rival)["fusible"], True)])
    for setting in [*(settings if len(settings) > 1 else []), None]:
        own = [race for race in races if setting in (None, setting_of(race))]
        means = [geometric_mean(ratios[name]["median"] for race in own if name in (ratios := speedups(race, base))) for name in peers]
        where = [*map(str, setting or ("", ""))] if len(settings) > 1 else []
        rows.append(["geometric mean", *where, "", *("-" if math.isnan(mean) else f"{mean:.2f}x" for mean in means), "", f"{geometric_mean(map(against_best, own)):.2f}x"])
    return markdown(rows)


def against_best(race):
    return speedups(race, best_rival(race))["fusible"]["median"]


def table_of_models(result, base="freeze"):
    """A row per model: fusible against `base` and against the best peer of each setting, and their geometric means."""
    races = counted(result["races"], base)
    settings = sorted({setting_of(race) for race in races})
    named = [f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}" for batch, threads in settings]
    rows = [["model", f"fusible against {base}", *(f"against the best peer: {name}" if i == 0 else name for i, name in enumerate(named)), "all"]]

    def row(name, own):
        by_setting = [[against_best(race) for race in own if setting_of(race) == setting] for setting in settings]
        return [name, f"{geometric_mean(speedups(race, base)['fusible']['median'] for race in own):.2f}x",
                *(f"{geometric_mean(ratios):.2f}x" if ratios else "-" for ratios in by_setting),
                f"{geometric_mean(ratio for ratios in by_setting for ratio in ratios):.2f}x"]

    for model in dict.fromkeys(race["model"] for race in races):
        rows.append(row(model, [race for race in races if race["model"] == model]))
    return markdown([*rows, row("geometric mean", races)])


def put(path, lines):
    before, found, rest = path.read_text().partition("<!-- race -->\n")
    _, end, after = rest.partition("<!-- /race -->")
    if not found or not end:
        sys.exit(f"{path}: the markers <!-- race --> and <!-- /race --> were needed, none were found")
    path.write_text(before + found + "\n".join(lines) + "\n" + end + after)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        result = joined([json.loads(Path(path).read_text()) for path in sys.argv[1:]])
    except ValueError as error:
        sys.exit(f"publish.py: {error}")
    put(ROOT / "docs" / "performance.md", table(result))
    put(ROOT / "README.md", table_of_models(result))
    (ROOT / "docs" / "race.svg").write_text(svg(result, "freeze"))


if __name__ == "__main__":
    main()
