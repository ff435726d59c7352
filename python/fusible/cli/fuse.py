"""Writes a fused copy of a TorchScript archive. The model is run only when --input asks for verification."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fusible.cli.options import add_fusing, add_selection, fusing, selection

EXAMPLES = """examples:
  fusible fuse model.pt -o fused.pt
  fusible fuse model.pt -o fused.pt --input 1,3,224,224       verified against the original
  fusible fuse model.pt -o portable.pt --target aten          runs without fusible

OUT.pt is complete or is not there: it is written beside its place and renamed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="IN.pt", help="a TorchScript archive")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.pt", help="where the fused archive goes")
    parser.add_argument("--no-verify", action="store_true", help="do not compare with the original, even with --input")
    add_fusing(parser)
    add_selection(parser)


def run(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(f"-o: a file in a folder that exists was needed, found {output}")
    import fusible
    from fusible.cli.progress import progress

    options = {**fusing(arguments), **selection(arguments)}
    module = fusible.load(arguments.model, trust=arguments.trust)
    with progress(arguments.model.name) as show:
        fused = fusible.fuse(module, verify=False if arguments.no_verify else None, progress=show, **options)
    fusible.save(fused, output)
    counts = fusible.report(fused).counts
    size = output.stat().st_size / 2**20
    print(f"{output}: {counts['fused']} of {counts['candidates']} fused, {counts['declined']} declined, {counts['suppressed']} suppressed ({size:.1f} MB)")
    if counts["declined"]:
        print(f"why not: fusible lint {arguments.model}", file=sys.stderr)
    return 0
