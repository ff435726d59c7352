"""What fusing costs: a traced chain of convolution, batch_norm and relu with as many nodes as asked for, fused, split by stage.

    python bench/fuse_cost.py                            50,000 nodes and a tenth of that, for the growth
    python bench/fuse_cost.py --limit-ms 1000            exit 1 when one of the largest takes longer

Two forms of it: an nn.Sequential of thousands of modules, and a function that holds its weights itself. The median of --repeats calls of
fusible.fuse is told, with its stages from report.timings_ms, and the least processor time, beside torch.jit.freeze on the same module.
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


def function(blocks):
    """The same operators in one function, its weights constants of the graph."""
    draws = [(torch.randn(4, 4, 3, 3), *torch.rand(5, 4).add(0.5)) for _ in range(blocks)]

    def forward(x):
        for w, b, scale, shift, mean, var in draws:
            x = torch.conv2d(x, w, b, [1, 1], [1, 1])
            x = torch.relu(torch.batch_norm(x, scale, shift, mean, var, False, 0.1, 1e-5, True))
        return x

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.jit.trace(forward, torch.randn(1, 4, 4, 4), check_trace=False)


def node_count(module):
    return sum(1 for _ in module.inlined_graph.nodes())


def with_nodes(form, nodes):
    """A model of that form with about `nodes` nodes in the raw inlined graph."""
    per_block = (node_count(form(20)) - node_count(form(10))) / 10
    return form(max(1, round(nodes / per_block)))


def timed(action, repeats):
    """[(milliseconds, milliseconds of the processor, result)] sorted by time."""
    runs = []
    for _ in range(repeats):
        start, processor = time.perf_counter(), time.process_time()
        result = action()
        runs.append((1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - processor), result))
    return sorted(runs, key=lambda run: run[0])


def measure(form, nodes, repeats):
    import fusible

    module = with_nodes(form, nodes)
    fuses = timed(lambda: fusible.fuse(module), repeats)
    frozen = timed(lambda: torch.jit.freeze(module), 1)[0][0] if isinstance(module, torch.jit.ScriptModule) else None  # takes seconds
    milliseconds, _, fused = fuses[len(fuses) // 2]
    report = fusible.report(fused)
    return {
        "form": form.__name__, "nodes": node_count(module), "candidates": report.counts["candidates"], "fused": report.counts["fused"],
        "fuse_ms": milliseconds, "processor_ms": min(run[1] for run in fuses), "stages_ms": dict(report.timings_ms), "freeze_ms": frozen,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50_000, help="nodes of the raw inlined graph; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--limit-ms", type=float, help="exit 1 when fusing the largest graph takes longer")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = [measure(form, nodes, options.repeats) for form in (chain, function) for nodes in (options.nodes // 10, options.nodes)]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            beside = f" (torch.jit.freeze {result['freeze_ms']:.0f} ms)" if result["freeze_ms"] else ""
            print(f"{result['form']}, {result['nodes']} nodes, {result['fused']} of {result['candidates']} candidates fused: "
                  f"{result['fuse_ms']:.0f} ms, {result['processor_ms']:.0f} ms of the processor{beside}")
            for stage, milliseconds in sorted(result["stages_ms"].items(), key=lambda item: -item[1]):
                print(f"  {stage:<12}{milliseconds:9.1f} ms")
    return 1 if options.limit_ms and max(result["fuse_ms"] for result in results) > options.limit_ms else 0


if __name__ == "__main__":
    sys.exit(main())
