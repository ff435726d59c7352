"""What fusing costs: a traced chain of convolution, batch_norm and relu with as many nodes as asked for, fused, split by stage.

    python bench/fuse_cost.py                            50,000 nodes and a tenth of that, for the growth
    python bench/fuse_cost.py --limit-ms 1000            exit 1 when the largest takes longer

The median of --repeats calls of fusible.fuse is told, with the stages of the median call from report.timings_ms, beside torch.jit.freeze
on the same module.
"""
import argparse
import json
import sys
import time
import warnings

import torch
from torch import nn


def chain(blocks):
    """Layers of four channels on 4 x 4 images: all cost is in the graph."""
    layers = [layer for _ in range(blocks) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Sequential(*layers).eval(), torch.randn(1, 4, 4, 4), check_trace=False)


def node_count(module):
    return sum(1 for _ in module.inlined_graph.nodes())


def with_nodes(nodes):
    """A chain of about `nodes` nodes in the raw inlined graph."""
    per_block = (node_count(chain(20)) - node_count(chain(10))) / 10
    return chain(max(1, round(nodes / per_block)))


def timed(action, repeats):
    """[(milliseconds, result)] sorted by time."""
    runs = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = action()
        runs.append((1e3 * (time.perf_counter() - start), result))
    return sorted(runs, key=lambda run: run[0])


def measure(nodes, repeats):
    import fusible

    module = with_nodes(nodes)
    fuses = timed(lambda: fusible.report(fusible.fuse(module)), repeats)
    freezes = timed(lambda: torch.jit.freeze(module), 1)  # takes seconds
    milliseconds, report = fuses[len(fuses) // 2]
    return {
        "nodes": node_count(module), "candidates": report.counts["candidates"], "fused": report.counts["fused"], "fuse_ms": milliseconds,
        "stages_ms": dict(report.timings_ms), "freeze_ms": freezes[0][0],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50_000, help="nodes of the raw inlined graph; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--limit-ms", type=float, help="exit 1 when fusing the largest graph takes longer")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = [measure(nodes, options.repeats) for nodes in (options.nodes // 10, options.nodes)]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            print(f"{result['nodes']} nodes, {result['fused']} of {result['candidates']} candidates fused: {result['fuse_ms']:.0f} ms "
                  f"(torch.jit.freeze {result['freeze_ms']:.0f} ms)")
            for stage, milliseconds in sorted(result["stages_ms"].items(), key=lambda item: -item[1]):
                print(f"  {stage:<12}{milliseconds:9.1f} ms")
    return 1 if options.limit_ms and results[-1]["fuse_ms"] > options.limit_ms else 0


if __name__ == "__main__":
    sys.exit(main())
