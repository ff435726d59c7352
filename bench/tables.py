"""The race as text: one writer for Markdown, which reads well in a terminal too."""
import statistics

from summary import best_rival, finished, geometric_mean, label, speedups


def aligned(rows):
    """Rows of cells as a Markdown table; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def milliseconds(peer):
    return statistics.median(figures["minimum_ms"] for figures in peer["rounds"])


def speed(result, base):
    """Speed-up over `base`, with the 10th to 90th percentile of the rounds in brackets."""
    peers = [name for name in result["peers"] if name != base]
    rows = [["model", "batch", "threads", f"{base} ms", *peers]]
    for race in result["races"]:
        ratios = speedups(race, base)
        if not ratios:
            continue
        cells = [f"{r['median']:.2f}x [{r['p10']:.2f}, {r['p90']:.2f}]" if (r := ratios.get(name)) else "-" for name in peers]
        rows.append([race["model"], str(race["batch"]), str(race["threads"]), f"{milliseconds(race['peers'][base]):.2f}", *cells])
    means = []
    for name in peers:
        medians = [ratios[name]["median"] for race in result["races"] if name in (ratios := speedups(race, base))]
        means.append(f"{geometric_mean(medians):.2f}x of {len(medians)}" if medians else "-")
    return aligned([*rows, ["geometric mean", "", "", "", *means]])


def against_best(result, ours="fusible"):
    rows = [["model", "batch", "threads", "best peer", f"{ours} against it"]]
    ratios = []
    for race in result["races"]:
        rival = best_rival(race, ours)
        if rival and ours in finished(race):
            figures = speedups(race, rival)[ours]
            ratios.append(figures["median"])
            spread = f"{figures['median']:.2f}x [{figures['p10']:.2f}, {figures['p90']:.2f}]"
            rows.append([race["model"], str(race["batch"]), str(race["threads"]), rival, spread])
    return aligned([*rows, ["geometric mean", "", "", "", f"{geometric_mean(ratios):.2f}x"]]) if ratios else []


def costs(result):
    """Error against eager, time from the shipped file to the first result, memory."""
    rows = [["model", "batch", "threads", "peer", "error / max|y|", "prepare s", "first result s", "peak MB", "peak MB while running"]]
    for race in result["races"]:
        for name, peer in finished(race).items():
            rows.append([
                race["model"], str(race["batch"]), str(race["threads"]), name, f"{peer['error']:.1e}" if "error" in peer else "-",
                f"{peer['prepare_s']:.2f}", f"{peer['first_result_s']:.2f}", f"{peer['peak_mb']:.0f}", f"{peer['running_peak_mb']:.0f}",
            ])
    return aligned(rows)


def failures(result):
    lines = [f"- {name}: not installed ({missing['missing']}); `{missing['install']}`" for name, missing in result["missing"].items()]
    lines += [f"- {model} was not built: {problem}" for model, problem in result["not_built"].items()]
    for race in result["races"]:
        lines += [f"- {name} on {label(race)}: {peer['failed']}" for name, peer in race["peers"].items() if "failed" in peer]
    disturbed = [label(race) for race in result["races"] if race["idle_cpu_share"] > 0.02]
    if disturbed:
        lines.append(f"- peers that should have slept used more than 2 % of a core during: {'; '.join(disturbed)}")
    return lines or ["- none"]


def markdown(result, base):
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    head = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB; {versions}; {result['rounds']} rounds; {result['date']}"
    parts = [["# Race", "", head, "", f"## Speed-up over {base}", "", *speed(result, base)]]
    if rivals := against_best(result):
        parts.append(["## Against the best of all peers", "", *rivals])
    parts.append(["## Error, start and memory", "", *costs(result)])
    parts.append(["## Failed or missing", "", *failures(result)])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"
