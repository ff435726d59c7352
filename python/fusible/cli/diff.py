"""Compares what is fused of two archives of one model: the regression gate of a release. Says what stopped being fused, what became fused, and why."""
from __future__ import annotations

import argparse
from pathlib import Path

from fusible.cli.options import add_fusing, fusing, refuse_overwriting
from fusible.linting import add_output_arguments, style_of, write

EXAMPLES = """examples:
  fusible diff released.pt candidate.pt
  fusible diff released.json candidate.pt          a report that `fusible lint --output-format json` wrote stands for its model
  fusible diff released.pt candidate.pt --output-format markdown >> "$GITHUB_STEP_SUMMARY"

exit codes: 0 nothing stopped being fused, 1 something did, 2 a model or an option that cannot be used
"""


def configure(parser: argparse.ArgumentParser) -> None:
    from fusible.render import COMPARISON_FORMATS

    parser.add_argument("old", type=Path, metavar="OLD", help="the archive, or the report, that is compared with")
    parser.add_argument("new", type=Path, metavar="NEW", help="the archive, or the report, that is judged")
    parser.add_argument("--output-format", choices=COMPARISON_FORMATS, default="full", help="default: full")
    parser.add_argument("--exit-zero", action="store_true", help="exit 0 even when something stopped being fused")
    add_output_arguments(parser)
    add_fusing(parser)


def run(arguments: argparse.Namespace) -> int:
    import sys

    from fusible.comparison import STOPPED, compare
    from fusible.render import render_comparison
    from fusible.suppress import apply_comments

    refuse_overwriting("--output", arguments.output, [arguments.old, arguments.new, *(arguments.patterns or [])])
    style = style_of(arguments, sys.stdout)
    old, new = (apply_comments(_report(path, arguments), style.resolve) for path in (arguments.old, arguments.new))
    comparison = compare(old, new)
    write(render_comparison(arguments.output_format, comparison, style), arguments.output, sys.stdout)
    return 1 if comparison.of(STOPPED) and not arguments.exit_zero else 0


def _report(path: Path, arguments: argparse.Namespace):
    """Of an archive: linted now. Of a JSON file: what it holds."""
    if path.suffix == ".json":
        from fusible.report import Report

        try:
            return Report.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
    import fusible
    from fusible.cli.progress import progress

    with progress(path.name) as show:
        return fusible.lint(path, progress=show, trust=arguments.trust, **fusing(arguments))
