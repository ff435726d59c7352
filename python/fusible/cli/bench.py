"""Times a model before and after fusing: two processes, interleaved rounds, the ratio of each round and its spread."""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from fusible.cli.options import add_fusing, add_selection, fusing, selection

EXAMPLES = """examples:
  fusible bench model.pt --input 1,3,224,224
  fusible bench model.pt --input 1,3,224,224 --threads 1 --rounds 15
  fusible bench model.pt --fused fused.pt --input 8,128:int64
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.pt", help="a TorchScript archive")
    parser.add_argument("--fused", type=Path, metavar="FUSED.pt", help="an archive to time against it (default: MODEL.pt, fused now)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="interleaved rounds (default 9)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each process (default: torch's choice)")
    parser.add_argument("--json", action="store_true", help="print the times of every round as JSON")
    add_fusing(parser)
    add_selection(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.rounds < 1:
        raise ValueError(f"--rounds: at least 1 was needed, found {arguments.rounds}")
    if arguments.threads is not None and arguments.threads < 1:
        raise ValueError(f"--threads: at least 1 was needed, found {arguments.threads}")
    with tempfile.TemporaryDirectory(prefix="fusible-bench-") as folder:
        fused = arguments.fused or _fuse(arguments, Path(folder) / "fused.pt")
        return _race(arguments, fused)


def _fuse(arguments: argparse.Namespace, output: Path) -> Path:
    import fusible
    from fusible.cli.progress import progress

    module = fusible.load(arguments.model, trust=arguments.trust)
    with progress(arguments.model.name) as show:
        fusible.save(fusible.fuse(module, progress=show, **fusing(arguments), **selection(arguments)), output)
    return output


def _race(arguments: argparse.Namespace, fused: Path) -> int:
    from fusible.archive import refusal_of
    from fusible.cli.progress import progress
    from fusible.race import Runner, race

    for archive in (arguments.model, fused):
        if refusal := refusal_of(archive, arguments.trust):
            raise ValueError(refusal)
    inputs = arguments.input or []
    with Runner(arguments.model, inputs, threads=arguments.threads) as before, \
            Runner(fused, inputs, library=True, threads=arguments.threads) as after, progress("rounds") as show:
        result = race(before, after, rounds=arguments.rounds,
                      tick=lambda done: show and show(f"{done} of {arguments.rounds}", done / arguments.rounds))
    if arguments.json:
        print(json.dumps({"before_s": result.before, "after_s": result.after, "ratio": result.median}))
        return 0
    print(f"before  {1e3 * sorted(result.before)[len(result.before) // 2]:9.3f} ms")
    print(f"after   {1e3 * sorted(result.after)[len(result.after) // 2]:9.3f} ms")
    print(f"ratio   {result.median:9.2f} x   (10th to 90th percentile of {arguments.rounds} rounds: {result.quantile(0.1):.2f} to {result.quantile(0.9):.2f})")
    if result.quantile(0.1) < 1 < result.quantile(0.9):
        print("the spread includes 1: no difference was shown on this machine now", file=sys.stderr)
    return 0
