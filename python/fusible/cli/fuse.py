"""Writes a fused copy of a TorchScript archive. The model is run only when --input asks for verification, or for measurements with --tune."""
from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from fusible.cli.options import add_fusing, add_selection, fusing, repeated, selection

EXAMPLES = """examples:
  fusible fuse model.pt -o fused.pt
  fusible fuse model.pt -o fused.pt --input 1,3,224,224       verified against the original
  fusible fuse model.pt -o fused.pt --input 1,3,224,224 --tune   the fastest kernels for this machine and shape, by measurement
  fusible fuse model.pt -o portable.pt --target aten          runs without fusible

OUT.pt is complete or is not there: it is written beside its place and renamed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="IN.pt", help="a TorchScript archive")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.pt", help="where the fused archive goes")
    parser.add_argument("--no-verify", action="store_true", help="do not compare with the original, even with --input")
    parser.add_argument("--tune", action="store_true", help="measure on --input: which kernel is fastest on this machine; what loses to the original is left as it is")
    add_fusing(parser)
    add_selection(parser)


def run(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(f"-o: a file in a folder that exists was needed, found {output}")
    if arguments.tune and not arguments.input:
        raise ValueError("--tune: an input to measure with was needed, found none: add --input SHAPE[:DTYPE] for each argument of forward (--input 1,3,224,224)")
    import fusible
    from fusible.archive import extra_files, one_line, told
    from fusible.cli.progress import progress
    from fusible.saving import write_archive

    options = {**fusing(arguments), **selection(arguments)}
    module = fusible.load(arguments.model, trust=arguments.trust)
    with progress(arguments.model.name) as show:
        fused = fusible.fuse(module, verify=False if arguments.no_verify else None, tune=arguments.tune, progress=show, **options)
    extra = extra_files(arguments.model)
    summary = sys.stderr if _is_stdout(output) else sys.stdout  # asked before the file is replaced
    report = fusible.report(fused)  # before the file is there: what can fail or take its time comes first
    counts = report.counts
    size = write_archive(fused, output, _extra_files=extra) / 2**20
    print(f"{told(output)}: {counts['fused']} of {counts['candidates']} fused, {counts['declined']} declined, {counts['suppressed']} suppressed ({size:.1f} MB)",
          file=summary)
    if report.tuning:
        print(report.tuning, file=summary)
    for diagnostic in report.diagnostics:
        if diagnostic.code == "FUS004":
            print(f"not verified: {one_line(diagnostic.found)}", file=sys.stderr)
        if diagnostic.code == "FUS006":
            print(f"note: {diagnostic.message}", file=sys.stderr)
    if counts["declined"]:
        print(f"why not: fusible lint {shlex.quote(told(arguments.model))}{repeated(arguments)}", file=sys.stderr)
    return 0


def _is_stdout(path: Path) -> bool:
    """Whether what is printed would go where the archive goes: /dev/stdout, or a name of the same file or pipe."""
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # there is no such file yet; stdout is no file
        return False
