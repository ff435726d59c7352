"""Says what fuse would do with TorchScript archives, and for what stays unfused the reason, the place and the way out. Nothing is changed."""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from fusible.cli.options import add_fusing, fusing
from fusible.linting import Unusable, add_lint_arguments, run_lint

EXAMPLES = """examples:
  fusible lint model.pt
  fusible lint *.pt --output-format sarif -o fusible.sarif
  fusible lint model.pt --input 1,3,224,224 --sample
  fusible lint model.pt --baseline fusible-baseline.json --fail-on error

exit codes: 0 nothing at or above --fail-on, 1 findings, 2 a model or an option that cannot be used
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL.pt", help="TorchScript archives")
    add_lint_arguments(parser)
    parser.add_argument("--sample", action="store_true", help="measure what each missed fusion would save: runs its operators, not the model, on "
                        "random tensors of the shapes that --input leads to")
    add_fusing(parser)


def run(arguments: argparse.Namespace) -> int:
    if not arguments.models and not arguments.show_settings:
        raise ValueError("at least one model was needed, found none: fusible lint MODEL.pt")
    return run_lint(_reports(arguments), arguments)


def _reports(arguments: argparse.Namespace) -> Iterator:
    import fusible
    from fusible.cli.progress import progress

    options = fusing(arguments)
    for model in arguments.models:
        try:
            with progress(model.name) as show:
                report = fusible.lint(model, progress=show, sample=arguments.sample, trust=arguments.trust, **options)
        except fusible.FusibleError as error:
            report = Unusable(str(model), str(error))
        yield report
