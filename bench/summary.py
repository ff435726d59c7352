"""From the times of the rounds to the figures of the table: ratios are taken within a round, so that drift of the machine cancels."""
import math
import statistics


def quantile(values, share):
    """Linear interpolation between the order statistics."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def round_figures(times):
    """Milliseconds of one peer in one round. The minimum is what the race compares: what disturbs a call only ever adds to it."""
    return {"minimum_ms": 1e3 * min(times), "median_ms": 1e3 * statistics.median(times), "calls": len(times)}


def speedup(base, peer):
    """How many times faster `peer` is than `base` (lists of round figures): median, 10th and 90th percentile over the rounds."""
    ratios = [b["minimum_ms"] / p["minimum_ms"] for b, p in zip(base, peer)]
    return {"median": statistics.median(ratios), "p10": quantile(ratios, 0.1), "p90": quantile(ratios, 0.9), "rounds": len(ratios)}


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def label(race):
    return f"{race['model']}, batch {race['batch']}, {race['threads']} thread{'s' if race['threads'] > 1 else ''}"


def finished(race):
    return {name: peer for name, peer in race["peers"].items() if peer.get("rounds")}


def speedups(race, base):
    """{peer: speedup over `base`}; empty when `base` did not finish."""
    peers = finished(race)
    return {name: speedup(peers[base]["rounds"], peer["rounds"]) for name, peer in peers.items()} if base in peers else {}


def best_rival(race, ours="fusible"):
    """Name of the fastest peer that finished, ours and the original apart; None when there is none."""
    rivals = {
        name: statistics.median(r["minimum_ms"] for r in peer["rounds"]) for name, peer in finished(race).items() if name not in (ours, "eager")
    }
    return min(rivals, key=rivals.get) if rivals else None


def slower_than(base, races, ours="fusible", floor=0.97):
    """Labels of the races that `ours` loses against `base`: median ratio below 1, or 10th percentile below `floor`."""
    lost = []
    for race in races:
        figures = speedups(race, base).get(ours)
        if figures and (figures["median"] < 1 or figures["p10"] < floor):
            lost.append(f"{label(race)}: {figures['median']:.3f}x (10th percentile {figures['p10']:.3f}x)")
    return lost
