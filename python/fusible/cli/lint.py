"""Says what fuse would do with TorchScript archives, and for what stays unfused the reason, the place and the way out. Nothing is changed."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fusible.cli.options import add_fusing, fusing

EXAMPLES = """examples:
  fusible lint model.pt
  fusible lint *.pt --output-format sarif -o fusible.sarif
  fusible lint model.pt --fail-on error --ignore FUS2

exit codes: 0 nothing at or above --fail-on, 1 findings, 2 a model or an option that cannot be used
"""
LEVELS = ("note", "warning", "error")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.pt", help="TorchScript archives")
    parser.add_argument("--output-format", default="full", metavar="FORMAT", help="full (default), concise, json, sarif, github, junit, html, ...")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the report there instead of stdout")
    parser.add_argument("--fail-on", choices=(*LEVELS, "never"), default="warning", help="least severity that gives exit 1 (default warning)")
    parser.add_argument("--exit-zero", action="store_true", help="exit 0 in spite of findings")
    add_fusing(parser)


def run(arguments: argparse.Namespace) -> int:
    import fusible
    from fusible.cli.progress import progress
    from fusible.render import render

    options = fusing(arguments)
    reports, unusable = [], False
    for model in arguments.models:
        try:
            with progress(model.name) as show:
                reports.append(fusible.lint(model, progress=show, **options))
        except fusible.FusibleError as error:
            print(f"fusible: error: {error}", file=sys.stderr)
            unusable = True
    if reports:
        text = render(arguments.output_format, reports).rstrip("\n")
        if arguments.output:
            arguments.output.write_text(text + "\n")
        else:
            print(text)
    if unusable:
        return 2
    return int(not arguments.exit_zero and any(fails(report, arguments.fail_on) for report in reports))


def fails(report, least: str) -> bool:
    if least == "never":
        return False
    return any(not finding.suppressed and LEVELS.index(finding.severity) >= LEVELS.index(least) for finding in report.diagnostics)
