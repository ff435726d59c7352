"""Says what fuse would do with TorchScript archives, and for what stays unfused the reason, the place and the way out. Nothing is changed."""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

from fusible.archive import one_line, told
from fusible.cli.options import add_fusing, fusing, refuse_overwriting
from fusible.linting import Unusable, add_lint_arguments, run_lint
from fusible.model_files import SUFFIXES, model_files

EXAMPLES = """examples:
  fusible lint model.pt
  fusible lint models/ 'exports/**/*.pt'
  fusible lint *.pt --output-format sarif -o fusible.sarif
  fusible lint model.pt --input 1,3,224,224 --sample
  fusible lint model.pt --baseline fusible-baseline.json --fail-on error

exit codes: 0 nothing at or above --fail-on, 1 findings, 2 a model or an option that cannot be used
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"TorchScript archives, folders of them (*{', *'.join(SUFFIXES)}), globs")
    add_lint_arguments(parser)
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="models that are read at once (default: the number of cores; 1 with --sample)")
    parser.add_argument("--sample", action="store_true", help="measure what each missed fusion would save: runs its operators, not the model, on "
                        "random tensors of the shapes that --input leads to")
    add_fusing(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.show_settings:
        return run_lint([], arguments)
    if not arguments.models:
        raise ValueError("at least one model was needed, found none: fusible lint MODEL.pt")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ValueError(f"--jobs: at least 1 was needed, found {arguments.jobs}")
    if arguments.sample and (arguments.jobs or 1) > 1:
        raise ValueError(f"--jobs: 1 was needed with --sample, which measures, found {arguments.jobs}")
    if arguments.sample and not arguments.input:
        raise ValueError("--sample: shapes to measure with were needed, found none: "
                         "add --input SHAPE[:DTYPE] for each argument of forward (--input 1,3,224,224)")
    files = model_files(arguments.models)
    read = [*files.models, *(arguments.patterns or []), *filter(None, [arguments.config])]
    refuse_overwriting("--output", arguments.output, [*read, *filter(None, [arguments.baseline])])
    refuse_overwriting("--write-baseline", arguments.write_baseline, read)
    if files.others:
        shown = ", ".join(map(str, files.others[:3])) + (", ..." if len(files.others) > 3 else "")
        print(f"note: {len(files.others)} of {len(files.others) + len(files.models)} files hold no TorchScript and are left out: {shown}", file=sys.stderr)
    jobs = 1 if arguments.sample else arguments.jobs or os.cpu_count() or 1
    return run_lint(_reports(files.models, arguments, jobs), arguments)


def _reports(models: tuple[Path, ...], arguments: argparse.Namespace, jobs: int) -> Iterator:
    """One per model, in their order."""
    import fusible  # noqa: F401  (once, before threads ask for it)
    from fusible.cli.progress import progress

    lint = partial(_lint, arguments=arguments, options=fusing(arguments))
    if jobs == 1 or len(models) == 1:
        for model in models:
            with progress(model.name) as show:
                yield lint(model, show)
        return
    stopped = Event()

    def stop_early(stage: str, share: float) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt  # only the main thread hears of Ctrl-C

    with progress("lint") as show, ThreadPoolExecutor(jobs) as pool:
        try:
            for done, report in enumerate(pool.map(lambda model: lint(model, stop_early), models), 1):
                if show:
                    show(f"{done} of {len(models)} models", done / len(models))
                yield report
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _lint(model: Path, show: Callable[[str, float], None] | None, arguments: argparse.Namespace, options: dict):
    import fusible

    try:
        return fusible.lint(model, progress=show, sample=arguments.sample, trust=arguments.trust, **options)
    except fusible.FusibleError as error:
        said = one_line(error)
        return Unusable(str(model), said if told(model) in said else f"{told(model)}: {said}")
    except RuntimeError as error:
        if not arguments.sample:
            raise
        reason = one_line(str(error).strip().rpartition("\n")[2])  # the interpreter's own come first
        return Unusable(str(model), f"{told(model)}: inputs that the model takes were needed to measure with, on those of --input it raises: {reason}")
